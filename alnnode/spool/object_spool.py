"""The spool in an object storage: the same names as below the root folder of `Spool`, as keys of a bucket.

The folder of this host holds copies only. A copy is named by the tag of its content, so that an object that was deleted and received again
is never taken for the earlier one: each use asks the storage for the present tag. The index files of searches are of this host alone, and
are made again from the objects (`alnnode.spool.copies`).
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import structlog

from alnnode.spool.copies import Copies
from alnnode.spool.durable_files import make_folder
from alnnode.spool.object_store import DamagedObjectError, ObjectStore
from alnnode.spool.spool import Spool, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from alnnode.settings.spool import SpoolPlace

MOST_UNREADABLE = 3  # objects in a row that cannot be read: then it is the storage that fails, not the objects

log = structlog.get_logger()


class ObjectSpool(Spool):
    """Objects in a bucket, with copies of those in use below one folder. Safe to share between threads and processes."""

    def __init__(self, root: Path, place: SpoolPlace) -> None:
        super().__init__(root)
        self._store = ObjectStore(place)
        self._copies = Copies(self.root)
        self._copies.watch()
        self._unreadable: set[str] = set()  # keys in the journal

    def path(self, relative: str) -> Path:
        """Return the path of a copy of an object; a path without a file when there is no such object."""
        absent = super().path(relative)
        kept = self._store.head(relative)
        if kept is None:
            return absent
        copy = self._copies.path(relative, kept.tag)
        try:
            self._copies.use(copy, kept.at)
        except FileNotFoundError:
            return self._fetch(relative) or absent
        return copy

    def time(self) -> float:
        """Return the present time (seconds since the epoch) by the clock of the storage."""
        key = f"incoming/{uuid4().hex}.time"
        self._store.put(key, b"")
        kept = self._store.head(key)
        self._store.delete([key])
        if kept is None:
            raise FileNotFoundError("the object storage does not hold what it acknowledged")
        return kept.at

    # -- received objects --------------------------------------------------------------------------------------------

    def put_pending(self, sop_instance_uid: str, parts: Sequence[bytes | memoryview]) -> Path | None:
        """See `Spool.put_pending`."""
        key, data = self._pending_key(sop_instance_uid), b"".join(parts)
        tag = self._store.put_new(key, data)
        return None if tag is None else self._keep_copy(key, tag, data, time.time())

    def ensure_durable(self, pending: Path, data: bytes | memoryview) -> None:
        """Do nothing: what the storage has is durable."""

    def pending_path(self, sop_instance_uid: str) -> Path:
        """See `Spool.pending_path`."""
        return self.path(self._pending_key(sop_instance_uid))

    def is_pending(self, sop_instance_uid: str) -> bool:
        """See `Spool.is_pending`."""
        return self._store.head(self._pending_key(sop_instance_uid)) is not None

    def pending(self, older_than: float = 0.0) -> Iterator[Path]:
        """See `Spool.pending`. A damaged object is yielded too: whoever reads it sees the damage, and sets it aside.

        An object that cannot be read stays in the journal and does not hold up the others.

        Raises:
            OSError: the storage fails.
        """
        kept = list(self._store.list("pending"))
        now = self.time() if kept and older_than else 0.0
        self._unreadable &= {one.key for one in kept}
        failed, read = 0, False
        for one in sorted(kept, key=lambda one: one.key in self._unreadable):
            if older_than and abs(now - one.at) < older_than:
                continue
            try:
                copy = self._fetch(one.key, damaged=True)
            except OSError:
                failed += 1
                known = one.key in self._unreadable
                if not known:
                    log.warning("pending_object_unreadable", file=one.key)
                    self._unreadable.add(one.key)
                if failed < MOST_UNREADABLE:
                    continue
                if read or known:  # the storage works, or was asked before: these objects wait
                    return
                raise
            failed = 0
            self._unreadable.discard(one.key)
            if copy is not None:  # another process recorded it meanwhile
                read = True
                yield copy

    def publish(self, moves: Iterable[tuple[Path, str]]) -> None:
        """See `Spool.publish`."""
        for pending, relative in moves:
            data = self._pending_bytes(pending)
            if data is not None:  # None: recorded by another process meanwhile
                self._store.put_new(relative, data)

    def is_published(self, relative: str) -> bool:
        """See `Spool.is_published`."""
        return self._store.head(relative) is not None

    def remove_pending(self, pending: Iterable[Path]) -> None:
        """See `Spool.remove_pending`."""
        paths = list(pending)
        self._store.delete([self._key_of(path) for path in paths])
        super().remove_pending(paths)

    def set_aside(self, moves: Iterable[tuple[Path, str]]) -> None:
        """See `Spool.set_aside`."""
        for pending, relative in moves:
            data = self._pending_bytes(pending)
            if data is not None:
                self._store.put(f"conflicts/{uuid4().hex}.dcm", data)
                published = self._store.get(relative)
                if published is not None and published[1] == data:
                    self._store.delete([relative])

    def set_damaged_aside(self, pending: Path, inode: int) -> bool:
        """See `Spool.set_damaged_aside`. If only the copy of this host is damaged, the next round fetches the object again."""
        try:
            if pending.stat().st_ino != inode:
                return False
            data = pending.read_bytes()
        except FileNotFoundError:
            return False
        found = self._store.get(self._key_of(pending), damaged=True)
        if found is None or found[1] != data:
            pending.unlink(missing_ok=True)
            return False
        self._store.put(f"conflicts/{uuid4().hex}.dcm", data)
        self.remove_pending([pending])
        return True

    # -- results and documents ---------------------------------------------------------------------------------------

    def results(self, job_id: str) -> tuple[str, ...]:
        """See `Spool.results`."""
        return tuple(one.key for one in self._store.list(self._results_of(job_id)))

    def _write(self, relative: str, data: bytes) -> None:
        self._store.put(relative, data)

    # -- notes -------------------------------------------------------------------------------------------------------

    def notes(self, folder: str, kind: str) -> bytes:
        """See `Spool.notes`."""
        file = self._copies.notes / folder / f"{kind}.jsonl"
        try:
            self._copies.use(file)
            return file.read_bytes()
        except FileNotFoundError:
            return b""

    def note(self, relative: str, kind: str, lines: bytes) -> None:
        """See `Spool.note`."""
        folder = self._copies.notes / relative.rpartition("/")[0]
        if not folder.is_dir():
            make_folder(folder)
        self._append(folder / f"{kind}.jsonl", lines)
        if not self.is_published(relative):
            self._delete_notes(folder)

    # -- deletion ----------------------------------------------------------------------------------------------------

    def delete(self, relatives: Iterable[str]) -> None:
        """See `Spool.delete`. Copies on other hosts end an hour after their last use, notes a day after it."""
        keys = list(relatives)
        self._store.delete(keys)
        for key in keys:
            self._copies.delete(key)
            self._delete_notes((self._copies.notes / key).parent)

    # -- copies ------------------------------------------------------------------------------------------------------

    @staticmethod
    def _pending_key(sop_instance_uid: str) -> str:
        return f"pending/{name_of(sop_instance_uid)}.dcm"

    @staticmethod
    def _key_of(pending: Path) -> str:
        """Return the key in the journal of a copy."""
        return f"pending/{pending.name.partition('.')[0]}.dcm"

    def _pending_bytes(self, pending: Path) -> bytes | None:
        """Return the bytes of an object in the journal from its copy, or from the storage; None when the journal holds it no longer."""
        with suppress(FileNotFoundError):
            return pending.read_bytes()
        found = self._store.get(self._key_of(pending))
        return None if found is None else found[1]

    def _fetch(self, key: str, *, damaged: bool = False) -> Path | None:
        """Copy an object of the storage to this host; None when there is none.

        With ``damaged``, a damaged object is copied too, under a name by which `path` never finds it.
        """
        mark = ""
        try:
            found = self._store.get(key)
        except DamagedObjectError:
            if not damaged:
                raise
            found, mark = self._store.get(key, damaged=True), "damaged-"
        return None if found is None else self._keep_copy(key, f"{mark}{found[0].tag}", found[1], found[0].at)

    def _keep_copy(self, key: str, tag: str, data: bytes, at: float) -> Path:
        copy = self._copies.path(key, tag)
        copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._temporary.written([data]) as (temporary, _):  # no fsync: see `Copies`
            os.utime(temporary, (time.time(), at))
            Path(temporary).replace(copy)
        return copy
