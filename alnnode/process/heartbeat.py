"""Signs of life: every worker touches a file of its own below the data directory, which all hosts of a node share.

A file rather than a message: it is there when the broker is away, which is when somebody asks.
"""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

INTERVAL = 5.0  # seconds between two beats
LATE = 30.0  # seconds after which a worker counts as gone
FORGOTTEN = 86400.0


def beat(data_dir: Path, part: str) -> None:
    """Say that this part of the node on this host works.

    Raises:
        OSError: the data directory cannot be written.
    """
    folder = data_dir / "heartbeats"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / f"{part}@{socket.gethostname()}").touch()


def ages(data_dir: Path) -> dict[str, float]:
    """Seconds since the last beat, by ``part@host``; what has been silent for a day is forgotten."""
    found = {}
    with suppress(FileNotFoundError):
        for path in sorted((data_dir / "heartbeats").iterdir()):
            with suppress(FileNotFoundError):
                # A beat from later than now was given before the clock was set back: who lives gives another within seconds.
                age = abs(time.time() - path.stat().st_mtime)
                if age < FORGOTTEN:
                    found[path.name] = age
    return found


def note(data_dir: Path, part: str, figures: dict[str, float]) -> None:
    """Leave figures of this part on this host for `noted`; nothing when there are none.

    Raises:
        OSError: the data directory cannot be written.
    """
    if not figures:
        return
    folder = data_dir / "figures"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{part}@{socket.gethostname()}"
    path.with_suffix(".tmp").write_text(json.dumps(figures), encoding="ascii")
    path.with_suffix(".tmp").replace(path)


def noted(data_dir: Path) -> dict[str, dict[str, float]]:
    """Return the figures by ``part@host``."""
    found = {}
    for path in sorted((data_dir / "figures").glob("*@*")):
        with suppress(FileNotFoundError, ValueError):  # being replaced
            if path.suffix != ".tmp":
                found[path.name] = {
                    str(name): float(value) for name, value in json.loads(path.read_text(encoding="ascii")).items()
                }
    return found
