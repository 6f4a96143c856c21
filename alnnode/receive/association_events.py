"""Handle the events of the listener's associations: requests, objects, storage commitment, and the end of an association."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from pydicom.dataset import Dataset
from pynetdicom import evt

from alnnode.clients.commitment_scu import receive_report
from alnnode.deliver import commitment_answers
from alnnode.errors import RejectedObject
from alnnode.receive.accepted_association import command_fault
from alnnode.receive.acceptor import StoreRequest
from alnnode.receive.dimse_status import Status
from alnnode.receive.rejections import association_rejection, contexts_rejection
from alnnode.receive.spill import SpilledDataSet
from alnnode.receive.user_identity import UserIdentities

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from io import BytesIO

    from pynetdicom.association import Association
    from pynetdicom.events import Event

    from alnnode.deliver.commitments import Commitments
    from alnnode.receive.acceptor import Acceptor
    from alnnode.receive.auditing import AssociationAuditor
    from alnnode.receive.commitment_scp import CommitmentProvider
    from alnnode.receive.rejected_associations import RejectedAssociations
    from alnnode.settings import Settings

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Services:
    """What the events of associations are given to.

    Attributes:
        acceptor: stores objects.
        auditor: writes audit messages.
        commitment: Storage Commitment SCP.
        commitments: of results, which destinations report.
        rejections: logs and lists associations that are not served.
    """

    acceptor: Acceptor
    auditor: AssociationAuditor
    commitment: CommitmentProvider
    commitments: Commitments
    rejections: RejectedAssociations


class AssociationEvents:
    """The handlers of a listening process."""

    def __init__(self, settings: Settings, services: Services) -> None:
        self._services = services
        self._called = frozenset(settings.called_ae_titles)
        self._identities = UserIdentities(settings.listener.users)
        self._series: dict[Association, set[str]] = {}

    @property
    def handlers(self) -> list[tuple[object, object]]:
        """Events of pynetdicom with their handlers."""
        return [
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_REJECTED, self._rejected),
            (evt.EVT_ACCEPTED, self._accepted),
            (evt.EVT_USER_ID, self._identities.check),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_N_ACTION, self._action),
            (evt.EVT_N_EVENT_REPORT, self._report),
            (evt.EVT_RELEASED, self._released),
            (evt.EVT_CONN_CLOSE, self._closed),
            (evt.EVT_ABORTED, self._closed),
        ]

    def _requested(self, event: Event) -> None:
        # pynetdicom has one AE title for each server, and rejects all others: the association gets the title that the peer called.
        primitive = event.assoc.requestor.primitive
        if primitive is not None and primitive.called_ae_title in self._called:
            event.assoc.acceptor.ae_title = primitive.called_ae_title
        self._identities.require(event)

    def _rejected(self, event: Event) -> None:
        self._services.auditor.rejected(event.assoc)
        self._services.rejections.note(association_rejection(event.assoc))

    def _accepted(self, event: Event) -> None:
        rejection = contexts_rejection(event.assoc)
        if rejection is not None:
            self._services.rejections.note(rejection)

    def _store(self, event: Event) -> Dataset:
        try:
            status, comment = self._stored(event)
        finally:
            data_set = getattr(event.request, "DataSet", None)
            if isinstance(data_set, SpilledDataSet):
                data_set.close()
        response = Dataset()
        response.Status = int(status)
        if comment:
            self._services.auditor.refused(event.assoc)
            log.warning(
                "object_refused", status=f"0x{status:04X}", reason=comment, calling_ae_title=event.assoc.requestor.ae_title
            )
            response.ErrorComment = comment
        return response

    def _stored(self, event: Event) -> tuple[int, str]:
        """Store the object of a C-STORE request; return status and Error Comment."""
        request: Any = event.request
        fault = command_fault(event.assoc, int(request.MessageID))
        if fault is not None:
            return fault
        stated = StoreRequest(
            str(event.context.transfer_syntax),
            str(event.assoc.requestor.ae_title),
            str(request.AffectedSOPClassUID),
            str(request.AffectedSOPInstanceUID),
        )
        try:
            with _bytes(request.DataSet) as data:
                row = self._services.acceptor.store(data, stated)
        except RejectedObject as error:
            return error.status, error.comment
        self._series.setdefault(event.assoc, set()).add(row.series_uid)
        self._services.auditor.stored(event.assoc, row)
        return Status.SUCCESS, ""

    def _action(self, event: Event) -> tuple[int, None]:
        return self._services.commitment.receive(event), None

    def _report(self, event: Event) -> tuple[int, None]:
        """Receive the storage commitment result of a destination (PS3.4 J.3.3)."""
        commitments = self._services.commitments
        return receive_report(event, lambda result: commitment_answers.record_answer(result, commitments)), None

    def _released(self, event: Event) -> None:
        self._services.acceptor.released(self._series.pop(event.assoc, ()))
        self._services.auditor.ended(event.assoc)

    def _closed(self, event: Event) -> None:
        # After an abort or a lost connection the sender will retry, so that the grace after a release must not start.
        if not event.assoc.is_released:
            self._series.pop(event.assoc, None)
            self._services.auditor.ended(event.assoc)


def _bytes(data_set: BytesIO | None) -> AbstractContextManager[bytes | memoryview]:
    if isinstance(data_set, SpilledDataSet):
        return data_set.view()
    return nullcontext(b"" if data_set is None else data_set.getvalue())
