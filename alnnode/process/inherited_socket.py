"""A listening socket that a supervisor opens once and its processes share.

A process that ends leaves the socket open, so that no connection is refused while a successor starts, and none that waits in the socket's
queue is lost. ``close`` is enough to leave it; ``shutdown`` would end it for every process.
"""

from __future__ import annotations

import os
import socket

LISTENER_FD, WEB_FD = "ALNNODE_LISTENER_FD", "ALNNODE_WEB_FD"  # environment variables with the descriptor
BACKLOG = 128


def inherited(name: str) -> socket.socket | None:
    """Return the socket that the supervisor named in this environment variable; None without a supervisor."""
    descriptor = os.environ.pop(name, None)
    if descriptor is None:
        return None
    found = socket.socket(fileno=int(descriptor))
    found.setblocking(False)  # another process may accept the connection that woke this one
    return found


def listen_on(host: str, port: int, *, shared: bool) -> socket.socket:
    """Return a listening socket; with ``shared``, other processes of this user may bind the port too (SO_REUSEPORT).

    Raises:
        OSError: the address is not available.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening
