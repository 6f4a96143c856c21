"""Storage Commitment Push Model (PS3.4 Annex J): its data sets, the question (N-ACTION) and, on an association of our own, the answer."""

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
from alnnode.deliver.cstore import REFUSALS
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
LINGER = 2.0  # seconds that the association of a question stays open for peers that answer on it


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
    """What an SCP says of the objects of one transaction; ``failed`` has the reason with each."""

    transaction_uid: str
    committed: tuple[Reference, ...]
    failed: tuple[tuple[Reference, int], ...]


def words(reason: int) -> str:
    """Say a failure reason."""
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
    """Transaction UID and objects of Action Information (table J.3.2-1); empty where they are missing."""
    return str(action.get("TransactionUID", "")), _references(action, "ReferencedSOPSequence")


def read_result(event: Dataset) -> Result:
    """Return what Event Information says (table J.3.3-1)."""
    failed = _references(event, "FailedSOPSequence")
    reasons = [int(item.get("FailureReason") or Reason.PROCESSING_FAILURE) for item in event.get("FailedSOPSequence") or ()]
    return Result(
        str(event.get("TransactionUID", "")),
        _references(event, "ReferencedSOPSequence"),
        tuple(zip(failed, reasons, strict=True)),
    )


def _event(result: Result) -> tuple[int, Dataset]:
    """Event Type ID and Event Information."""
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
    """Asks one peer to commit what it was sent, or tells it what this node commits."""

    def __init__(self, peer: Peer, calling_ae_title: str, linger: float = LINGER) -> None:
        super().__init__(peer, calling_ae_title)
        self._linger = linger

    def ask(self, transaction_uid: str, references: Sequence[Reference], received: Callable[[Result], bool]) -> None:
        """Ask by N-ACTION; an answer that comes on the same association is given to ``received``.

        Raises:
            DeliveryError: the question was not taken, and a later try may succeed.
            DeliveryRefused: the peer does no storage commitment for this node.
        """
        answered = threading.Event()

        def report(event: Event) -> tuple[int, None]:
            status = take_report(event, received)
            answered.set()
            return status, None

        action = Dataset()
        action.TransactionUID = transaction_uid
        action.ReferencedSOPSequence = _items(references)
        handlers: list[tuple[Any, Any]] = [(evt.EVT_N_EVENT_REPORT, report)]
        context = build_context(StorageCommitmentPushModel, list(SYNTAXES))
        with self.associate([context], handlers=handlers) as association:
            answer = self._send(
                lambda: association.send_n_action(
                    action, REQUEST_STORAGE_COMMITMENT, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
                )
            )
            status = self.status(answer)
            if status == SUCCESS:
                answered.wait(self._linger)
        if status in REFUSALS:
            raise DeliveryRefused(f"{self.name}: it refuses storage commitment with status 0x{status:04X}: {REFUSALS[status]}")
        if status != SUCCESS:
            raise DeliveryError(f"{self.name}: the commitment request was answered with status 0x{status:04X}")

    def report(self, result: Result) -> None:
        """Tell by N-EVENT-REPORT on an association of our own, in the role of the SCP (PS3.4 J.3.3, PS3.7 D.3.3.4).

        Raises:
            DeliveryError: it was not told, and a later try may succeed.
        """
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        with self.associate([build_context(StorageCommitmentPushModel, list(SYNTAXES))], [role]) as association:
            if not any(context.as_scp for context in association.accepted_contexts):
                raise DeliveryRefused(f"{self.name}: it does not accept this node in the role of the SCP")
            status = self.status(self._send(lambda: send_report(association, result)))
        if status != SUCCESS:
            raise DeliveryError(f"{self.name}: the commitment result was answered with status 0x{status:04X}")

    def _send(self, send: Callable[[], tuple[Dataset, Any]]) -> Dataset:
        try:
            return send()[0]
        except (RuntimeError, ValueError, AttributeError, OSError) as error:
            raise DeliveryError(f"{self.name}: the message could not be sent ({type(error).__name__})") from error


def send_report(association: Association, result: Result) -> tuple[Dataset, Dataset | None]:
    """Send a result on an association that is there; raises what pynetdicom raises when it is not."""
    kind, event = _event(result)
    return association.send_n_event_report(event, kind, StorageCommitmentPushModel, StorageCommitmentPushModelInstance)


def take_report(event: Event, received: Callable[[Result], bool]) -> int:
    """Hand over the result that an N-EVENT-REPORT brings; the status to answer with (PS3.7 10.1.1.1.8).

    ``received`` returns whether it could keep it.
    """
    try:
        result = read_result(event.event_information)
    except Exception:  # noqa: BLE001 - pydicom promises no set of exceptions for bytes that are no data set
        return 0x0110  # processing failure
    if event.event_type not in {ALL_COMMITTED, FAILURES_EXIST}:
        return 0x0113  # no such event type
    return SUCCESS if received(result) else 0x0110
