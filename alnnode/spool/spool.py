"""The spool: received objects and results, in files whose names are digests of UIDs and never UIDs themselves.

Layout below the root, folders 0700 and files 0600::

    incoming/<random>.tmp             temporary files that are being written; deleted at start-up
    pending/<sha256 of SOP UID>.dcm   the journal: durable and acknowledged, not yet in the database; replayed at start-up
    objects/<aa>/<series>/<sop>.dcm   recorded objects; both parts are the sha256 of the UID
    outbox/<aa>/<job id>/<sop>.dcm    results
    worklist/<aa>/<random>.json       data sets of workitems and conditions of subscriptions; each change is a new file
    …/series.jsonl, instances.jsonl   in a folder of objects or results: the attributes that searches use (`note`); deleted with the objects
    conflicts/<random>.dcm            for an administrator: objects that were acknowledged although another series has an object of
                                      this SOP Instance UID; and objects damaged by a power cut, most likely never acknowledged

A file gets its name by ``link`` when all its bytes are written: a name in the spool is never that of an incomplete file. ``link`` fails if
the name exists, so that of two senders of one UID, in whatever processes, exactly one is the first.

In ``pending`` the name is given before the one ``fsync`` that makes both durable (`alnnode.spool.durable_files.names_follow_bytes`). After a
power cut a name may therefore belong to bytes that never reached the disk. Such an object was never acknowledged, and the digest in the
head of the file detects it. The writer holds a lock (flock) on the file until that ``fsync`` has ended: another sender of the same UID waits.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from alnnode.spool.durable_files import (
    TemporaryFiles,
    entries,
    is_settled,
    lock,
    make_folder,
    names_follow_bytes,
    remove_same,
    sync_folder,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

NOTES = ("series", "instances")
# Seconds. No write of one object takes longer, whatever the network does: the object is in memory or in an unnamed file by then.
ORPHAN_AGE = 3600.0
SYNC_LIMIT, SYNC_POLL = 20.0, 0.01  # seconds: to wait for another sender of an object (peers wait 30 s), and between two looks


def name_of(uid: str) -> str:
    """Return the sha256 (hex) of a UID: a file name of fixed length and alphabet, whatever was received."""
    return hashlib.sha256(uid.encode("utf-8")).hexdigest()


class Spool:
    """Files below one root folder. Safe to share between threads and processes, also over a shared file system.

    Every method raises `OSError` when the disk fails.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._pending, self._conflicts = self.root / "pending", self.root / "conflicts"
        self._temporary = TemporaryFiles(self.root / "incoming")
        for folder in (self._temporary.folder, self._pending, self.root / "objects", self.root / "outbox"):
            if not folder.is_dir():
                make_folder(folder)
        self._sync_names = not names_follow_bytes(self.root)

    def path(self, relative: str) -> Path:
        """Return the path of a relative path in the database.

        Raises:
            ValueError: it is outside the spool.
        """
        if relative.startswith("/") or ".." in relative.split("/"):
            raise ValueError("a path in the database is outside the spool")
        return self.root / relative

    def free_mb(self) -> int:
        """Return the space that is left for files of this user, in MiB."""
        info = os.statvfs(self.root)
        return info.f_bavail * info.f_frsize >> 20

    def time(self) -> float:
        """Return the present time (seconds since the epoch) by the clock that gives the files their times.

        On a shared file system that is the clock of the server, and the hosts may have other clocks.
        """
        return self._file_time()

    def _file_time(self) -> float:
        with self._temporary.written([]) as (_, handle):
            return os.fstat(handle).st_mtime

    # -- received objects --------------------------------------------------------------------------------------------

    def put_pending(self, sop_instance_uid: str, parts: Sequence[bytes | memoryview]) -> Path | None:
        """Write an object durably into the journal; None when an object of this UID is pending already, and durable too.

        Raises:
            TimeoutError: another process has not finished an object of this UID.
        """
        final, until = self.pending_path(sop_instance_uid), time.monotonic() + SYNC_LIMIT
        with self._temporary.written(parts) as (temporary, handle):
            lock(handle)
            while True:
                with suppress(FileExistsError):
                    os.link(temporary, final)
                    break
                if self._is_durable(final):
                    return None
                if time.monotonic() > until:
                    raise TimeoutError(errno.ETIMEDOUT, "the sync of another sender does not end")
                time.sleep(SYNC_POLL)
            try:
                self._sync(handle)
            except OSError:
                remove_same(final, handle)  # its next sync could succeed although the bytes are lost: a retry writes a new file
                raise
        return final

    def _sync(self, handle: int) -> None:
        os.fsync(handle)
        if self._sync_names:
            sync_folder(self._pending)

    def _is_durable(self, pending: Path) -> bool:
        """Return whether the object is durable; False while its writer syncs it, or when it left the journal."""
        with suppress(FileNotFoundError), pending.open("rb") as other:
            if is_settled(pending, other.fileno()):
                self._sync(other.fileno())  # its writer may have been killed before
                return True
        return False

    def ensure_durable(self, pending: Path, data: bytes | memoryview) -> None:
        """Sync a file of the journal, whose writer may have been killed before its sync; write it again if that fails."""
        try:
            with pending.open("rb") as file:
                self._sync(file.fileno())
        except OSError:
            self._temporary.replace(pending, data)

    @contextmanager
    def scratch(self, parts: Sequence[bytes | memoryview]) -> Iterator[Path]:
        """Write a temporary file that exists inside the ``with`` block."""
        with self._temporary.written(parts) as (temporary, _):
            yield Path(temporary)

    def pending_path(self, sop_instance_uid: str) -> Path:
        """Return the path in the journal of an object of this UID."""
        return self._pending / f"{name_of(sop_instance_uid)}.dcm"

    def is_pending(self, sop_instance_uid: str) -> bool:
        """Return whether an object of this UID is in the journal."""
        return self.pending_path(sop_instance_uid).exists()

    def pending(self, older_than: float = 0.0) -> Iterator[Path]:
        """Yield the files of the journal that are at least ``older_than`` seconds old."""
        for entry in entries(self._pending, older_than, self.time()):
            if entry.suffix == ".dcm":
                yield entry

    @staticmethod
    def object_path(series_uid: str, sop_instance_uid: str) -> str:
        """Return the relative path of a recorded object."""
        series = name_of(series_uid)
        return f"objects/{series[:2]}/{series}/{name_of(sop_instance_uid)}.dcm"

    def publish(self, moves: Iterable[tuple[Path, str]]) -> None:
        """Give pending files their names as recorded objects too, durably; the pending names stay until `remove_pending`."""
        folders = set()
        for pending, relative in moves:
            final = f"{self.root}/{relative}"
            folder = os.path.dirname(final)  # noqa: PTH120 - pathlib takes longer than the link itself
            if folder not in folders and not os.path.isdir(folder):  # noqa: PTH112 - as above
                make_folder(Path(folder))
            folders.add(folder)
            with suppress(FileExistsError, FileNotFoundError):  # published before, or recorded by another process meanwhile
                os.link(pending, final)
        for folder in folders:
            sync_folder(folder)

    def is_published(self, relative: str) -> bool:
        """Return whether the file of an object exists."""
        return os.path.exists(f"{self.root}/{relative}")  # noqa: PTH110 - called for every image

    def remove_pending(self, pending: Iterable[Path]) -> None:
        """Remove files from the journal whose rows are committed."""
        for path in pending:
            path.unlink(missing_ok=True)

    def set_aside(self, moves: Iterable[tuple[Path, str]]) -> None:
        """Keep acknowledged objects that the database cannot hold under ``conflicts``, and remove their published names."""
        if not self._conflicts.is_dir():
            make_folder(self._conflicts)
        for pending, relative in moves:
            with suppress(FileExistsError, FileNotFoundError):
                os.link(pending, self._conflicts / f"{uuid4().hex}.dcm")
                published = self.path(relative)
                if published.samefile(pending):
                    published.unlink()
        sync_folder(self._conflicts)

    def set_damaged_aside(self, pending: Path, inode: int) -> bool:
        """Move a damaged file from the journal to ``conflicts``; False when the name belongs to another file now."""
        if not self._conflicts.is_dir():
            make_folder(self._conflicts)
        try:
            if pending.stat().st_ino != inode:
                return False
            pending.rename(self._conflicts / f"{uuid4().hex}.dcm")
        except FileNotFoundError:
            return False
        sync_folder(self._conflicts)
        return True

    # -- results and documents ---------------------------------------------------------------------------------------

    def put_result(self, job_id: str, sop_instance_uid: str, data: bytes) -> str:
        """Write a result durably into the outbox, over an earlier result of the same job; return its relative path."""
        relative = f"{self._results_of(job_id)}/{name_of(sop_instance_uid)}.dcm"
        self._write(relative, data)
        return relative

    def results(self, job_id: str) -> tuple[str, ...]:
        """Return the relative paths of all results of a job in the outbox, also of those that were not recorded."""
        folder = self._results_of(job_id)
        return tuple(f"{folder}/{path.name}" for path in self.path(folder).glob("*.dcm"))

    @staticmethod
    def _results_of(job_id: str) -> str:
        job = name_of(job_id)
        return f"outbox/{job[:2]}/{job}"

    def put_document(self, data: bytes) -> str:
        """Write a document of the worklist durably under a new name; return its relative path."""
        name = uuid4().hex
        relative = f"worklist/{name[:2]}/{name}.json"
        self._write(relative, data)
        return relative

    def _write(self, relative: str, data: bytes) -> None:
        self._temporary.replace(self.path(relative), data)

    # -- notes -------------------------------------------------------------------------------------------------------

    def notes(self, folder: str, kind: str) -> bytes:
        """Return the lines that were noted in a folder of objects; ``kind`` is one of `NOTES`."""
        try:
            return self.path(f"{folder}/{kind}.jsonl").read_bytes()
        except FileNotFoundError:
            return b""

    def note(self, relative: str, kind: str, lines: bytes) -> None:
        """Append lines to the notes in the folder of an object. They are patient data like the object, and are deleted with it."""
        path = self.path(relative)
        try:
            self._append(path.parent / f"{kind}.jsonl", lines)
        except FileNotFoundError:
            return
        if not path.exists():  # `delete` ran meanwhile: it deletes the objects before the notes
            self._delete_notes(path.parent)

    @staticmethod
    def _append(file: Path, lines: bytes) -> None:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(handle, lines)
        finally:
            os.close(handle)

    @staticmethod
    def _delete_notes(folder: Path) -> None:
        for kind in NOTES:
            (folder / f"{kind}.jsonl").unlink(missing_ok=True)
        with suppress(OSError):  # the folder is not empty, or was deleted already
            folder.rmdir()

    # -- deletion ----------------------------------------------------------------------------------------------------

    def delete(self, relatives: Iterable[str]) -> None:
        """Delete files, their notes, and the folders that become empty; files that do not exist are ignored."""
        folders = set()
        for relative in relatives:
            path = self.path(relative)
            path.unlink(missing_ok=True)
            folders.add(path.parent)
        for folder in folders:
            self._delete_notes(folder)

    def delete_orphans(self, older_than: float = ORPHAN_AGE) -> int:
        """Delete the temporary files of killed processes; return how many."""
        found = list(entries(self._temporary.folder, older_than, self._file_time()))
        for path in found:
            path.unlink(missing_ok=True)
        return len(found)
