"""Storage Commitment SCP (PS3.4 Annex J): commit the objects whose bytes on the disk are those that were received.

A request is a row in the database before its response. The node sends the result on the association of the request while that is open,
else on a new association to the address of the requester in the settings, and retries until the requester accepts it.
"""

from __future__ import annotations

import hashlib
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import structlog
from pynetdicom.sop_class import StorageCommitmentPushModelInstance
from sqlalchemy.exc import SQLAlchemyError

from alnnode.clients.association import Peer
from alnnode.clients.commitment_scu import (
    REQUEST_STORAGE_COMMITMENT,
    SUCCESS,
    CommitmentUser,
    Reason,
    Result,
    read_request,
    send_report,
)
from alnnode.errors import DeliveryError
from alnnode.receive import file_meta
from alnnode.receive.accepted_association import after_response, is_open
from alnnode.receive.header import valid_uid

if TYPE_CHECKING:
    from collections.abc import Callable

    from pynetdicom.association import Association
    from pynetdicom.events import Event

    from alnnode.receive.commitment_requests import ClaimedRequest, CommitmentRequests, RecordedObject
    from alnnode.settings import Settings
    from alnnode.spool.spool import Spool

log = structlog.get_logger()

MAX_REQUEST = 16 << 20  # bytes of Action Information, enough for some 100 000 objects
POLL = 2.0  # seconds between two searches for results that are due
SETTLE = 5.0  # seconds to wait for objects that are still in the journal
ATTEMPTS = 200  # about two days with the longest wait between two attempts; the requester may request again
NO_SUCH_INSTANCE, INVALID_VALUE, NO_SUCH_ACTION, NOT_AUTHORISED, RESOURCES = 0x0112, 0x0115, 0x0123, 0x0124, 0x0213


