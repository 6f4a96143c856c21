"""Child processes that answer requests, for native code that a request can make crash, hang or use all memory.

A request, and an answer, is its length and its bytes. A child ends when its pipe closes: the kernel closes it however the parent ends.
(`alnnode.process.child` ends a child with the thread that started it; the threads that send requests are short-lived.)
"""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from alnnode.errors import ServiceError
from alnnode.process.child import protect_memory_and_files

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

IDLE = 300.0  # seconds without a request after which a child ends
_LENGTH = 8  # bytes
_READY = b"+"


class LostProcessError(Exception):
    """The request made the child process crash, or it took too long.

    Attributes:
        signal: number of the signal that ended the process; 0 if none did.
    """

    def __init__(self, code: int) -> None:
        super().__init__(f"the process ended with {code}")
        self.signal = max(0, -code)


class RequestProcesses:
    """Up to ``most`` children that run a module whose ``main`` calls `answer_requests`. Threads may share an instance."""

    def __init__(self, module: str, most: int) -> None:
        self._module = module
        self._places = threading.BoundedSemaphore(most)
        self._idle: deque[_Child] = deque()

    def ask(self, parts: Sequence[bytes]) -> bytearray:
        """Return the answer to a request, which is given in parts.

        Raises:
            LostProcessError: the request ended the process.
            ServiceError: the process cannot start, or something else killed it: a retry may succeed.
        """
        with self._places:
            while True:
                child = self._idle.pop() if self._idle else None
                used = child is not None
                child = child or _Child(self._module)
                answer = child.ask(parts)
                if answer is not None:
                    self._idle.append(child)
                    return answer
                code = child.end()
                if used and code == 0:
                    continue  # it had been idle for too long
                if code == -signal.SIGKILL or not child.was_ready:
                    raise ServiceError(f"the process {self._module} cannot run (exit code {code}): check the free memory")
                raise LostProcessError(code)

    def close(self) -> None:
        """End the idle processes."""
        while self._idle:
            self._idle.pop().end()


class _Child:
    def __init__(self, module: str) -> None:
        self.was_ready = False
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # a library may quote its input there
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        except OSError as error:
            raise ServiceError(f"cannot start the process {module}: {error.strerror}; check the free memory") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests: IO[bytes] = self._process.stdin
        self._answers: IO[bytes] = self._process.stdout

    def ask(self, parts: Sequence[bytes]) -> bytearray | None:
        """Return the answer; None if the process ended."""
        with suppress(BrokenPipeError):
            if not self.was_ready and self._answers.read(1) != _READY:
                return None
            self.was_ready = True
            self._requests.write(sum(map(len, parts)).to_bytes(_LENGTH, "little"))
            for part in parts:
                self._requests.write(part)
            self._requests.flush()
            head = self._answers.read(_LENGTH)
            if len(head) < _LENGTH:
                return None
            answer = bytearray(int.from_bytes(head, "little"))
            if self._answers.readinto(answer) == len(answer):  # type: ignore[attr-defined]
                return answer
        return None

    def end(self) -> int:
        """Close the pipes, and return the exit code."""
        with suppress(BrokenPipeError):
            self._requests.close()
        self._answers.close()
        return self._process.wait()


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Limits of a child.

    Attributes:
        seconds: of one request; the kernel then ends the process.
        memory: bytes of address space, in addition to what the process has before its first request.
    """

    seconds: int
    memory: int


def answer_requests(answer: Callable[[bytes], Sequence[bytes]], limits: RequestLimits) -> None:
    """Answer the requests of the parent until it closes the pipe, or sends none for `IDLE` seconds. Runs in the child."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):  # what a library prints must not become part of an answer
        os.dup2(null, descriptor)
    protect_memory_and_files()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM, signal.SIGTERM})
    _limit_memory(limits.memory)
    answers.write(_READY)
    answers.flush()
    while select.select([requests], [], [], IDLE)[0]:
        length = int.from_bytes(head, "little") if len(head := requests.read(_LENGTH)) == _LENGTH else -1
        request = requests.read(length) if length >= 0 else b""
        if len(request) != length:
            return
        signal.alarm(limits.seconds)
        parts = answer(request)
        signal.alarm(0)
        answers.write(sum(map(len, parts)).to_bytes(_LENGTH, "little"))
        for part in parts:
            answers.write(part)
        answers.flush()


def _limit_memory(more: int) -> None:
    with suppress(OSError, ValueError):
        held = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = held + more if hard == resource.RLIM_INFINITY else min(held + more, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
