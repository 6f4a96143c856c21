"""The one door: every object that the node keeps came through `Acceptor.accept`, whatever protocol brought it.

When it returns, the object's bytes are durable in the spool's journal, and so is all that is needed to record it; its row in
the database follows within some 0.2 s (`alnnode.receive.recorder`).
"""

from __future__ import annotations

import errno
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.exc import SQLAlchemyError

from alnnode.errors import RejectedObject
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

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Acceptor:
    """Checks, keeps and records incoming objects. Safe to share between threads; `close` it at the end."""

    def __init__(self, settings: Settings, received: ReceivedSeries, spool: Spool) -> None:
        self._received, self._spool = received, spool
        self._recorder = Recorder(received, spool)
        self._facts: dict[tuple[str, str], SeriesFacts] = {}
        self._comparing = threading.Lock()  # two files are in memory for it, decoded
        self._min_free_mb = settings.retention.min_free_mb
        self._max_bytes = settings.listener.max_object_mb << 20

    def accept(
        self,
        data: bytes | memoryview,
        transfer_syntax: str,
        calling_ae: str,
        sop_class_uid: str | None = None,
        sop_instance_uid: str | None = None,
    ) -> str:
        """Take one encoded data set (without File Meta Information) and return its Series Instance UID.

        The two UIDs are what the sender's command says of the object; None when the protocol has no command. An object that is
        here already with the same bytes, or the same image in another encoding, is taken without a change.

        Raises:
            RejectedObject: it is not kept; the status says why.
        """
        return self.take(data, transfer_syntax, calling_ae, sop_class_uid, sop_instance_uid).series_uid

    def take(
        self,
        data: bytes | memoryview,
        transfer_syntax: str,
        calling_ae: str,
        sop_class_uid: str | None = None,
        sop_instance_uid: str | None = None,
        study_uid: str | None = None,
    ) -> NewInstance:
        """Do what `accept` does, and return all that was learnt; an object of another study than the request says is refused too.

        Raises:
            RejectedObject: it is not kept; the status says why.
        """
        self.check_room(len(data))
        head = header.read(data, transfer_syntax, calling_ae, self._facts)
        if sop_class_uid is not None and head.sop_class_uid != sop_class_uid:
            raise RejectedObject(Status.SOP_CLASS_MISMATCH, "data set and command are of different SOP classes")
        if sop_instance_uid is not None and head.sop_instance_uid != sop_instance_uid:
            raise RejectedObject(Status.INVALID_UID, "data set and command differ in SOP Instance UID")
        if study_uid is not None and head.study_uid != study_uid:
            raise RejectedObject(STUDY_MISMATCH, "the data set is of another study than the request")
        row = instance(head, transfer_syntax, data, datetime.now(UTC))
        try:
            self._keep(row, data)
        except OSError as error:
            log.error("spool_failed", error=errno.errorcode.get(error.errno or 0, "unknown"))  # noqa: TRY400 - no paths in logs
            words = "the disk is full" if error.errno in _FULL else "the disk does not take the object"
            raise RejectedObject(Status.OUT_OF_RESOURCES, words) from error
        except SQLAlchemyError as error:
            log.error("database_failed", error=type(error).__name__)  # noqa: TRY400 - a traceback holds UIDs
            raise RejectedObject(Status.OUT_OF_RESOURCES, "the database does not answer") from error
        return row

    def check_room(self, size: int) -> None:
        """Refuse an object of this many bytes when it is larger than the node allows, or the disk has not enough room left.

        Raises:
            RejectedObject: with 0xA700.
        """
        if size > self._max_bytes:
            raise RejectedObject(Status.OUT_OF_RESOURCES, f"larger than {self._max_bytes >> 20} MB")
        if self._spool.free_mb() - (size >> 20) < self._min_free_mb:
            raise RejectedObject(Status.OUT_OF_RESOURCES, "too little disk space left")

    def released(self, series_uids: Iterable[str]) -> None:
        """Note that the sender of these series released its association."""
        uids = frozenset(series_uids)
        if uids:
            self._recorder.put(Release(uids, datetime.now(UTC)))

    def close(self) -> None:
        """Record what was accepted."""
        self._recorder.close()

    def _keep(self, row: NewInstance, content: bytes | memoryview) -> None:
        meta = file_meta.head(
            row.sop_class_uid, row.sop_instance_uid, row.transfer_syntax_uid, row.facts.calling_ae, row.sha256
        )
        path = self._spool.put_pending(row.sop_instance_uid, [meta, content])
        if path is None:
            self._compare_pending(row, [meta, content])
            return
        # In this order: an object leaves the journal only after it has its name and its row.
        if self._spool.is_published(row.path) and not self._is_recorded_alike(row, path):
            return
        # Also when it is here already: a clean-up that was cut off may have left the row without its file.
        self._recorder.put(Pending(path, row))

    def _is_recorded_alike(self, row: NewInstance, path: Path) -> bool:
        """Whether what is recorded has the same bytes; when it is the same image in another encoding, the first is kept, and there is no more to do.

        Raises:
            RejectedObject: it is another object.
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
            # It was there, was refused, and is gone: the sender's next try meets a settled state.
            raise RejectedObject(Status.OUT_OF_RESOURCES, "another sender sends this object just now")
        if known == row.sha256:
            return
        with self._spool.scratch(parts) as sent:
            try:
                self._check_same(path, sent)
            except FileNotFoundError:  # recorded meanwhile
                self._check_same(self._spool.path(row.path), sent)

    def _check_same(self, held: Path, sent: Path) -> None:
        """Let the same image in another encoding pass.

        Raises:
            RejectedObject: it is another object.
            FileNotFoundError: the first is no longer under this name.
            OSError: the spool does not do its part.
        """
        from alnnode.imaging.pixel_identity import same  # noqa: PLC0415 - decoders are slow to import, and few senders need them

        with self._comparing:
            alike = same(held, sent)
        if not alike:
            held.stat()
            raise RejectedObject(Status.CONFLICT, "another object with this SOP Instance UID is here already")
        log.info("same_image_in_another_encoding")
