"""A network namespace beside that of the node, for a database on another host. Only root can make one."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_NEWNET = 0x40000000  # CLONE_NEWNET (linux/sched.h)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Namespace:
    """A network namespace with one link to the node: both ends have an address of 198.18.0.0/15 (RFC 2544).

    Attributes:
        address: of the end in the namespace.
    """

    def __init__(self) -> None:
        self._name, net = f"alnnode-{os.getpid()}", f"198.18.{os.getpid() % 250}"
        self._link, far = f"aln{os.getpid()}", f"alp{os.getpid()}"
        self.near, self.address = f"{net}.1", f"{net}.2"
        _ip("netns", "add", self._name)
        try:
            _ip("link", "add", self._link, "type", "veth", "peer", "name", far, "netns", self._name)
            _ip("addr", "add", f"{self.near}/30", "dev", self._link)
            _ip("link", "set", self._link, "up")
            for words in (
                ("addr", "add", f"{self.address}/30", "dev", far),
                ("link", "set", far, "up"),
                ("link", "set", "lo", "up"),
            ):
                _ip("-n", self._name, *words)
        except BaseException:
            self.close()
            raise

    def run(self, work: Callable[[], None]) -> None:
        """Run ``work`` in a thread in the namespace; the processes that it starts stay there."""
        errors: list[BaseException] = []

        def inside() -> None:
            try:
                self._enter()
                work()
            except BaseException as error:  # noqa: BLE001 - raised again below
                errors.append(error)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]

    def _enter(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        with Path("/run/netns", self._name).open("rb") as file:
            if libc.setns(file.fileno(), _NEWNET):
                raise OSError(ctypes.get_errno(), "cannot enter the network namespace")

    def cut(self, seconds: float) -> None:
        """Take the link down for some seconds: packets are lost, and no connection is closed."""
        _ip("link", "set", self._link, "down")
        time.sleep(seconds)
        _ip("link", "set", self._link, "up")

    def close(self) -> None:
        """Delete the namespace, and the link with it."""
        subprocess.run(["ip", "link", "del", self._link], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "del", self._name], check=False, capture_output=True)
