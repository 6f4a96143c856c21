"""The TCP ports of a node: claimed at start, so that no two nodes share one, and checked by ``alnnode check``.

The listening processes of one node share a port by SO_REUSEPORT, and the kernel would let a second node of the same user join them without
an error: it would take half of the senders of the first. The supervisor therefore claims each port alone before its processes share it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from alnnode.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from alnnode.settings import Settings

PATIENCE = 3.0  # seconds for the processes of a supervisor that was killed to end, when the node is started again at once
FOLDER = "ports"  # in data_dir: one locked file for each port that a node of this data directory uses
FIRST_UNPRIVILEGED = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


class NodePort(NamedTuple):
    """An address on which the node accepts connections."""

    section: str  # of the settings
    host: str
    port: int
    shared: bool  # by several processes of the node


def ports_of(settings: Settings) -> list[NodePort]:
    """Return the ports of `alnnode serve`: that of the listener, and that of the HTTP service if it is enabled."""
    found = [listener_port(settings)]
    return [*found, web_port(settings)] if settings.web.enabled else found


def listener_port(settings: Settings) -> NodePort:
    """Return the port of the listening processes."""
    return NodePort("listener", settings.listener.host, settings.listener.port, shared=True)


def web_port(settings: Settings) -> NodePort:
    """Return the port of the HTTP service."""
    return NodePort("web", settings.web.host, settings.web.port, shared=False)


@contextmanager
def claimed(data_dir: Path, ports: Sequence[NodePort], patience: float = PATIENCE) -> Iterator[None]:
    """Hold the ports for the processes of this node until the end of the ``with`` block.

    Args:
        data_dir: takes a locked file for each port, by which `held_by_this_node` recognizes the node.
        ports: to claim.
        patience: seconds to wait for a port that is in use.

    Raises:
        ServiceError: another node or program uses a port, or the address cannot be used.
    """
    deadline = time.monotonic() + patience
    with ExitStack() as stack:
        for port in ports:
            claim = stack.enter_context(_bound(port, deadline))
            if port.shared:  # from now on the processes of this node may bind the port too, and a second claim fails
                claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            else:  # its one process binds the port itself
                claim.close()
            file = stack.enter_context(_lock_file(data_dir, port).open("w"))
            with suppress(BlockingIOError):  # a container with the same host name and data directory, and ports of its own
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def check(port: NodePort) -> None:
    """Check that the port is free.

    Raises:
        ServiceError: another node or program uses the port, or the address cannot be used.
    """
    _bound(port, deadline=0.0).close()


def held_by_this_node(data_dir: Path, port: NodePort) -> bool:
    """Return whether a running node of this data directory and this host holds the port."""
    try:
        with (data_dir / FOLDER / _name(port)).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _bound(port: NodePort, deadline: float) -> socket.socket:
    """Return a socket that is bound to the port alone; it does not listen. SO_REUSEADDR ignores connections that ended recently."""
    while True:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(port.host, port.port, type=socket.SOCK_STREAM)[0]
            bound = socket.socket(family, kind, protocol)
            try:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                bound.bind(address)
            except OSError:
                bound.close()
                raise
        except OSError as error:
            if error.errno == errno.EADDRINUSE and time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            raise ServiceError(_explain(port, error)) from error
        return bound


def _explain(port: NodePort, error: OSError) -> str:
    """Return what is wrong with an address of the node, and what to do."""
    where = f"port {port.port} of {port.host}"
    if error.errno == errno.EADDRINUSE:
        return (
            f"another node or program uses {where}: stop it (`ss -ltnp 'sport = :{port.port}'` names it), "
            f"or change [{port.section}] port"
        )
    if error.errno in {errno.EACCES, errno.EPERM}:
        return (
            f"this user may not listen on {where}: choose a port from {_first_unprivileged()}, "
            "or give the service the capability CAP_NET_BIND_SERVICE"
        )
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f'{port.host} is not an address of this machine: correct [{port.section}] host ("0.0.0.0" is every address)'
    return f"cannot listen on {where} ({error.strerror}): correct [{port.section}] host and port"


def _first_unprivileged() -> int:
    try:
        return int(FIRST_UNPRIVILEGED.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 1024


def _lock_file(data_dir: Path, port: NodePort) -> Path:
    """Return the path of the file of a port; hosts may share the folder."""
    folder = data_dir / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder / _name(port)


def _name(port: NodePort) -> str:
    return f"{port.section}-{port.port}@{os.uname().nodename}"
