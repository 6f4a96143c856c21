"""The DICOM listener: Verification and Storage SCP, one process of several that share a port.

Start-up imports neither torch nor highdicom; `tests/unit/test_ingest_scp.py` says so.
"""

from __future__ import annotations

import logging
import signal
import socket
import threading
import warnings
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import structlog
from pydicom.config import IGNORE
from pydicom.config import settings as pydicom_settings
from pydicom.dataset import Dataset
from pynetdicom import _config, evt
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification  # type: ignore[attr-defined]  # generated at import

from alnnode import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from alnnode.analyse.jobs import Jobs
from alnnode.audit.trail import Trail
from alnnode.clients import commitment_scu
from alnnode.db import engine as engines
from alnnode.deliver import commitment_answers
from alnnode.deliver.commitments import Commitments
from alnnode.errors import RejectedObject, ServiceError
from alnnode.receive import recorder
from alnnode.receive.acceptor import Acceptor
from alnnode.receive.auditing import Witness
from alnnode.receive.commitment_requests import Requests
from alnnode.receive.commitment_scp import Committer
from alnnode.receive.connection_limits import WAITING, Gate, Limits
from alnnode.receive.dimse_status import Status
from alnnode.receive.presentation_contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES
from alnnode.receive.spill import Keeping, Spilled
from alnnode.receive.transport import Entity, Server, fault_of
from alnnode.receive.user_identity import Identities
from alnnode.spool.spool import Spool
from alnnode.tls import Reloading

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from io import BytesIO

    from pynetdicom.association import Association
    from pynetdicom.events import Event
    from pynetdicom.presentation import PresentationContext

    from alnnode.settings import Settings

log = structlog.get_logger()

GRACE = 3.0  # seconds that associations get to end when the listener is told to stop
MAX_PDU = 131072  # bytes, received; larger PDUs save nothing and occupy more memory
ABORT_GRACE = 1.0  # seconds that peers then get to close their connections


class Receiver:
    """Answers the events of associations."""

    def __init__(
        self, settings: Settings, acceptor: Acceptor, witness: Witness, committer: Committer, commitments: Commitments
    ) -> None:
        self._acceptor, self._witness, self._committer, self._commitments = acceptor, witness, committer, commitments
        self._called = frozenset(settings.called_ae_titles)
        self._identities = Identities(settings.listener.users)
        self._series: dict[Association, set[str]] = {}

    @property
    def handlers(self) -> list[tuple[object, object]]:
        """Events with what answers them."""
        return [
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_REJECTED, self._rejected),
            (evt.EVT_USER_ID, self._identities.check),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_N_ACTION, self._action),
            (evt.EVT_N_EVENT_REPORT, self._report),
            (evt.EVT_RELEASED, self._released),
            (evt.EVT_CONN_CLOSE, self._closed),
            (evt.EVT_ABORTED, self._closed),
        ]

    def _requested(self, event: Event) -> None:
        # pynetdicom knows one title for each server and rejects all others: this association's is the one that was called.
        primitive = event.assoc.requestor.primitive
        if primitive is not None and primitive.called_ae_title in self._called:
            event.assoc.acceptor.ae_title = primitive.called_ae_title
        self._identities.demand(event)

    def _rejected(self, event: Event) -> None:
        self._witness.rejected(event.assoc)

    def _store(self, event: Event) -> Dataset:
        try:
            status, comment = self._take(event)
        finally:
            data_set = getattr(event.request, "DataSet", None)
            if isinstance(data_set, Spilled):
                data_set.close()
        answer = Dataset()
        answer.Status = int(status)
        if comment:
            self._witness.refused(event.assoc)
            log.warning(
                "object_refused", status=f"0x{status:04X}", reason=comment, calling_ae_title=event.assoc.requestor.ae_title
            )
            answer.ErrorComment = comment
        return answer

    def _take(self, event: Event) -> tuple[int, str]:
        request: Any = event.request
        fault = fault_of(event.assoc, int(request.MessageID))
        if fault is not None:
            return fault
        try:
            with _bytes(request.DataSet) as data:
                row = self._acceptor.take(
                    data,
                    str(event.context.transfer_syntax),
                    str(event.assoc.requestor.ae_title),
                    str(request.AffectedSOPClassUID),
                    str(request.AffectedSOPInstanceUID),
                )
        except RejectedObject as error:
            return error.status, error.comment
        self._series.setdefault(event.assoc, set()).add(row.series_uid)
        self._witness.stored(event.assoc, row)
        return Status.SUCCESS, ""

    def _action(self, event: Event) -> tuple[int, None]:
        return self._committer.take(event), None

    def _report(self, event: Event) -> tuple[int, None]:
        """Take the answer of a destination that was asked to commit results (PS3.4 J.3.3)."""
        return commitment_scu.take_report(event, lambda result: commitment_answers.take(result, self._commitments)), None

    def _released(self, event: Event) -> None:
        self._acceptor.released(self._series.pop(event.assoc, ()))
        self._witness.ended(event.assoc)

    def _closed(self, event: Event) -> None:
        # Aborted or cut off: the sender will come again, so the grace after a release must not start.
        if not event.assoc.is_released:
            self._series.pop(event.assoc, None)
            self._witness.ended(event.assoc)


