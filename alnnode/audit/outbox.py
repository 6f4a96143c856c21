"""Audit messages that wait for the audit repository: one file each, written by every process of the node and sent by one.

Messages wait in files, so that neither an outage of the repository nor a stop of the node loses one (ITI TF-2 section 3.20: a secure
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

COUNTED = 2.0  # seconds for which a count of the waiting files stays valid
FOLDER = "audit"
_numbers = itertools.count()


class AuditOutbox:
    """The folder of messages that are not sent yet.

    Args:
        data_dir: of the node.
        limit: number of messages that may wait; further messages are lost.
    """

    def __init__(self, data_dir: Path, limit: int) -> None:
        self.folder = data_dir / FOLDER
        self._limit = limit
        self._counted_at, self._count = float("-inf"), 0
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, message: bytes) -> bool:
        """Write a message to a file; return whether there was room for it.

        Raises:
            OSError: the disk does not accept the file.
        """
        if time.monotonic() - self._counted_at > COUNTED:
            self._count, self._counted_at = self.count(), time.monotonic()
        if self._count >= self._limit:
            return False
        name = f"{time.time_ns():020d}-{os.getpid()}-{next(_numbers)}"
        draft = self.folder / f"{name}.tmp"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            if os.geteuid() == 0:  # root ran a command; the node must be able to read the file as its own user
                owner = self.folder.stat()
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
            file.write(message)
        draft.rename(draft.with_suffix(".xml"))
        self._count += 1
        return True

    def oldest(self, most: int) -> list[Path]:
        """Return the files of the ``most`` oldest messages, oldest first."""
        return sorted(self.folder.glob("*.xml"))[:most]

    def count(self) -> int:
        """Return the number of messages that wait."""
        with suppress(FileNotFoundError):
            return sum(entry.name.endswith(".xml") for entry in os.scandir(self.folder))
        return 0

    def lose(self, count: int = 1) -> None:
        """Record that messages were lost: one byte for each, which several processes can append at the same time."""
        descriptor = os.open(self.folder / "lost", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write(b"." * count)

    def lost(self) -> int:
        """Return the number of messages that were lost since the folder exists."""
        with suppress(FileNotFoundError):
            return (self.folder / "lost").stat().st_size
        return 0
