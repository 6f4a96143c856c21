"""The processes of a running node, and their replacement by processes with another configuration.

A node is ready when its listening processes serve. Its workers start then: their imports would take the processors from the listeners, and a
received series waits in the database until a worker claims it.

A listener or an HTTP service is replaced without a gap: its successor accepts connections on the same socket, then it stops accepting and ends when
its last association or request has ended. A worker ends its task first, and its successor starts then: two would use the memory of
one GPU, or two associations with one destination.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from alnnode.errors import ServiceError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Collection, Sequence

    from alnnode.process.supervised import SupervisedProcess

START_LIMIT = 60.0  # seconds for all processes to become ready
START_POLL = 0.05  # seconds
STOP_LIMIT = 6.0  # seconds for a process to stop by itself
REFUSED = 1  # exit code of a worker that refuses to start (`workers.__main__`); other codes are errors of the settings or of this program

log = structlog.get_logger()


@dataclass(slots=True)
class _Retiring:
    """A process that ends by itself, and the process that starts then."""

    process: SupervisedProcess
    successor: SupervisedProcess | None
    deadline: float
    told: bool = False  # to end at once


class ProcessSet:
    """Starts, supervises, replaces and stops processes; for one thread.

    Args:
        processes: of the node; they are not started yet.
        starting: called with the names of the workers that `start_workers` has started and that are not ready yet, whenever they change.
    """

    def __init__(
        self, processes: Sequence[SupervisedProcess], starting: Callable[[Collection[str]], None] = lambda _: None
    ) -> None:
        self._processes = list(processes)
        self._retiring: list[_Retiring] = []
        self._workers: list[SupervisedProcess] = []  # that start while the node serves
        self._tell_starting = starting

    def start(self, stop: threading.Event) -> list[str]:
        """Start the listening processes, and wait until they are ready or ``stop`` is set; without them, the same for all processes.

        Returns:
            The names of the processes that are ready.

        Raises:
            ServiceError: a process does not start.
        """
        first = [process for process in self._processes if process.beside] or self._processes
        self._workers = [process for process in self._processes if process not in first]
        start(first, stop)
        return [process.name for process in first]

    def start_workers(self) -> None:
        """Start the processes that `start` left; `supervise` logs when they are ready."""
        for process in self._workers:
            process.start_or_retry()
        if self._workers:
            self._tell_starting([process.name for process in self._workers])

    def supervise(self) -> None:
        """Restart the processes that died; end those that retire for too long."""
        self._look_at_workers()
        for process in self._processes:
            process.restart_if_died()
        for one in list(self._retiring):
            self._advance(one)

    def replace(self, processes: Sequence[SupervisedProcess], limit: float, stop: threading.Event) -> None:
        """Replace all processes; those that run retire for at most ``limit`` seconds.

        Raises:
            ServiceError: a successor does not start; all processes are as before.
        """
        beside = [process for process in processes if process.beside]
        try:
            start(beside, stop)
        except ServiceError:
            stop_all(beside, STOP_LIMIT)
            raise
        after = {process.name: process for process in processes if not process.beside}
        waited_for = {one.successor: one for one in self._retiring if one.successor is not None}
        for old in self._processes:
            if old in waited_for:  # it has not started: the process before it still ends, and its next successor is the new one
                waited_for[old].successor = after.get(old.name)
                continue
            old.retire()
            self._retiring.append(_Retiring(old, after.get(old.name), time.monotonic() + limit))
        self._processes = list(processes)

    def stop(self, limit: float) -> None:
        """Stop all processes at the same time; kill those that still run after ``limit`` seconds."""
        self._tell_starting([])
        stop_all([*self._processes, *(one.process for one in self._retiring)], limit)

    def _look_at_workers(self) -> None:
        """Log the first start of each worker: that it is ready, or that it ended."""
        for process in list(self._workers):
            if process.is_ready():
                log.info("part_ready", part=process.name)
            elif process.exit_code() is not None:
                log.error("part_not_started", part=process.name)
            elif process in self._processes:
                continue
            self._workers.remove(process)
            self._tell_starting([one.name for one in self._workers])

    def _advance(self, one: _Retiring) -> None:
        over = time.monotonic() - one.deadline
        if one.process.exit_code() is None and over < 0 and one.process.pid is not None:
            return
        if one.process.pid is not None and not one.told:
            log.warning("part_retired_too_long", part=one.process.name)
            one.process.terminate()
            one.told, one.deadline = True, time.monotonic() + STOP_LIMIT
            return
        one.process.wait_or_kill(0.1)
        self._retiring.remove(one)
        log.info("part_replaced", part=one.process.name)
        if one.successor is not None:
            one.successor.start_or_retry()


def start(processes: Sequence[SupervisedProcess], stop: threading.Event) -> None:
    """Start processes, and wait until they are ready or ``stop`` is set.

    Raises:
        ServiceError: a process does not start.
    """
    for process in processes:
        process.start()
    wait(processes, stop)


def wait(processes: Sequence[SupervisedProcess], stop: threading.Event) -> None:
    """Wait until processes that were started are ready or ``stop`` is set.

    Raises:
        ServiceError: a process does not start.
    """
    deadline = time.monotonic() + START_LIMIT
    waiting = list(processes)
    while waiting and not stop.wait(START_POLL):
        waiting = [process for process in waiting if not process.is_ready()]
        for process in waiting:
            code = process.exit_code()
            if code == REFUSED and not process.needed:
                log.error("part_not_started", part=process.name)
                waiting = [one for one in waiting if one is not process]
            elif code is not None:
                raise ServiceError(
                    f"the process {process.name} ended at start with exit code {code}; the log lines above give the reason"
                )
        if waiting and time.monotonic() > deadline:
            raise ServiceError(
                f"the process {waiting[0].name} is not ready after {START_LIMIT:.0f} s; look at the log lines above"
            )


def stop_all(processes: Sequence[SupervisedProcess], limit: float) -> None:
    """Stop the processes at the same time; kill those that still run after ``limit`` seconds."""
    deadline = time.monotonic() + limit
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait_or_kill(max(0.1, deadline - time.monotonic()))
