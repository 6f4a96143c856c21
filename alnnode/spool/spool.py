"""The bytes: received objects and results, under names that are digests of UIDs and never UIDs themselves.

Layout below the root, folders 0700 and files 0600::

    incoming/<random>.tmp             being written; swept at start-up
    pending/<sha256 of SOP UID>.dcm   durable and acknowledged, not yet in the database: the journal that start-up replays
    objects/<aa>/<series>/<sop>.dcm   recorded; both parts are sha256 of the UID
    outbox/<aa>/<job id>/<sop>.dcm    results
    worklist/<aa>/<random>.json       data sets of workitems and conditions of subscriptions; each change is a new file
    …/series.jsonl, instances.jsonl   in a folder of objects or results: what searches ask of them (`note`); they go with the objects
    conflicts/<random>.dcm            for a person: acknowledged, but another series holds an object of this SOP Instance UID;
                                      or what a power cut left of an object, which was most likely never acknowledged

A file gets its name by ``link``, with all its bytes: a name in the spool is never a file that is still being written. ``link``
fails where a name exists, so that of two senders of one UID, in whatever processes, exactly one is first.

In ``pending`` the name comes before the one ``fsync`` that makes both durable (see `_names_follow_bytes`). After a power cut a name there
may thus stand for bytes that never arrived on the disk; nobody was told of them, and the digest in the file's head shows it.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# Syncing a file of these makes its new names durable too: ext4 and XFS commit metadata in the order of the calls, btrfs logs every
# name of a file with it. Elsewhere the folder needs a sync of its own, and an image takes two waits for the disk instead of one.
_ORDERED = frozenset({"ext4", "xfs", "btrfs"})
NOTES = ("series", "instances")
ORPHAN_AGE = 3600.0  # seconds: no write of one object takes longer, whatever the network does (it is here by then, in memory or in a file without a name)


def name_of(uid: str) -> str:
    """sha256 (hex) of a UID: a file name of one length and alphabet, whatever came over the network."""
    return hashlib.sha256(uid.encode("utf-8")).hexdigest()


def _names_follow_bytes(folder: Path) -> bool:
    """Whether the file system under a folder makes the names of a file durable when the file is synced."""
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


def _sync(folder: Path | str) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Spool:
    """Files below one root folder. Safe to share between threads and processes, also over a shared file system.

    Every method raises `OSError` when the disk does not do its part.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._incoming = self.root / "incoming"
        self._pending = self.root / "pending"
        for folder in (self._incoming, self._pending, self.root / "objects", self.root / "outbox"):
            if not folder.is_dir():
                self._make(folder)
        # Names of temporary files are this process's own: a random part once, then a counter.
        self._prefix, self._number = uuid4().hex, count()
        self._sync_names = not _names_follow_bytes(self.root)

    def path(self, relative: str) -> Path:
        """Return where a relative path of the database lies.

        Raises:
            ValueError: it leads out of the spool.
        """
        if relative.startswith("/") or ".." in relative.split("/"):
            raise ValueError("a path in the database leads out of the spool")
        return self.root / relative

    def free_mb(self) -> int:
        """Space that is left for files of this user, MiB."""
        info = os.statvfs(self.root)
        return info.f_bavail * info.f_frsize >> 20

    # -- received objects --------------------------------------------------------------------------------------------

    def put_pending(self, sop_instance_uid: str, parts: Sequence[bytes | memoryview]) -> Path | None:
        """Write an object durably into the journal; None when this UID is pending already, and as durable then."""
        final = self.pending_path(sop_instance_uid)
        first = True
        with self._temporary(parts) as (temporary, handle):
            try:
                os.link(temporary, final)
            except FileExistsError:
                first = False
            else:
                os.fsync(handle)
        if not first:
            # The other sender's bytes are there, but may be on their way to the disk.
            with suppress(FileNotFoundError), final.open("rb") as other:
                os.fsync(other.fileno())
        if self._sync_names:
            _sync(self._pending)
        return final if first else None

    @contextmanager
    def scratch(self, parts: Sequence[bytes | memoryview]) -> Iterator[Path]:
        """Write a file for as long as the block lasts."""
        with self._temporary(parts) as (temporary, _):
            yield Path(temporary)

    def pending_path(self, sop_instance_uid: str) -> Path:
        """Return where an object of this UID waits for its row."""
        return self._pending / f"{name_of(sop_instance_uid)}.dcm"

    def pending(self, older_than: float = 0.0) -> Iterator[Path]:
        """Files of the journal that have waited for ``older_than`` seconds."""
        for entry in self._entries(self._pending, older_than):
            if entry.suffix == ".dcm":
                yield entry

    @staticmethod
    def object_path(series_uid: str, sop_instance_uid: str) -> str:
        """Relative path that a recorded object has."""
        series = name_of(series_uid)
        return f"objects/{series[:2]}/{series}/{name_of(sop_instance_uid)}.dcm"

    def publish(self, moves: Iterable[tuple[Path, str]]) -> None:
        """Give pending files their names as recorded objects too, durably; the pending names stay until `settle`."""
        folders = set()
        for pending, relative in moves:
            final = f"{self.root}/{relative}"
            folder = os.path.dirname(final)  # noqa: PTH120 - pathlib takes longer for it than the disk for the link
            if folder not in folders and not os.path.isdir(folder):  # noqa: PTH112 - as above
                self._make(Path(folder))
            folders.add(folder)
            with suppress(FileExistsError, FileNotFoundError):  # published before; or recorded by another process meanwhile
                os.link(pending, final)
        for folder in folders:
            _sync(folder)

    def is_published(self, relative: str) -> bool:
        """Whether the object's file is there."""
        return os.path.exists(f"{self.root}/{relative}")  # noqa: PTH110 - asked for every image

    def settle(self, pending: Iterable[Path]) -> None:
        """Take files out of the journal whose rows are committed."""
        for path in pending:
            path.unlink(missing_ok=True)

    def set_aside(self, moves: Iterable[tuple[Path, str]]) -> None:
        """Keep acknowledged objects that the database cannot hold, under ``conflicts``, and take back their published names."""
        folder = self.root / "conflicts"
        if not folder.is_dir():
            self._make(folder)
        for pending, relative in moves:
            with suppress(FileExistsError, FileNotFoundError):
                os.link(pending, folder / f"{uuid4().hex}.dcm")
                published = self.path(relative)
                if published.samefile(pending):
                    published.unlink()
        _sync(folder)

    def set_damaged_aside(self, pending: Path, inode: int) -> bool:
        """Take a file out of the journal whose bytes are not those that were received; False when the name is no longer this file's."""
        folder = self.root / "conflicts"
        if not folder.is_dir():
            self._make(folder)
        try:
            if pending.stat().st_ino != inode:
                return False
            pending.rename(folder / f"{uuid4().hex}.dcm")
        except FileNotFoundError:
            return False
        _sync(folder)
        return True

    # -- results -----------------------------------------------------------------------------------------------------

    def put_result(self, job_id: str, sop_instance_uid: str, data: bytes) -> str:
        """Write a result durably into the outbox, over an earlier one of the same job; its relative path."""
        job = name_of(job_id)
        relative = f"outbox/{job[:2]}/{job}/{name_of(sop_instance_uid)}.dcm"
        final = self.path(relative)
        if not final.parent.is_dir():
            self._make(final.parent)
        with self._temporary([data]) as (temporary, handle):
            os.fsync(handle)
            Path(temporary).replace(final)
        _sync(final.parent)
        return relative

    def put_document(self, data: bytes) -> str:
        """Write a document of the worklist durably under a new name; its relative path."""
        name = uuid4().hex
        relative = f"worklist/{name[:2]}/{name}.json"
        final = self.path(relative)
        if not final.parent.is_dir():
            self._make(final.parent)
        with self._temporary([data]) as (temporary, handle):
            os.fsync(handle)
            Path(temporary).replace(final)
        _sync(final.parent)
        return relative

    # -- notes -------------------------------------------------------------------------------------------------------

    def notes(self, folder: str, kind: str) -> bytes:
        """Lines that were noted in a folder of objects; ``kind`` is one of `NOTES`."""
        try:
            return self.path(f"{folder}/{kind}.jsonl").read_bytes()
        except FileNotFoundError:
            return b""

    def note(self, relative: str, kind: str, lines: bytes) -> None:
        """Add lines to the notes in the folder of an object. They are patient data as much as the object is, and end with it."""
        path = self.path(relative)
        try:
            handle = os.open(path.parent / f"{kind}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            return
        try:
            os.write(handle, lines)
        finally:
            os.close(handle)
        if not path.exists():  # `delete` was here meanwhile: it takes the objects before the notes
            self._forget(path.parent)

    @staticmethod
    def _forget(folder: Path) -> None:
        for kind in NOTES:
            (folder / f"{kind}.jsonl").unlink(missing_ok=True)
        with suppress(OSError):  # not empty, or gone: both are fine
            folder.rmdir()

    # -- cleaning ----------------------------------------------------------------------------------------------------

    def delete(self, relatives: Iterable[str]) -> None:
        """Delete files, what was noted of them, and the folders that they leave empty; what is gone already is no error."""
        folders = set()
        for relative in relatives:
            path = self.path(relative)
            path.unlink(missing_ok=True)
            folders.add(path.parent)
        for folder in folders:
            self._forget(folder)

    def sweep_temporary(self, older_than: float = ORPHAN_AGE) -> int:
        """Delete what killed writers left in ``incoming``; how many files."""
        count = 0
        for path in self._entries(self._incoming, older_than):
            path.unlink(missing_ok=True)
            count += 1
        return count

    # -- inside ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _temporary(self, parts: Sequence[bytes | memoryview]) -> Iterator[tuple[str, int]]:
        """Write a file that goes away at the end unless it was given another name; its path and its open descriptor."""
        temporary = f"{self._incoming}/{self._prefix}-{next(self._number)}.tmp"
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
                os.unlink(temporary)  # noqa: PTH108 - done for every image

    def _make(self, folder: Path) -> None:
        missing = [parent for parent in (folder, *folder.parents) if not parent.is_dir()]
        for path in reversed(missing):
            with suppress(FileExistsError):
                path.mkdir(mode=0o700)
            _sync(path.parent)

    @staticmethod
    def _entries(folder: Path, older_than: float) -> Iterator[Path]:
        now = time.time()
        with os.scandir(folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # another process was faster
                    # A file from later than now is one from before the clock was set back.
                    if abs(now - entry.stat().st_mtime) >= older_than:
                        yield Path(entry.path)