class CommitmentProvider:
    """Receives commitment requests and reports their results; one for each listening process. Threads may share it."""

    def __init__(self, settings: Settings, requests: CommitmentRequests, spool: Spool) -> None:
        self._requests, self._spool = requests, spool
        self._title = settings.node.ae_title
        self._requesters = {requester.ae_title: requester for requester in settings.commitment.requesters}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="commitment")

    def start(self) -> None:
        """Start to report results that are due; do nothing when the settings have no requester."""
        if self._requesters:
            self._thread.start()

    def close(self) -> None:
        """Stop; results that are not reported yet follow after the next start."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def receive(self, event: Event) -> int:
        """Store the request of an N-ACTION, and return the status of the response (PS3.7 10.1.4.1.10); the result follows."""
        requester, association = str(event.assoc.requestor.ae_title), event.assoc
        status, request_id = self._store(event, requester)
        if request_id is None:
            log.warning("commitment_refused", calling_ae_title=requester, status=f"0x{status:04X}")
        else:
            log.info("commitment_requested", calling_ae_title=requester, request=request_id)
            after_response(association, lambda: self._guarded(lambda: self._report_on(association, request_id)))
        return status

    def _store(self, event: Event, requester: str) -> tuple[int, str | None]:
        status = self._fault(event, requester)
        if status != SUCCESS:
            return status, None
        try:
            transaction_uid, objects = read_request(event.action_information)
        except Exception:  # noqa: BLE001 - pydicom promises no set of exceptions for bytes that are no data set
            return INVALID_VALUE, None
        if not objects or not all(map(valid_uid, (transaction_uid, *(uid for pair in objects for uid in pair)))):
            return INVALID_VALUE, None
        # After the report on the association of the request: another process reports the result when this one dies.
        due_after = timedelta(seconds=2 * SETTLE)
        try:
            return SUCCESS, self._requests.receive(requester, transaction_uid, objects, due_after)
        except SQLAlchemyError as error:
            log.error("database_failed", error=type(error).__name__)  # noqa: TRY400 - a traceback holds UIDs
            return RESOURCES, None

    def _fault(self, event: Event, requester: str) -> int:
        """Return the status of an N-ACTION whose Action Information is not read yet."""
        request: Any = event.request
        information = request.ActionInformation
        if requester not in self._requesters:
            return NOT_AUTHORISED
        if request.RequestedSOPInstanceUID != StorageCommitmentPushModelInstance:
            return NO_SUCH_INSTANCE
        if event.action_type != REQUEST_STORAGE_COMMITMENT:
            return NO_SUCH_ACTION
        if information is not None and information.getbuffer().nbytes > MAX_REQUEST:
            return RESOURCES
        return SUCCESS

    def _guarded(self, call: Callable[[], object]) -> None:
        """Log errors of database or disk, so that they do not end the thread: the results become due again."""
        try:
            call()
        except (SQLAlchemyError, OSError) as error:
            log.error("commitment_failed", error=type(error).__name__)  # noqa: TRY400 - a traceback holds UIDs

    # -- results -----------------------------------------------------------------------------------------------------

    def _report_on(self, association: Association, request_id: str) -> None:
        request = self._requests.claim(request_id)
        if request is None:
            return
        result = self._result(request)
        if is_open(association):
            try:
                response, _ = send_report(association, result)
            except (RuntimeError, ValueError, AttributeError, OSError) as error:
                log.info("commitment_not_told_here", request=request_id, error=type(error).__name__)
            else:
                if response.get("Status") == SUCCESS:
                    self._reported(request, result)
                    return
        self._requests.deferred(request, "the association of the request ended before the result")

    def _run(self) -> None:
        while not self._stop.wait(POLL):
            self._guarded(self._report_due)

    def _report_due(self) -> None:
        while not self._stop.is_set() and (request := self._requests.next_due()) is not None:
            self._report(request)

    def _report(self, request: ClaimedRequest) -> None:
        """Report a result on a new association."""
        requester = self._requesters.get(request.requester)
        if requester is None or requester.host is None or requester.port is None:
            self._give_up(request, "its association ended, and [[commitment.requesters]] has no host and port for it")
            return
        result = self._result(request)
        peer = Peer(request.requester, requester.ae_title, requester.host, requester.port, requester.timeout, requester.tls)
        try:
            CommitmentUser(peer, self._title).report(result)
        except DeliveryError as error:
            if request.attempt >= ATTEMPTS:
                self._give_up(request, str(error))
            else:
                self._requests.deferred(request, str(error))
                log.info("commitment_deferred", request=request.request_id, attempt=request.attempt, error=str(error))
        else:
            self._reported(request, result)

    def _reported(self, request: ClaimedRequest, result: Result) -> None:
        self._requests.answered(request.request_id, len(result.failed))
        log.info("commitment_answered", request=request.request_id, committed=len(result.committed), failed=len(result.failed))

    def _give_up(self, request: ClaimedRequest, error: str) -> None:
        log.warning("commitment_given_up", request=request.request_id, calling_ae_title=request.requester, error=error)
        self._requests.given_up(request.request_id, error)

    # -- objects -----------------------------------------------------------------------------------------------------

    def _result(self, request: ClaimedRequest) -> Result:
        if request.duplicate:
            failed = tuple((reference, int(Reason.DUPLICATE_TRANSACTION)) for reference in request.objects)
            return Result(request.transaction_uid, (), failed)
        self._wait_for_journal([uid for _, uid in request.objects])
        recorded = self._requests.recorded([uid for _, uid in request.objects])
        reasons = [self._reason(sop_class, recorded.get(uid)) for sop_class, uid in request.objects]
        pairs = list(zip(request.objects, reasons, strict=True))
        return Result(
            request.transaction_uid,
            tuple(reference for reference, reason in pairs if reason is None),
            tuple((reference, int(reason)) for reference, reason in pairs if reason is not None),
        )

    def _wait_for_journal(self, uids: list[str]) -> None:
        """Wait until none of these objects is in the journal: then each object that was acknowledged is recorded."""
        deadline = time.monotonic() + SETTLE
        while any(self._spool.is_pending(uid) for uid in uids) and time.monotonic() < deadline:
            self._stop.wait(0.05)

    def _reason(self, sop_class_uid: str, kept: RecordedObject | None) -> Reason | None:
        """Return why an object is not committed; None when its bytes on the disk are those that were received."""
        if kept is None:
            return Reason.NO_SUCH_OBJECT
        if kept.sop_class_uid != sop_class_uid:
            return Reason.CLASS_INSTANCE_CONFLICT
        try:
            data = memoryview(self._spool.path(kept.path).read_bytes())
            content = data[file_meta.data_set_offset(data) :]
        except FileNotFoundError:
            return Reason.NO_SUCH_OBJECT
        except (OSError, ValueError):
            return Reason.PROCESSING_FAILURE
        return None if hashlib.sha256(content).hexdigest() == kept.sha256 else Reason.PROCESSING_FAILURE
