"""Messages that wait: one file each below the data directory, written by every process of the node, taken by one.

Files rather than memory, so that a repository that is away, or a node that is stopped, costs no message (ITI TF-2 section 3.20: a secure
node stores and forwards).
"""

from __future__ import annotations

import itertools
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

COUNTED = 2.0  # seconds that a count of waiting files is good for
FOLDER = "audit"
_numbers = itertools.count()


class Waiting:
    """The folder of messages that were not sent yet.

    Args:
        data_dir: of the node.
        limit: how many may wait; more are lost.
    """

    def __init__(self, data_dir: Path, limit: int) -> None:
        self.folder = data_dir / FOLDER
        self._limit = limit
        self._counted_at, self._count = float("-inf"), 0
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, message: bytes) -> bool:
        """Keep a message; whether there was room.

        Raises:
            OSError: the disk does not take it.
        """
        if time.monotonic() - self._counted_at > COUNTED:
            self._count, self._counted_at = self.count(), time.monotonic()
        if self._count >= self._limit:
            return False
        name = f"{time.time_ns():020d}-{os.getpid()}-{next(_numbers)}"
        draft = self.folder / f"{name}.tmp"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            if os.geteuid() == 0:  # a command that root ran; the node reads it as its own user
                owner = self.folder.stat()
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
            file.write(message)
        draft.rename(draft.with_suffix(".xml"))
        self._count += 1
        return True

    def oldest(self, most: int) -> list[Path]:
        """Return the files of the first messages."""
        return sorted(self.folder.glob("*.xml"))[:most]

    def count(self) -> int:
        """How many messages wait."""
        with suppress(FileNotFoundError):
            return sum(entry.name.endswith(".xml") for entry in os.scandir(self.folder))
        return 0

    def lose(self, count: int = 1) -> None:
        """Note that messages were lost: one byte each, which all processes can append at once."""
        descriptor = os.open(self.folder / "lost", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write(b"." * count)

    def lost(self) -> int:
        """How many messages were ever lost."""
        with suppress(FileNotFoundError):
            return (self.folder / "lost").stat().st_size
        return 0
