"""Durable files: written as temporary files, then linked or renamed, with the ``fsync`` calls that the file system needs."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# On these file systems, syncing a file also makes its new names durable: ext4 and XFS commit metadata in the order of the calls, and btrfs
# logs every name of a file with the file. On others the folder needs a sync of its own, and an image waits twice for the disk.
_ORDERED = frozenset({"ext4", "xfs", "btrfs"})


def names_follow_bytes(folder: Path) -> bool:
    """Return whether the file system of a folder makes the names of a file durable when the file is synced."""
    found = "", ""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    for line in mounts:
        fields, _, rest = line.partition(" - ")
        point = fields.split(" ")[4]
        if folder.is_relative_to(point) and len(point) >= len(found[0]):
            found = point, rest.split(" ", 1)[0]
    return found[1] in _ORDERED


def sync_folder(folder: Path | str) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def lock(handle: int) -> None:
    """Lock an open file until it is closed, also at the end of its process; without effect where the file system has no locks."""
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_settled(path: Path, handle: int) -> bool:
    """Return whether nobody has locked this open file, and the name still belongs to it.

    A sync by another process could succeed although that of the writer fails. If that fails, the writer removes the name, and then the lock.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks on this file system
        pass
    return path.stat().st_ino == os.fstat(handle).st_ino


def remove_same(path: Path, handle: int) -> None:
    """Remove a name if it belongs to this open file, and not to another one that replaced it."""
    with suppress(FileNotFoundError):
        if path.stat().st_ino == os.fstat(handle).st_ino:
            path.unlink()


def make_folder(folder: Path) -> None:
    """Create a folder and its parents durably, with mode 0700."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.is_dir()]
    for path in reversed(missing):
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        sync_folder(path.parent)


def entries(folder: Path, older_than: float, now: float) -> Iterator[Path]:
    """Yield the files of a folder that were changed at least ``older_than`` seconds before ``now``, by the same clock."""
    with os.scandir(folder) as found:
        for entry in found:
            with suppress(FileNotFoundError):  # another process deleted it meanwhile
                # A change time in the future is from before the clock was set back.
                if abs(now - entry.stat().st_mtime) >= older_than:
                    yield Path(entry.path)


class TemporaryFiles:
    """Temporary files in one folder, with names that no other process uses."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._prefix, self._number = uuid4().hex, count()  # a random part once, then a counter

    @contextmanager
    def written(self, parts: Sequence[bytes | memoryview]) -> Iterator[tuple[str, int]]:
        """Write a file and yield its path and its open descriptor; delete the path at the end unless it was renamed."""
        temporary = f"{self.folder}/{self._prefix}-{next(self._number)}.tmp"
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            rest = [memoryview(part) for part in parts]
            while rest:
                written = os.writev(handle, rest)
                while rest and written >= len(rest[0]):
                    written -= len(rest.pop(0))
                if rest:
                    rest[0] = rest[0][written:]
            yield temporary, handle
        finally:
            os.close(handle)
            with suppress(FileNotFoundError):
                os.unlink(temporary)  # noqa: PTH108 - executed for every image

    def replace(self, final: Path, data: bytes | memoryview) -> None:
        """Write a file durably under its final name, over an earlier file of this name; create its folder if it is missing."""
        if not final.parent.is_dir():
            make_folder(final.parent)
        with self.written([data]) as (temporary, handle):
            os.fsync(handle)
            Path(temporary).replace(final)
        sync_folder(final.parent)
