"""Run the DICOM listener: Verification, Storage and Storage Commitment SCP, one of several processes that share a port.

Its start imports neither torch nor highdicom; `tests/unit/cli/test_cli.py` checks this.
"""

from __future__ import annotations

import signal
import socket
import threading
from typing import TYPE_CHECKING

import structlog

from alnnode import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from alnnode.audit.trail import Trail
from alnnode.db import engine as engines
from alnnode.deliver.commitments import Commitments
from alnnode.errors import ServiceError
from alnnode.process.supervised import DRAIN
from alnnode.receive import recorder
from alnnode.receive.acceptor import Acceptor
from alnnode.receive.association_events import AssociationEvents, Services
from alnnode.receive.association_server import AssociationServer, ListenerEntity, ServerOptions
from alnnode.receive.auditing import AssociationAuditor
from alnnode.receive.commitment_requests import CommitmentRequests
from alnnode.receive.commitment_scp import CommitmentProvider
from alnnode.receive.connection_limits import WITHOUT_ASSOCIATION, ConnectionLimiter, ConnectionLimits
from alnnode.receive.library_logging import silence_libraries
from alnnode.receive.presentation_contexts import supported_contexts
from alnnode.receive.received_series import ReceivedSeries
from alnnode.receive.rejected_associations import RejectedAssociations
from alnnode.receive.spill import SpillFolder
from alnnode.spool.opening import open_spool
from alnnode.tls import ReloadingServerContext

if TYPE_CHECKING:
    from collections.abc import Callable

    from alnnode.settings import Settings
    from alnnode.spool.spool import Spool

MAX_PDU = 131072  # bytes, received; larger PDUs save nothing and occupy more memory

log = structlog.get_logger()

GRACE = 3.0  # seconds that associations have to end when the listener stops
DRAIN_POLL = 0.1  # seconds
ABORT_GRACE = 1.0  # seconds that peers then have to close their connections


def run_listener(settings: Settings, ready: Callable[[int], None], stop: threading.Event | None = None) -> None:
    """Listen until ``stop`` is set; then give associations a few seconds to end, and record the stored objects.

    Args:
        settings: of the node.
        ready: called with the port when the listener accepts connections.
        stop: None to listen until SIGTERM or SIGINT.

    Raises:
        ServiceError: the address cannot be used.
    """
    signals = _Signals() if stop is None else None
    engine = engines.create(settings.database_url)
    received, spool = ReceivedSeries(engine), open_spool(settings)
    replayed = 0
    try:
        replayed = recorder.replay(received, spool)
    except OSError as error:  # a storage that does not give an object now: the sweep tries again, and new objects are received
        log.warning("journal_not_replayed", error=type(error).__name__, errno=error.errno)
    if replayed:
        log.info("journal_replayed", objects=replayed)
    acceptor, trail = Acceptor(settings, received, spool), Trail(settings)
    commitment, rejections = CommitmentProvider(settings, CommitmentRequests(engine), spool), RejectedAssociations(engine)
    commitment.start()
    try:
        auditor = AssociationAuditor(settings, trail, spool)
        server = _listen(settings, Services(acceptor, auditor, commitment, Commitments(engine), rejections), spool)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="accept")
        thread.start()
        received_signal = None
        try:
            log.info("listening", port=settings.listener.port)
            ready(settings.listener.port)
            received_signal = signals.wait() if signals is not None else None
            if stop is not None:
                stop.wait()
        finally:
            server.shutdown()
            thread.join()
            if signals is not None and received_signal == DRAIN:
                _drain(server, signals)
            _end_associations(server)
    finally:
        commitment.close()
        acceptor.close()
        rejections.close()
        trail.close()
        engine.dispose()
    log.info("listener_stopped")


def _listen(settings: Settings, services: Services, spool: Spool) -> AssociationServer:
    listener = settings.listener

    def refused(address: str, reason: str) -> None:
        services.auditor.refused_peer(address, reason)
        services.rejections.refused_peer(address, reason)

    limits = ConnectionLimits(
        listener.max_associations + WITHOUT_ASSOCIATION, listener.max_peer_connections, settings.internal.connection_rate
    )
    try:
        options = ServerOptions(
            AssociationEvents(settings, services).handlers,
            ConnectionLimiter(listener.addresses, limits, refused),
            SpillFolder(spool.root / "incoming", listener.max_object_mb << 20, services.acceptor.check_room),
            ReloadingServerContext(listener.tls) if listener.tls else None,
            refused,
            services.rejections.note,
        )
        return AssociationServer(_entity(settings), (listener.host, listener.port), supported_contexts(), options)
    except OSError as error:
        raise ServiceError(f"cannot listen on {listener.host}, port {listener.port}: {error.strerror}") from error


def _entity(settings: Settings) -> ListenerEntity:
    silence_libraries()
    listener = settings.listener
    entity = ListenerEntity(settings.node.ae_title)
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


def _drain(server: AssociationServer, signals: _Signals) -> None:
    """Serve the present connections to their end, or until another signal; a successor accepts the new ones."""
    log.info("listener_drains", connections=server.options.limiter.connections)
    while server.options.limiter.connections and signals.wait(DRAIN_POLL) is None:
        pass


def _end_associations(server: AssociationServer) -> None:
    """Wait for the end of associations, then abort the others, all at the same time."""
    if _is_idle_within(server, GRACE):
        return
    for association in server.active_associations:
        association.abort(block=False)
    _is_idle_within(server, ABORT_GRACE)


def _is_idle_within(server: AssociationServer, seconds: float) -> bool:
    """Wait at most ``seconds``; return whether no association is left."""
    limit = threading.Event()
    for _ in range(int(seconds / 0.05)):
        if not server.active_associations:
            return True
        limit.wait(0.05)
    return not server.active_associations


class _Signals:
    """Waits for SIGTERM, SIGINT and `DRAIN`.

    The kernel may deliver a signal to any thread, and a main thread that waits for a lock does not wake up to run its handler. The
    interpreter writes one byte for each signal, whichever thread gets it; reading that byte wakes the main thread.
    """

    def __init__(self) -> None:
        self._received, written = socket.socketpair()
        written.setblocking(False)
        signal.set_wakeup_fd(written.detach())
        for number in (signal.SIGTERM, signal.SIGINT, DRAIN):
            signal.signal(number, lambda *_: None)

    def wait(self, seconds: float | None = None) -> int | None:
        """Return the number of the next signal; None after ``seconds`` without one."""
        self._received.settimeout(seconds)
        try:
            return self._received.recv(1)[0]
        except TimeoutError:
            return None
