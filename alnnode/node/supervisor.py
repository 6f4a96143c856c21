"""The supervisor of ``alnnode serve``, ``listen``, ``web`` and ``work``: it starts the processes of a node, restarts those that die, and stops all.

The functions follow the order of events: start, main loop, stop. The sweep is a thread of this process. When this process is killed, the
kernel ends its children (`alnnode.process.child`).
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.exc import SQLAlchemyError

from alnnode.audit.sender import AuditSender
from alnnode.audit.trail import Trail
from alnnode.db import engine, schema
from alnnode.errors import AlnnodeError, ServiceError
from alnnode.node import private_redis
from alnnode.node.sweep import Sweep
from alnnode.notify.notifier import NotifierThread
from alnnode.process import child
from alnnode.process.supervised import SupervisedProcess
from alnnode.spool.spool import Spool
from alnnode.task_queue import ANALYSE, DELIVER, Producer, ping

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from alnnode.settings import Settings

START_LIMIT = 60.0  # seconds for all processes to become ready
STOP_LIMIT = 6.0  # seconds for a process to stop by itself; an interrupted analysis begins once more at the next start
BROKER_STOP_LIMIT = 2.0  # seconds
POLL, START_POLL = 0.2, 0.05  # seconds
LOCK = "serve.lock"
REFUSED = 1  # exit code of a worker that refuses to start (`workers.__main__`); other codes are errors of the settings or of this program

log = structlog.get_logger()


def serve(settings: Settings, config: Path | None) -> int:
    """Run the whole node until SIGTERM or SIGINT; return the exit code.

    Raises:
        ServiceError: another node uses this data directory, or a process does not start.
    """
    child.protect_memory_and_files()
    with ExitStack() as stack:
        stack.enter_context(_lock(settings.node.data_dir.resolve()))
        schema.migrate(settings.database_url)
        redis = None if settings.broker.url else _redis(settings)
        return _run(settings, redis, [*_listeners(settings, config), *_web(settings, config), *_workers(config)], sweeps=True)


def listen(settings: Settings, config: Path | None) -> int:
    """Run listeners, sweep and HTTP service until SIGTERM or SIGINT; return the exit code.

    Raises:
        ServiceError: the database does not have the schema of this version, or a process does not start.
    """
    child.protect_memory_and_files()
    schema.schema_state(settings.database_url)
    _check_broker(settings)
    return _run(settings, None, [*_listeners(settings, config), *_web(settings, config)], sweeps=True)


def web(settings: Settings, config: Path | None) -> int:
    """Run the HTTP service alone until SIGTERM or SIGINT; return the exit code.

    Raises:
        ServiceError: the database does not have the schema of this version, or the process does not start.
    """
    child.protect_memory_and_files()
    schema.schema_state(settings.database_url)
    return _run(settings, None, _web(settings, config, always=True), sweeps=False)


def work(settings: Settings, config: Path | None) -> int:
    """Run both workers until SIGTERM or SIGINT; return the exit code.

    Raises:
        ServiceError: the database does not have the schema of this version, or a process does not start.
    """
    child.protect_memory_and_files()
    schema.schema_state(settings.database_url)
    _check_broker(settings)
    return _run(settings, None, _workers(config), sweeps=False)


def _check_broker(settings: Settings) -> None:
    if not settings.broker.url and not private_redis.answers(settings.redis_socket):
        raise ServiceError(
            "no broker is configured: set [broker] url to a Redis that listeners and workers share, or run `alnnode serve`"
        )


def _environment(config: Path | None) -> dict[str, str]:
    return {**os.environ, **({"ALNNODE_CONFIG": str(config.resolve())} if config else {})}


def _redis(settings: Settings) -> SupervisedProcess:
    socket = settings.redis_socket
    return SupervisedProcess(
        "redis", lambda: private_redis.prepare(socket), os.environ, ready=lambda: private_redis.answers(socket)
    )


def _listeners(settings: Settings, config: Path | None) -> list[SupervisedProcess]:
    environment = _environment(config)
    arguments = [sys.executable, "-m", "alnnode.receive"]
    return [
        SupervisedProcess(f"listener-{number}", arguments, environment) for number in range(1, settings.listener.processes + 1)
    ]


def _web(settings: Settings, config: Path | None, *, always: bool = False) -> list[SupervisedProcess]:
    enabled = always or settings.web.enabled
    return [SupervisedProcess("web", [sys.executable, "-m", "alnnode.web"], _environment(config))] if enabled else []


def _workers(config: Path | None) -> list[SupervisedProcess]:
    environment = _environment(config)
    # A damaged model bundle must stop the analysis only: the node still receives and delivers.
    return [
        SupervisedProcess(f"worker-{queue}", [sys.executable, "-m", "workers", queue], environment, needed=queue != ANALYSE)
        for queue in (ANALYSE, DELIVER)
    ]


def _run(settings: Settings, redis: SupervisedProcess | None, processes: Sequence[SupervisedProcess], *, sweeps: bool) -> int:
    """Start Redis, the other processes and the sweep; supervise them until a signal comes; then stop Redis last. Return the exit code."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    trail, sender, notifier = Trail(settings), AuditSender(settings), NotifierThread(settings)
    sweep = threading.Thread(target=_sweep, args=(settings, trail, stop), name="sweep", daemon=True)
    supervised = [*([redis] if redis else []), *processes]
    try:
        if redis is not None:
            _start_redis(redis, settings.redis_socket, stop)
        _start(processes, stop)
        if sweeps and not stop.is_set():
            sweep.start()
            notifier.start()
        if not stop.is_set():
            log.info("node_ready", parts=[process.name for process in supervised])
            trail.put(trail.events.application(started=True))
        while not stop.wait(POLL):
            if sweeps and not sweep.is_alive():
                raise ServiceError(
                    "the sweep ended unexpectedly, and no series can be completed without it; the log lines above give the reason"
                )
            for process in supervised:
                process.restart_if_died()
    finally:
        stop.set()
        notifier.close()
        _stop(processes, STOP_LIMIT)
        if sweep.ident is not None:
            sweep.join(STOP_LIMIT)
        _stop([redis] if redis else [], BROKER_STOP_LIMIT)
        trail.put(trail.events.application(started=False))
        trail.close()
        sender.close()
    log.info("stopped")
    return 0


