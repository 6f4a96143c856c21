"""Store an incoming object: every protocol brings its objects to `Acceptor.store`.

When it returns, the bytes of the object are durable in the spool's journal with all that is needed to record it; its row in the
database follows within 0.2 s (`alnnode.receive.recorder`).
"""

from __future__ import annotations

import errno
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.exc import SQLAlchemyError

from alnnode.errors import RejectedObject, ServiceError
from alnnode.receive import file_meta, header
from alnnode.receive.dimse_status import STUDY_MISMATCH, Status
from alnnode.receive.recorder import Pending, Recorder, Release, instance

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from alnnode.db.rows import NewInstance, SeriesFacts
    from alnnode.receive.received_series import ReceivedSeries
    from alnnode.settings import Settings
    from alnnode.spool.spool import Spool

log = structlog.get_logger()

THREADS = 24
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """What the request of a sender says of an object.

    Attributes:
        transfer_syntax: UID of the encoding.
        calling_ae: AE title of the sender, or name of its token.
        sop_class_uid: None when the protocol does not say it.
        sop_instance_uid: None when the protocol does not say it.
        study_uid: of the URL, for STOW-RS to one study.
    """

    transfer_syntax: str
    calling_ae: str
    sop_class_uid: str | None = None
    sop_instance_uid: str | None = None
    study_uid: str | None = None


class Acceptor:
    """Checks, stores and records incoming objects. Threads may share an instance; `close` it at the end.

    Attributes:
        threads: for callers in an event loop. `store` mostly waits for the disk, which syncs many objects in little more time than one.
    """

    def __init__(self, settings: Settings, received: ReceivedSeries, spool: Spool) -> None:
        self._received, self._spool = received, spool
        self._recorder = Recorder(received, spool)
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="store")  # starts a thread only when it is needed
        self._facts: dict[tuple[str, str], SeriesFacts] = {}
        self._comparing = threading.Lock()  # a comparison holds two decoded images in memory
        self._min_free_mb = settings.retention.min_free_mb
        self._max_bytes = settings.listener.max_object_mb << 20

    def store(self, data: bytes | memoryview, request: StoreRequest) -> NewInstance:
        """Store one encoded data set (without File Meta Information), and return the row that it will get.

        An object that the node already has with the same bytes, or as the same image in another encoding, counts as stored.

        Raises:
            RejectedObject: the object is refused; the status says why.
        """
        self.check_room(len(data))
        head = header.read(data, request.transfer_syntax, request.calling_ae, self._facts)
        if request.sop_class_uid is not None and head.sop_class_uid != request.sop_class_uid:
            raise RejectedObject(Status.SOP_CLASS_MISMATCH, "data set and command have different SOP classes")
        if request.sop_instance_uid is not None and head.sop_instance_uid != request.sop_instance_uid:
            raise RejectedObject(Status.INVALID_UID, "data set and command differ in SOP Instance UID")
        if request.study_uid is not None and head.study_uid != request.study_uid:
            raise RejectedObject(STUDY_MISMATCH, "data set and request have different studies")
        row = instance(head, request.transfer_syntax, data, datetime.now(UTC))
        try:
            self._store(row, data)
        except OSError as error:
            log.error("spool_failed", error=errno.errorcode.get(error.errno or 0, "unknown"))  # noqa: TRY400 - no paths in logs
            words = "the disk is full" if error.errno in _FULL else "the disk does not accept the object"
            raise RejectedObject(Status.OUT_OF_RESOURCES, words) from error
        except SQLAlchemyError as error:
            log.error("database_failed", error=type(error).__name__)  # noqa: TRY400 - a traceback holds UIDs
            raise RejectedObject(Status.OUT_OF_RESOURCES, "the database does not respond") from error
        except ServiceError as error:
            log.error("comparison_failed", error=str(error))  # noqa: TRY400 - the message says everything
            raise RejectedObject(Status.OUT_OF_RESOURCES, "too little memory to compare the object") from error
        return row

    def check_room(self, size: int) -> None:
        """Refuse an object of ``size`` bytes when it is larger than the node allows, or too little disk space would be left.

        Raises:
            RejectedObject: with 0xA700.
        """
        if size > self._max_bytes:
            raise RejectedObject(Status.OUT_OF_RESOURCES, f"larger than {self._max_bytes >> 20} MB")
        if self._spool.free_mb() - (size >> 20) < self._min_free_mb:
            raise RejectedObject(Status.OUT_OF_RESOURCES, "too little disk space left")

    def released(self, series_uids: Iterable[str]) -> None:
        """Record that the sender of these series released its association."""
        uids = frozenset(series_uids)
        if uids:
            self._recorder.put(Release(uids, datetime.now(UTC)))

    def close(self) -> None:
        """Record the stored objects, and stop. What threads store later is durable, and is recorded at the next start."""
        self._recorder.close()

    def _store(self, row: NewInstance, content: bytes | memoryview) -> None:
        meta = file_meta.head(
            row.sop_class_uid, row.sop_instance_uid, row.transfer_syntax_uid, row.facts.calling_ae, row.sha256
        )
        path = self._spool.put_pending(row.sop_instance_uid, [meta, content])
        if path is None:
            self._compare_pending(row, [meta, content])
            return
        # In this order, because an object leaves the journal only when it has its name and its row.
        if self._spool.is_published(row.path) and not self._is_recorded_alike(row, path):
            return
        # Also for an object that the node already has: an interrupted deletion may have left the row without its file.
        self._recorder.put(Pending(path, row))

    def _is_recorded_alike(self, row: NewInstance, path: Path) -> bool:
        """Return whether the recorded object has the same bytes; False when it is the same image in another encoding, which stays.

        Raises:
            RejectedObject: the recorded object is a different one.
        """
        try:
            known = self._received.digest(row.sop_instance_uid)
            if known in {None, row.sha256}:
                return True
            self._check_same(self._spool.path(row.path), path)
        except BaseException:
            self._spool.remove_pending([path])
            raise
        self._spool.remove_pending([path])
        return False

    def _compare_pending(self, row: NewInstance, parts: Sequence[bytes | memoryview]) -> None:
        path = self._spool.pending_path(row.sop_instance_uid)
        uid = row.sop_instance_uid
        known = self._received.digest(uid) or file_meta.digest_of(path) or self._received.digest(uid)
        if known is None:
            # The other object was in the journal, was refused, and is gone: a retry finds a settled state.
            raise RejectedObject(Status.OUT_OF_RESOURCES, "another sender is sending this object")
        if known == row.sha256:
            return
        with self._spool.scratch(parts) as sent:
            try:
                self._check_same(path, sent)
            except FileNotFoundError:  # the object left the journal meanwhile
                self._check_same(self._spool.path(row.path), sent)

    def _check_same(self, held: Path, sent: Path) -> None:
        """Return when both files hold the same image, in whatever encoding.

        Raises:
            RejectedObject: they are different objects.
            FileNotFoundError: ``held`` no longer exists.
            OSError: the spool cannot read a file.
        """
        from alnnode.imaging.pixel_identity import same  # noqa: PLC0415 - decoders are slow to import, and rarely needed

        with self._comparing:
            alike = same(held, sent)
        if not alike:
            held.stat()
            raise RejectedObject(Status.CONFLICT, "a different object has this SOP Instance UID already")
        log.info("same_image_in_another_encoding")
