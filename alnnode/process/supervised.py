"""A supervised process: it is started, becomes ready, is restarted with a growing delay when it dies, and is stopped with its children."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from alnnode.errors import ServiceError
from alnnode.process import child

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence

FIRST_DELAY, LAST_DELAY = 0.5, 30.0  # seconds before a restart
HEALTHY = 30.0  # seconds of running after which earlier deaths no longer lengthen the delay
DRAIN = signal.SIGUSR1  # accept no more connections, and end when the present ones have ended
READY_FD = "ALNNODE_READY_FD"  # environment variable with the descriptor on which a process reports that it is ready

log = structlog.get_logger()


class SupervisedProcess:
    """A child process with a name.

    Args:
        name: appears in the log.
        command: the command line; or a function that returns it for each start, already bound to this process by `alnnode.process.child`.
        environment: environment of the child.
        ready: returns whether the process serves; None: the process reports it itself with `report_ready`.
        needed: whether the node must not start without it. A process that is not needed is restarted as if it had died later.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str] | Callable[[], Sequence[str]],
        environment: Mapping[str, str],
        *,
        ready: Callable[[], bool] | None = None,
        needed: bool = True,
    ) -> None:
        self.name, self.needed = name, needed
        self._command, self._environment = command, dict(environment)
        self._ready = ready
        self._sockets: dict[str, socket.socket] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: int | None = None
        self._is_ready = False
        self._deaths = 0
        self._started_at = 0.0
        self._restart_at: float | None = None

    @property
    def pid(self) -> int | None:
        """Return the process id while the process runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """Start the process.

        Raises:
            ServiceError: the program cannot be started.
        """
        command = self._command() if callable(self._command) else child.command(signal.SIGKILL, *self._command)
        shared = {name: one.fileno() for name, one in self._sockets.items()}
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        self._close_pipe()
        self._pipe, self._is_ready, self._restart_at, self._started_at = reading, False, None, time.monotonic()
        try:
            # A session of its own: Ctrl-C in a terminal reaches only the supervisor, which then stops its processes in order.
            self._process = subprocess.Popen(
                command,
                env={**self._environment, READY_FD: str(writing), **{name: str(number) for name, number in shared.items()}},
                pass_fds=[writing, *shared.values()],
                start_new_session=True,
            )
        except OSError as error:
            raise ServiceError(f"cannot start the process {self.name}: {error.strerror}; check the installation") from error
        finally:
            os.close(writing)

    def start_or_retry(self) -> None:
        """Start the process; if the program cannot be started now, try again later as after a death."""
        try:
            self.start()
        except ServiceError as error:
            log.warning("part_not_restarted", part=self.name, error=str(error), restart_in=self._schedule_restart())

    @property
    def beside(self) -> bool:
        """Whether a successor may start while this process still runs."""
        return bool(self._sockets)

    def retire(self) -> None:
        """Ask the process to end when its present work has ended: a listening process to accept no more connections, a worker to stop."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(DRAIN if self.beside else signal.SIGTERM)

    def is_ready(self) -> bool:
        """Return whether the running process serves."""
        if self.pid is None:
            return False
        if not self._is_ready:
            self._is_ready = self._ready() if self._ready is not None else self._has_reported()
        return self._is_ready

    def restart_if_died(self) -> None:
        """Restart the process if it has died or could not be started; after a longer delay each time that it dies soon after a start."""
        if self.pid is not None or (self._process is None and self._restart_at is None):
            return
        if self._restart_at is None and self._process is not None:
            if time.monotonic() - self._started_at > HEALTHY:
                self._deaths = 0
            delay = self._schedule_restart()
            log.warning("part_died", part=self.name, code=self._process.returncode, restart_in=delay)
        elif self._restart_at is not None and time.monotonic() >= self._restart_at:
            self.start_or_retry()

    def _schedule_restart(self) -> float:
        delay = min(LAST_DELAY, FIRST_DELAY * 2.0 ** min(self._deaths, 10))
        self._deaths += 1
        self._restart_at = time.monotonic() + delay
        return delay

    def exit_code(self) -> int | None:
        """Return the exit code of the process; None while it runs, and before it is started."""
        return None if self._process is None else self._process.poll()

    def terminate(self) -> None:
        """Ask the process to stop."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def wait_or_kill(self, seconds: float) -> None:
        """Wait ``seconds`` for the process to end; then kill it with its children."""
        self._close_pipe()
        if self._process is None:
            return
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            log.warning("part_killed", part=self.name)
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _has_reported(self) -> bool:
        if self._pipe is None:
            return False
        try:
            return os.read(self._pipe, 1) != b""
        except BlockingIOError:
            return False

    def _close_pipe(self) -> None:
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None


class ListeningProcess(SupervisedProcess):
    """A process that inherits listening sockets, and can therefore run beside its successor.

    Args:
        name: as for a `SupervisedProcess`; likewise ``command`` and ``environment``.
        sockets: by the environment variable that names the descriptor.
    """

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], sockets: Mapping[str, socket.socket]
    ) -> None:
        super().__init__(name, command, environment)
        self._sockets.update(sockets)


def report_ready() -> None:
    """Report to the supervisor, if there is one, that this process serves now."""
    descriptor = os.environ.pop(READY_FD, None)
    if descriptor is not None:
        with os.fdopen(int(descriptor), "wb") as pipe:
            pipe.write(b"1")
