"""Heartbeats: each worker touches a file of its own in the data directory, which all hosts of a node share. A supervisor writes which workers start.

Files, not messages of the broker: an administrator looks at heartbeats when the broker does not answer. The file of a worker that was told to
stop moves to another folder: it counts only if no other worker of its queue runs, so that nobody is told of a worker that is not needed.
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

INTERVAL = 5.0  # seconds between two heartbeats
LATE = 30.0  # seconds after which a worker counts as stopped
FORGOTTEN = 86400.0  # seconds after which a worker is no longer listed
FOLDER, ENDED = "heartbeats", "heartbeats-ended"
STARTING = 60.0  # seconds after which a worker without a heartbeat no longer counts as starting


def beat(data_dir: Path, worker: str) -> int:
    """Write the heartbeat of a worker on this host; return its time (ns since the epoch, by the clock of the file system).

    Raises:
        OSError: the data directory cannot be written.
    """
    folder = data_dir / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = folder / f"{worker}@{socket.gethostname()}"
    file.touch()
    return file.stat().st_mtime_ns


def end(data_dir: Path, worker: str, beaten: int) -> None:
    """Move the heartbeat of a worker that was told to stop, unless a successor on this host has written it since.

    Args:
        data_dir: of the node.
        worker: as for `beat`.
        beaten: what the last `beat` returned.

    Raises:
        OSError: the data directory cannot be written.
    """
    name = f"{worker}@{socket.gethostname()}"
    file, folder = data_dir / FOLDER / name, data_dir / ENDED
    with suppress(FileNotFoundError):
        if file.stat().st_mtime_ns == beaten:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            file.replace(folder / name)
            (data_dir / "figures" / name).unlink(missing_ok=True)


def ages(data_dir: Path) -> dict[str, float]:
    """Return the seconds since the last heartbeat by ``worker@host``; workers without one for a day are left out.

    So are workers that were told to stop, while another worker of their queue runs.
    """
    found, told_to_stop = (
        {path.name: age for path, age in _ages(data_dir / folder).items() if age < FORGOTTEN} for folder in (FOLDER, ENDED)
    )
    running = {name.partition("@")[0] for name, age in found.items() if age < LATE}
    return {**{name: age for name, age in told_to_stop.items() if name.partition("@")[0] not in running}, **found}


def write_starting(data_dir: Path, processes: Collection[str]) -> None:
    """Write which processes of this supervisor start, for `starting`; none ends the entry. A disk that fails is ignored: the pages report it."""
    folder = data_dir / "starting"
    path = folder / f"{os.getpid()}@{socket.gethostname()}"
    with suppress(OSError):
        for old, age in _ages(folder).items():
            if age > STARTING or old == path:
                old.unlink(missing_ok=True)
        if processes:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.write_text("\n".join(processes), encoding="ascii")


def starting(data_dir: Path) -> set[str]:
    """Return the names of the processes that started less than `STARTING` seconds ago and are not ready yet.

    Raises:
        OSError: the data directory cannot be read.
    """
    found = set[str]()
    for path, age in _ages(data_dir / "starting").items():
        with suppress(FileNotFoundError):
            if age < STARTING:
                found.update(path.read_text(encoding="ascii").split())
    return found


def _ages(folder: Path) -> dict[Path, float]:
    """Return the age of each file of a folder, in seconds; nothing if there is no such folder."""
    found = {}
    with suppress(FileNotFoundError):
        files = sorted(folder.iterdir())
        now = _file_time(folder) if files else 0.0
        for path in files:
            with suppress(FileNotFoundError):
                # A file in the future was written before the clock was set back. A running worker writes the next heartbeat within seconds.
                found[path] = abs(now - path.stat().st_mtime)
    return found


def _file_time(folder: Path) -> float:
    """Return the present time by the clock that gives the files their times: on a shared file system, that of the server."""
    try:
        with TemporaryFile(dir=folder) as probe:
            return os.fstat(probe.fileno()).st_mtime
    except OSError:  # the disk is full or read-only: the pages that show the ages must say so
        return time.time()


def write_values(data_dir: Path, worker: str, values: dict[str, float]) -> None:
    """Write the latest values of a worker on this host, for `read_values`. Nothing is written when there are none.

    Raises:
        OSError: the data directory cannot be written.
    """
    if not values:
        return
    folder = data_dir / "figures"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{worker}@{socket.gethostname()}"
    path.with_suffix(".tmp").write_text(json.dumps(values), encoding="ascii")
    path.with_suffix(".tmp").replace(path)


def read_values(data_dir: Path) -> dict[str, dict[str, float]]:
    """Return the latest values by ``worker@host``."""
    found = {}
    for path in sorted((data_dir / "figures").glob("*@*")):
        with suppress(FileNotFoundError, ValueError):  # another worker replaces the file at this moment
            if path.suffix != ".tmp":
                found[path.name] = {
                    str(name): float(value) for name, value in json.loads(path.read_text(encoding="ascii")).items()
                }
    return found
