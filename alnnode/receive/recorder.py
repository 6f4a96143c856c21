"""Group commit: the rows of objects that are durable in the spool's journal, many in one transaction.

A commit for each image would take longer than all other work together. So the sender is answered when the object is durable in
``pending``, and this thread commits its row within about 0.2 s. After a crash, `replay` makes the rows from the files.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.exc import SQLAlchemyError

from alnnode.db.rows import NewInstance, Recorded
from alnnode.errors import RejectedObject
from alnnode.receive import file_meta, header
from alnnode.spool.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from alnnode.receive.received_series import ReceivedSeries

log = structlog.get_logger()

GATHER = 0.2  # seconds to wait for more of a batch
BATCH = 256
RETRY = 1.0  # seconds after the database or the disk failed
# A release that cannot be committed is dropped when the recorder closes; the quiet period then completes the series.
_ERRORS = (SQLAlchemyError, OSError)


@dataclass(frozen=True, slots=True)
class Release:
    """An association that sent these series was released at this time."""

    series_uids: frozenset[str]
    at: datetime


@dataclass(frozen=True, slots=True)
class Pending:
    """An object in the journal, with its row that is to be committed."""

    path: Path
    instance: NewInstance

    def shifted(self, ahead: timedelta) -> Pending:
        """Return the entry with its time by a clock that is ahead by so much."""
        return Pending(self.path, replace(self.instance, received_at=self.instance.received_at + ahead)) if ahead else self


class Recorder:
    """The thread that commits rows; `close` it at the end."""

    def __init__(self, received: ReceivedSeries, spool: Spool) -> None:
        self._received, self._spool = received, spool
        self._queue: queue.SimpleQueue[Pending | Release | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder")
        self._thread.start()

    def put(self, item: Pending | Release) -> None:
        """Queue an object or a release; return at once."""
        self._queue.put(item)

    def close(self) -> None:
        """Commit the queued rows, then stop. Rows that the database does not accept now are replayed at the next start."""
        self._closed.set()
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        last = False
        while not last:
            batch, last = self._gather()
            while batch and not self._commit(batch) and not self._closed.wait(RETRY):
                pass

    def _gather(self) -> tuple[list[Pending | Release], bool]:
        batch = [self._queue.get()]
        # One sleep, not a wait for each item: each time that this thread wakes up, it takes the interpreter from a receiving thread.
        self._closed.wait(GATHER)
        while len(batch) < BATCH and batch[-1] is not None:
            try:
                batch.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return [item for item in batch if item is not None], batch[-1] is None

    def _commit(self, batch: Sequence[Pending | Release]) -> bool:
        try:
            ahead = self._received.clock_offset()  # the times in the batch are of this host
            record(self._received, self._spool, [item.shifted(ahead) for item in batch if isinstance(item, Pending)])
            for item in batch:
                if isinstance(item, Release):
                    self._received.mark_released(item.series_uids, item.at + ahead)
        except _ERRORS as error:
            log.error("recording_failed", error=type(error).__name__, waiting=len(batch))  # noqa: TRY400 - a traceback holds UIDs
            return False
        return True


def record(received: ReceivedSeries, spool: Spool, batch: Sequence[Pending]) -> None:
    """Commit the rows of journal entries and remove them from the journal; another process may do the same at the same time."""
    if not batch:
        return
    moves = [(item.path, item.instance.path) for item in batch]
    spool.publish(moves)
    outcomes = received.record_instances([item.instance for item in batch])
    # The retention may have deleted an earlier object of this name between the two statements above, while it held the series lock.
    gone = [(path, relative) for path, relative in moves if not spool.is_published(relative)]
    if gone:
        spool.publish(gone)
    conflicts = [item for item, outcome in zip(batch, outcomes, strict=True) if outcome is Recorded.CONFLICT]
    if conflicts:
        # The same SOP Instance UID in two series: the acceptor cannot see it, because it does not query the database for every image.
        log.error("uid_conflict", objects=len(conflicts), kept_in="conflicts")
        spool.set_aside((item.path, item.instance.path) for item in conflicts)
    spool.remove_pending(item.path for item in batch)
    if conflicts:
        received.count_set_aside("uid conflict", len(conflicts))


def replay(received: ReceivedSeries, spool: Spool, older_than: float = 0.0) -> int:
    """Record the objects that a killed process left in the journal; return how many.

    Raises:
        OSError, SQLAlchemyError: the spool or the database fails; the objects stay in the journal.
    """
    count = 0
    batch: list[Pending] = []
    ahead: timedelta | None = None
    for path in spool.pending(older_than):
        if ahead is None:  # the journal is empty nearly always
            ahead = received.now() - datetime.fromtimestamp(spool.time(), UTC)
        entry = _read(received, spool, path, ahead)
        if entry is None:
            continue
        batch.append(entry)
        count += 1
        if len(batch) >= BATCH:
            record(received, spool, batch)
            batch = []
    record(received, spool, batch)
    return count


def _read(received: ReceivedSeries, spool: Spool, path: Path, ahead: timedelta) -> Pending | None:
    """Return the journal entry of a path; None when the file is gone, or was not written completely.

    ``ahead`` is by how much the clock of the database is ahead of that of the file system.
    """
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            data = memoryview(file.read())
    except FileNotFoundError:
        return None  # another process recorded it meanwhile
    # From here on the name may be gone, or name another object: only these bytes are used.
    try:
        offset = file_meta.data_set_offset(data)
        content = data[offset:]
        if digest(content) != file_meta.digest_in(data):
            raise ValueError("the bytes are not those that were received")  # noqa: TRY301 - handled like every other damage
        meta = file_meta.values(data[:offset])
        syntax, calling_ae = meta.get(file_meta.TRANSFER_SYNTAX_UID, ""), meta.get(file_meta.SOURCE_AE_TITLE, "")
        head = header.read(content, syntax, calling_ae)
    except (ValueError, RejectedObject):
        # Most likely the machine stopped before the bytes were on the disk, and the sender was not answered. If the disk has
        # failed instead, an administrator may want the rest of the object.
        if spool.set_damaged_aside(path, found.st_ino):
            log.warning("damaged_object_set_aside", file=path.name)
            received.count_set_aside("damaged", 1)
        return None
    spool.ensure_durable(path, data)
    return Pending(path, instance(head, syntax, content, datetime.fromtimestamp(found.st_mtime, UTC) + ahead))


def digest(data_set: bytes | memoryview) -> str:
    """Return the sha256 (hex) of an encoded data set, without File Meta Information, which differs between C-STORE and STOW-RS."""
    return hashlib.sha256(data_set).hexdigest()


def instance(head: header.Header, transfer_syntax: str, data_set: bytes | memoryview, received_at: datetime) -> NewInstance:
    """Return the row of an object."""
    return NewInstance(
        sop_class_uid=head.sop_class_uid,
        sop_instance_uid=head.sop_instance_uid,
        series_uid=head.series_uid,
        study_uid=head.study_uid,
        transfer_syntax_uid=transfer_syntax,
        path=Spool.object_path(head.series_uid, head.sop_instance_uid),
        sha256=digest(data_set),
        size=len(data_set),
        received_at=received_at,
        facts=head.facts,
        refers=head.refers,
    )