def _bytes(data_set: BytesIO | None) -> AbstractContextManager[bytes | memoryview]:
    if isinstance(data_set, Spilled):
        return data_set.view()
    return nullcontext(b"" if data_set is None else data_set.getvalue())


def contexts() -> list[PresentationContext]:
    """What the listener negotiates."""
    committing = build_context(StorageCommitmentPushModel, list(commitment_scu.SYNTAXES))
    # Peers are the SCU of their own requests, and the SCP when they answer one of the node's.
    committing.scu_role = committing.scp_role = True
    return [
        build_context(Verification, ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]),
        committing,
        *(build_context(uid, list(TRANSFER_SYNTAXES)) for uid in STORAGE_CLASSES),
    ]


def _application_entity(settings: Settings) -> Entity:
    silence()
    listener = settings.listener
    entity = Entity(settings.node.ae_title)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.maximum_associations = listener.max_associations
    entity.maximum_pdu_size = MAX_PDU
    entity.require_called_aet = bool(settings.called_ae_titles)
    entity.require_calling_aet = list(settings.calling_ae_titles)
    entity.acse_timeout = min(settings.internal.association_timeout, listener.timeout)
    entity.dimse_timeout = listener.timeout
    entity.network_timeout = listener.timeout
    return entity


def silence() -> None:
    """Keep the libraries from saying what came over the network: their warnings quote values, their tracebacks hold bytes of objects."""
    _config.LOG_HANDLER_LEVEL = "none"  # no handlers that format every PDU
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"pydicom\.")
    pydicom_settings.reading_validation_mode = IGNORE


def run_listener(settings: Settings, ready: Callable[[int], None], stop: threading.Event | None = None) -> None:
    """Listen until ``stop`` is set, or SIGTERM or SIGINT comes when it is None; then end associations briefly and record the rest.

    ``ready`` is called with the port when connections are accepted.

    Raises:
        ServiceError: the address cannot be listened on.
    """
    wait = _hear_signals() if stop is None else stop.wait
    engine = engines.create(settings.database_url)
    jobs, spool = Jobs(engine), Spool(settings.node.data_dir / "spool")
    replayed = recorder.replay(jobs, spool)
    if replayed:
        log.info("journal_replayed", objects=replayed)
    acceptor, trail = Acceptor(settings, jobs, spool), Trail(settings)
    committer = Committer(settings, Requests(engine), spool)
    committer.start()
    try:
        witness = Witness(settings, trail, spool)
        keeping = Keeping(spool.root / "incoming", settings.listener.max_object_mb << 20, acceptor.check_room)
        server = _listen(settings, Receiver(settings, acceptor, witness, committer, Commitments(engine)), witness, keeping)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="accept")
        thread.start()
        try:
            log.info("listening", port=settings.listener.port)
            ready(settings.listener.port)
            wait()
        finally:
            _shut_down(server, thread)
    finally:
        committer.close()
        acceptor.close()
        trail.close()
        engine.dispose()
    log.info("listener_stopped")


def _listen(settings: Settings, receiver: Receiver, witness: Witness, keeping: Keeping) -> Server:
    listener = settings.listener
    try:
        return Server(
            _application_entity(settings),
            (listener.host, listener.port),
            contexts(),
            receiver.handlers,
            Gate(
                listener.addresses,
                Limits(listener.max_associations + WAITING, listener.max_peer_connections, settings.internal.connection_rate),
                witness.refused_peer,
            ),
            keeping,
            Reloading(listener.tls) if listener.tls else None,
            witness.refused_peer,
        )
    except OSError as error:
        raise ServiceError(f"cannot listen on {listener.host}, port {listener.port}: {error.strerror}") from error


def _shut_down(server: Server, thread: threading.Thread) -> None:
    """Let associations end, and abort those that do not, all at once."""
    server.shutdown()
    thread.join()
    if _empty(server, GRACE):
        return
    for association in server.active_associations:
        association.abort(block=False)
    _empty(server, ABORT_GRACE)


def _empty(server: Server, seconds: float) -> bool:
    limit = threading.Event()
    for _ in range(int(seconds / 0.05)):
        if not server.active_associations:
            return True
        limit.wait(0.05)
    return not server.active_associations


def _hear_signals() -> Callable[[], object]:
    """Return what waits for SIGTERM or SIGINT.

    The kernel may give a signal to any thread, and a main thread that waits for a lock does not wake to run its handler. What
    wakes, whichever thread it is, is the byte that the interpreter writes for each signal.
    """
    heard, told = socket.socketpair()
    told.setblocking(False)
    signal.set_wakeup_fd(told.detach())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return lambda: heard.recv(1)
