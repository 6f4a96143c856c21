"""The listening sockets of a node, which its supervisor holds for all generations of its processes."""

from __future__ import annotations

import errno
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from alnnode.errors import ServiceError
from alnnode.process.inherited_socket import LISTENER_FD, WEB_FD, listen_on

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from alnnode.settings import Settings

PATIENCE = 3.0  # seconds

Sockets = dict[str, "socket.socket"]  # by the environment variable that names the descriptor


def _open(host: str, port: int, *, shared: bool) -> socket.socket:
    """Return a listening socket; wait `PATIENCE` seconds for the processes of a supervisor that was killed to end."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return listen_on(host, port, shared=shared)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@contextmanager
def listening_sockets(settings: Settings, *, receives: bool = True) -> Iterator[Sockets]:
    """Open the sockets that listeners and HTTP service share with their successors; without ``receives``, only that of the HTTP service.

    Raises:
        ServiceError: an address is not available.
    """
    wanted = {LISTENER_FD: ("listener", settings.listener.host, settings.listener.port)} if receives else {}
    if settings.web.enabled or not receives:
        wanted[WEB_FD] = ("web", settings.web.host, settings.web.port)
    with ExitStack() as stack:
        sockets = {}
        for name, (section, host, port) in wanted.items():
            try:
                sockets[name] = stack.enter_context(_open(host, port, shared=name == LISTENER_FD))
            except OSError as error:
                raise ServiceError(
                    f"cannot listen on {host}, port {port}: {error.strerror}; change [{section}] port"
                ) from error
        yield sockets
