"""Storage Commitment Push Model (PS3.4 Annex J): its data sets, the request (N-ACTION), and the result on a new association."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_context, build_role, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance  # type: ignore[attr-defined]

from alnnode.clients.association import Peer, ServiceUser
from alnnode.clients.refusal_status import REFUSALS
from alnnode.errors import DeliveryError, DeliveryRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pynetdicom.association import Association
    from pynetdicom.events import Event

Reference = tuple[str, str]  # SOP Class and SOP Instance UID
SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
REQUEST_STORAGE_COMMITMENT = 1  # Action Type ID, table J.3.2-1
ALL_COMMITTED, FAILURES_EXIST = 1, 2  # Event Type ID, table J.3.3-1
SUCCESS = 0x0000
LINGER = 2.0  # seconds that the association of a request stays open for peers that send the result on it


class Reason(IntEnum):
    """Failure Reason (0008,1197), PS3.3 C.14.1.1."""

    PROCESSING_FAILURE = 0x0110
    NO_SUCH_OBJECT = 0x0112
    CLASS_INSTANCE_CONFLICT = 0x0119
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    DUPLICATE_TRANSACTION = 0x0131
    RESOURCE_LIMITATION = 0x0213


WORDS = {
    Reason.PROCESSING_FAILURE: "processing failure",
    Reason.NO_SUCH_OBJECT: "no such object instance",
    Reason.CLASS_INSTANCE_CONFLICT: "class/instance conflict",
    Reason.SOP_CLASS_NOT_SUPPORTED: "SOP class not supported",
    Reason.DUPLICATE_TRANSACTION: "duplicate transaction UID",
    Reason.RESOURCE_LIMITATION: "resource limitation",
}


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one transaction: the objects that the SCP commits, and those that it does not, each with its failure reason."""

    transaction_uid: str
    committed: tuple[Reference, ...]
    failed: tuple[tuple[Reference, int], ...]


def describe_reason(reason: int) -> str:
    """Return the text and number of a failure reason."""
    return f"{WORDS.get(reason, 'failure reason')} (0x{reason:04X})"  # type: ignore[call-overload]  # an IntEnum is found by its number


def _items(references: Sequence[Reference]) -> list[Dataset]:
    items = []
    for sop_class_uid, sop_instance_uid in references:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
        items.append(item)
    return items


def _references(data_set: Dataset, keyword: str) -> tuple[Reference, ...]:
    return tuple(
        (str(item.get("ReferencedSOPClassUID", "")), str(item.get("ReferencedSOPInstanceUID", "")))
        for item in data_set.get(keyword) or ()
    )


def read_request(action: Dataset) -> tuple[str, tuple[Reference, ...]]:
    """Return Transaction UID and objects of Action Information (table J.3.2-1); empty where they are missing."""
    return str(action.get("TransactionUID", "")), _references(action, "ReferencedSOPSequence")


def read_result(event: Dataset) -> Result:
    """Return the result that Event Information holds (table J.3.3-1)."""
    failed = _references(event, "FailedSOPSequence")
    reasons = [int(item.get("FailureReason") or Reason.PROCESSING_FAILURE) for item in event.get("FailedSOPSequence") or ()]
    return Result(
        str(event.get("TransactionUID", "")),
        _references(event, "ReferencedSOPSequence"),
        tuple(zip(failed, reasons, strict=True)),
    )


def _event(result: Result) -> tuple[int, Dataset]:
    """Return Event Type ID and Event Information."""
    event = Dataset()
    event.TransactionUID = result.transaction_uid
    if result.committed:
        event.ReferencedSOPSequence = _items(result.committed)
    if not result.failed:
        return ALL_COMMITTED, event
    event.FailedSOPSequence = _items([reference for reference, _ in result.failed])
    for item, (_, reason) in zip(event.FailedSOPSequence, result.failed, strict=True):
        item.FailureReason = int(reason)
    return FAILURES_EXIST, event


class CommitmentUser(ServiceUser):
    """Asks one peer to commit the objects that it was sent, or reports to it which objects this node commits."""

    def __init__(self, peer: Peer, calling_ae_title: str, linger: float = LINGER) -> None:
        super().__init__(peer, calling_ae_title)
        self._linger = linger

    def ask(self, transaction_uid: str, references: Sequence[Reference], received: Callable[[Result], bool]) -> None:
        """Send the request by N-ACTION.

        Args:
            transaction_uid: of the request.
            references: SOP Class UID and SOP Instance UID of each object.
            received: called with a result that comes on the same association; returns whether it was stored.

        Raises:
            DeliveryError: the peer did not accept the request; a retry may succeed.
            DeliveryRefused: the peer does no storage commitment for this node.
        """
        reported = threading.Event()

        def report(event: Event) -> tuple[int, None]:
            status = receive_report(event, received)
            reported.set()
            return status, None

        action = Dataset()
        action.TransactionUID = transaction_uid
        action.ReferencedSOPSequence = _items(references)
        handlers: list[tuple[Any, Any]] = [(evt.EVT_N_EVENT_REPORT, report)]
        context = build_context(StorageCommitmentPushModel, list(SYNTAXES))
        with self.associate([context], handlers=handlers) as association:
            response = self._send(
                lambda: association.send_n_action(
                    action, REQUEST_STORAGE_COMMITMENT, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
                )
            )
            status = self.status(response)
            if status == SUCCESS:
                reported.wait(self._linger)
        if status in REFUSALS:
            raise DeliveryRefused(f"the peer refuses storage commitment with status 0x{status:04X}: {REFUSALS[status]}")
        if status != SUCCESS:
            raise DeliveryError(f"the response to the commitment request has status 0x{status:04X}")

    def report(self, result: Result) -> None:
        """Send a result by N-EVENT-REPORT on a new association, in the role of the SCP (PS3.4 J.3.3, PS3.7 D.3.3.4).

        Raises:
            DeliveryError: the peer did not accept the result; a retry may succeed.
        """
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        with self.associate([build_context(StorageCommitmentPushModel, list(SYNTAXES))], [role]) as association:
            if not any(context.as_scp for context in association.accepted_contexts):
                raise DeliveryRefused("the peer does not accept this node in the role of the SCP")
            status = self.status(self._send(lambda: send_report(association, result)))
        if status != SUCCESS:
            raise DeliveryError(f"the response to the commitment result has status 0x{status:04X}")

    def _send(self, send: Callable[[], tuple[Dataset, Any]]) -> Dataset:
        try:
            return send()[0]
        except (RuntimeError, ValueError, AttributeError, OSError) as error:
            raise DeliveryError(f"the message could not be sent ({type(error).__name__})") from error


def send_report(association: Association, result: Result) -> tuple[Dataset, Dataset | None]:
    """Send a result on an open association; raises the errors of pynetdicom when the association is no longer open."""
    kind, event = _event(result)
    return association.send_n_event_report(event, kind, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)


def receive_report(event: Event, received: Callable[[Result], bool]) -> int:
    """Give the result of an N-EVENT-REPORT to ``received``; return the status of the response (PS3.7 10.1.1.1.8).

    ``received`` returns whether it could store the result.
    """
    try:
        result = read_result(event.event_information)
    except Exception:  # noqa: BLE001 - pydicom promises no set of exceptions for bytes that are no data set
        return 0x0110  # processing failure
    if event.event_type not in {ALL_COMMITTED, FAILURES_EXIST}:
        return 0x0113  # no such event type
    return SUCCESS if received(result) else 0x0110
