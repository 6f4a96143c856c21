"""Network namespaces that one run makes and removes: hosts on a bridge, none of which is in the namespace of the machine."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

SUBNET = "10.213.0"
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def missing() -> str:
    """Return what this machine lacks for a run; empty when it has everything."""
    if os.geteuid() != 0:
        return "root rights"
    for program in ("ip", "haproxy"):
        if shutil.which(program) is None:
            return program
    tried = subprocess.run(["ip", "netns", "add", f"aln{os.getpid()}-try"], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "delete", f"aln{os.getpid()}-try"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else "the right to make network namespaces"


class Network:
    """Hosts by name. A context manager that removes every namespace at its end."""

    def __init__(self, names: list[str]) -> None:
        self._prefix = f"aln{os.getpid()}-"
        self.names = names
        self.addresses = {name: f"{SUBNET}.{number}" for number, name in enumerate(names, 10)}
        self._ports = {name: f"v{number}" for number, name in enumerate(names, 10)}  # of the bridge

    def __enter__(self) -> Self:
        self._ip("netns", "add", self._space("bridge"))
        self._ip("-n", self._space("bridge"), "link", "add", "br0", "type", "bridge")
        self._ip("-n", self._space("bridge"), "link", "set", "br0", "up")
        for name in self.names:
            space, port = self._space(name), self._ports[name]
            self._ip("netns", "add", space)
            end = ["link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space]
            self._ip("-n", self._space("bridge"), *end)
            self._ip("-n", self._space("bridge"), "link", "set", port, "master", "br0", "up")
            self._ip("-n", space, "address", "add", f"{self.addresses[name]}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                self._ip("-n", space, "link", "set", device, "up")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for name in [*self.names, "bridge"]:
            subprocess.run(["ip", "netns", "delete", self._space(name)], capture_output=True, check=False)

    def cut(self, name: str) -> None:
        """Cut a host off: its cable to the bridge is unplugged."""
        self._ip("-n", self._space("bridge"), "link", "set", self._ports[name], "down")

    def join(self, name: str) -> None:
        """Bring a host back."""
        self._ip("-n", self._space("bridge"), "link", "set", self._ports[name], "up")

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """Let this thread, and the processes, threads and sockets that it makes, be on a host."""
        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(Path("/run/netns") / self._space(name), os.O_RDONLY)
        try:
            _enter(there)
            try:
                yield
            finally:
                _enter(here)
        finally:
            os.close(here)
            os.close(there)

    def _space(self, name: str) -> str:
        return f"{self._prefix}{name}"

    @staticmethod
    def _ip(*words: str) -> None:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


def _enter(space: int) -> None:
    if _libc.setns(space, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
