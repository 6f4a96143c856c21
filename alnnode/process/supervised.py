"""One supervised process: started, found ready, restarted with a growing delay when it dies, stopped with all it started."""

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
    from collections.abc import Callable, Mapping, Sequence

FIRST_DELAY, LAST_DELAY = 0.5, 30.0  # seconds before a restart
HEALTHY = 30.0  # seconds after which an earlier death is forgotten
READY_FD = "ALNNODE_READY_FD"

log = structlog.get_logger()


class Part:
    """A child process with a name.

    Args:
        name: for the log.
        command: the command line; or what returns it anew for every start, already bound to this process by `alnnode.process.child`.
        environment: of the child.
        ready: asks whether the part serves; None: the part says so itself with `say_ready`.
        needed: whether the node must not start without it. One that is not is tried again, as when it dies later.
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
        self._ready_asked = ready
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: int | None = None
        self._told_ready = False
        self._deaths = 0
        self._started_at = 0.0
        self._restart_at: float | None = None

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """Start the process."""
        command = self._command() if callable(self._command) else child.command(signal.SIGKILL, *self._command)
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        self._close_pipe()
        self._pipe, self._told_ready, self._restart_at, self._started_at = reading, False, None, time.monotonic()
        try:
            # A session of its own: Ctrl-C in a terminal reaches the supervisor only, which then stops its parts in order.
            self._process = subprocess.Popen(
                command, env={**self._environment, READY_FD: str(writing)}, pass_fds=[writing], start_new_session=True
            )
        except OSError as error:
            raise ServiceError(f"{self.name} cannot be started: {error.strerror}") from error
        finally:
            os.close(writing)

    def is_ready(self) -> bool:
        """Whether the running process serves."""
        if self.pid is None:
            return False
        if not self._told_ready:
            self._told_ready = self._ready_asked() if self._ready_asked is not None else self._was_told()
        return self._told_ready

    def look_after(self) -> None:
        """Restart the process when it has died, later each time that it dies again soon."""
        if self._process is None or self.pid is not None:
            return
        if self._restart_at is None:
            if time.monotonic() - self._started_at > HEALTHY:
                self._deaths = 0
            delay = self._wait_longer()
            log.warning("part_died", part=self.name, code=self._process.returncode, restart_in=delay)
        elif time.monotonic() >= self._restart_at:
            try:
                self.start()
            except ServiceError as error:
                log.warning("part_not_restarted", part=self.name, error=str(error), restart_in=self._wait_longer())

    def _wait_longer(self) -> float:
        delay = min(LAST_DELAY, FIRST_DELAY * 2.0 ** min(self._deaths, 10))
        self._deaths += 1
        self._restart_at = time.monotonic() + delay
        return delay

    def ended_with(self) -> int | None:
        """Exit code of the process, None while it runs."""
        return None if self._process is None else self._process.poll()

    def terminate(self) -> None:
        """Ask the process to stop."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def wait(self, seconds: float) -> None:
        """Wait for the end; after ``seconds`` kill the process with all that it started."""
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

    def _was_told(self) -> bool:
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


def say_ready() -> None:
    """Tell the supervisor, when there is one, that this process serves now."""
    descriptor = os.environ.pop(READY_FD, None)
    if descriptor is not None:
        with os.fdopen(int(descriptor), "wb") as pipe:
            pipe.write(b"1")