def _start_redis(redis: SupervisedProcess, socket: Path, stop: threading.Event) -> None:
    """Start Redis. If it cannot read its append-only file, start it without: the sweep enqueues the lost messages once more."""
    log.info("private_redis", server=private_redis.newest_program().description)
    try:
        _start([redis], stop)
    except ServiceError:
        aside = private_redis.set_aside_file(socket)
        if aside is None:
            raise
        log.warning("redis_file_set_aside", file=str(aside))
        _start([redis], stop)


def _start(processes: Sequence[SupervisedProcess], stop: threading.Event) -> None:
    deadline = time.monotonic() + START_LIMIT
    for process in processes:
        process.start()
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


def _stop(processes: Sequence[SupervisedProcess], limit: float) -> None:
    """Stop the processes at the same time; kill those that still run after ``limit`` seconds."""
    deadline = time.monotonic() + limit
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait_or_kill(max(0.1, deadline - time.monotonic()))


def _sweep(settings: Settings, trail: Trail, stop: threading.Event) -> None:
    database = engine.create(settings.database_url)
    spool, producer = Spool(settings.node.data_dir / "spool"), Producer(settings)
    sweep = Sweep(settings, database, spool, producer, trail)
    broker_down = False
    while not stop.wait(settings.internal.sweep_interval):
        try:
            if broker_down:  # a failed enqueueing delays the next one, so look first whether the broker answers
                ping(settings.broker_url)
            sweep.once()
            broker_down = False
        except (AlnnodeError, SQLAlchemyError, OSError) as error:
            broker_down = isinstance(error, ServiceError)
            reason = str(error) if isinstance(error, AlnnodeError) else type(error).__name__
            log.warning("sweep_failed", error=reason)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Lock the data directory: a second supervisor would delete the socket of the first one's Redis."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ServiceError(
                f"another `alnnode serve` uses the data directory {folder}; stop it, or choose another [node] data_dir"
            ) from error
        yield
