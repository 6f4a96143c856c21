"""The server that accepts connections on the listener's port, and starts an association for each.

pynetdicom 3.0.4 leaves Nagle's algorithm on, and counts associations that are over. The classes override private parts of
pynetdicom; `tests/unit/receive/test_transport.py` fails when a new version changes them.
"""

from __future__ import annotations

import gc
import socket
import sys
import threading
import time
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from pynetdicom import AE, evt
from pynetdicom.transport import AddressInformation, RequestHandler, ThreadedAssociationServer

from alnnode.audit.repeated_events import LineBudget
from alnnode.errors import TlsRefused
from alnnode.process.inherited_socket import BACKLOG, LISTENER_FD, inherited
from alnnode.receive.accepted_association import ABORT, AcceptedAssociation
from alnnode.receive.connection_limits import ignore_refusal
from alnnode.receive.pdu_socket import PDU_HEAD, SILENCE, PduSocket
from alnnode.receive.rejected_associations import MAX_LINES, QUIET
from alnnode.receive.rejections import Rejection, RejectionKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pynetdicom.association import Association
    from pynetdicom.presentation import PresentationContext

    from alnnode.receive.connection_limits import ConnectionLimiter
    from alnnode.receive.spill import SpillFolder
    from alnnode.tls import ReloadingServerContext

log = structlog.get_logger()

COLLECTION_INTERVAL = 10.0  # seconds
_DISCARDED = 65536  # bytes
_HOLDS_A_PLACE = frozenset({"Sta3", "Sta6"})  # requested and not yet accepted; established (PS3.8 9.2)
# A PDU above the negotiated maximum by more than this is not DICOM, and is not read into memory.
PDU_MARGIN = 1 << 20
_REQUEST, _TLS_HANDSHAKE = 0x01, 0x16  # first byte of an A-ASSOCIATE-RQ PDU (PS3.8 9.3.2), and of TLS (RFC 8446 5.1)


class _ConnectionHandler(RequestHandler):
    """Makes the association of a connection, as pynetdicom's handler does with other classes."""

    server: AssociationServer

    def handle(self) -> None:
        """Start the association when the peer's first bytes can be a request; until then, a connection costs only one thread."""
        started = False
        try:
            if self._peer_speaks():
                super().handle()
                started = True
        finally:
            if not started:
                self.server.options.limiter.release(self.client_address[0])

    def _peer_speaks(self) -> bool:
        """Wait for the peer's first bytes, or make the TLS handshake; return False when neither comes in time, or no request."""
        seconds = self.ae.acse_timeout or SILENCE
        options = self.server.options
        if options.tls is None:
            self.request.settimeout(seconds)
            try:
                speaks = self._requests(self.request.recv(PDU_HEAD, socket.MSG_PEEK))
            except OSError:
                return False
        else:
            try:
                self.request = options.tls.accept(self.request, seconds)
            except TlsRefused as error:
                if self.server.tls_lines.take():
                    log.warning("tls_refused", address=self.client_address[0], reason=str(error))
                options.refused(self.client_address[0], f"TLS: {error}")
                return False
            speaks = True
        self.request.settimeout(self.ae.network_timeout)
        return speaks

    def _requests(self, head: bytes) -> bool:
        """Return whether a connection that begins with these bytes can be an association request; if not, answer and note it."""
        if not head:
            return False
        fault = first_fault(head, self.ae.maximum_pdu_size + PDU_MARGIN)
        if not fault:
            return True
        self.server.options.rejected(Rejection(RejectionKind.PROTOCOL, address=self.client_address[0], detail=fault))
        # What is unread at the end of a connection makes it a reset, which can overtake the answer.
        self.request.recv(_DISCARDED)
        self.request.send(ABORT)  # action AA-1 of PS3.8 9.2
        return False

    def _create_association(self) -> Association:
        address, options = self.client_address[0], self.server.options
        association = AcceptedAssociation(self.ae, options.spill, lambda: options.limiter.release(address))
        association._server = self.server  # noqa: SLF001 - as RequestHandler does
        association.name = f"AcceptorThread-{self.client_address[1]}"  # pynetdicom finds its acceptors by this name
        limit = self.ae.maximum_pdu_size + PDU_MARGIN
        association.set_socket(PduSocket(association, self.request, limit))
        acceptor = association.acceptor
        acceptor.maximum_length = self.ae.maximum_pdu_size
        acceptor.ae_title = self.server.ae_title
        acceptor.address_info = self.local
        acceptor.implementation_class_uid = self.ae.implementation_class_uid
        acceptor.implementation_version_name = self.ae.implementation_version_name
        acceptor.supported_contexts = deepcopy(self.server.contexts)
        association.requestor.address_info = AddressInformation.from_tuple(self.client_address)
        for event, handlers in options.handlers:
            association.bind(event, handlers)
        association.bind(evt.EVT_DIMSE_RECV, lambda event: event.assoc.dimse.examine(event.message))
        return association


def first_fault(head: bytes, limit: int) -> str:
    """Return why a connection that begins with ``head`` (1 to 6 bytes) is no association request of at most ``limit`` bytes; or ""."""
    if head[0] == _TLS_HANDSHAKE:
        return "TLS on a port without TLS"
    if head[0] != _REQUEST:
        return "the first PDU is no association request"
    if len(head) == PDU_HEAD and int.from_bytes(head[2:]) > limit:
        return "the association request is too long"
    return ""


class ListenerEntity(AE):
    """An application entity that counts an association against `maximum_associations` from its request until the peer ends it.

    pynetdicom counts threads: also those of connections that have not requested anything, and of associations that are over and wait
    for the peer to close the connection. At exactly the maximum, a peer that released and associated again was rejected.
    """

    @property
    def active_associations(self) -> list[Association]:
        """The associations that hold a place, and the one whose thread asks, because it can be ahead of its state.

        The state leaves `_HOLDS_A_PLACE` before the response to a release is sent, so that no peer is faster.
        """
        asking = threading.current_thread()
        return [
            one for one in super().active_associations if one is asking or one.dul.state_machine.current_state in _HOLDS_A_PLACE
        ]


def ignore_rejection(_rejection: Rejection) -> None:
    """Do nothing about a rejected association."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What every association of a server shares.

    Attributes:
        handlers: events of pynetdicom with their handlers.
        limiter: admits connections.
        spill: takes large objects while they arrive.
        tls: makes the handshakes; None for connections without TLS.
        refused: called with address and reason when a TLS handshake fails.
        rejected: called when a connection begins with anything else than an association request.
    """

    handlers: Sequence[tuple[Any, Any]]
    limiter: ConnectionLimiter
    spill: SpillFolder
    tls: ReloadingServerContext | None = None
    refused: Callable[[str, str], None] = ignore_refusal
    rejected: Callable[[Rejection], None] = ignore_rejection


class AssociationServer(ThreadedAssociationServer):
    """Listens on a port that other processes of the node share; the kernel distributes the connections."""

    daemon_threads = True
    request_queue_size = BACKLOG

    def __init__(
        self, ae: AE, address: tuple[str, int], contexts: Sequence[PresentationContext], options: ServerOptions
    ) -> None:
        self.options, self.tls_lines = options, LineBudget(MAX_LINES, QUIET)
        self._collected_at = time.monotonic()
        super().__init__(ae, address, ae.ae_title, list(contexts), request_handler=_ConnectionHandler)
        ae._servers.append(self)  # noqa: SLF001 - AE.shutdown and AssociationServer.shutdown expect it there

    def server_bind(self) -> None:
        """Share the port: by the socket of the supervisor, if there is one, or else by SO_REUSEPORT."""
        assert self.socket is not None  # socketserver creates the socket before it binds it
        shared = inherited(LISTENER_FD)
        if shared is not None:
            self.socket.close()
            self.socket = shared
            self.server_address = shared.getsockname()
            return
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()

    def service_actions(self) -> None:
        """Collect the garbage of associations that ended, which refer to themselves.

        pynetdicom does so after every 60 connections: a flood of connections then takes most of the time of the process.
        """
        if time.monotonic() - self._collected_at >= COLLECTION_INTERVAL:
            gc.collect()
            self._collected_at = time.monotonic()

    def server_close(self) -> None:
        """Close the socket without ``shutdown``, which would end it for every process that shares it."""
        assert self.socket is not None
        self.socket.close()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; responses are small, and must not wait for the peer's acknowledgement."""
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.ae.network_timeout is not None:
            connection.settimeout(self.ae.network_timeout)
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 - the signature is socketserver's
        """Return whether the peer may connect."""
        return self.options.limiter.admit(client_address[0])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start the connection's thread."""
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread can be started
            self.options.limiter.release(client_address[0])
            raise

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the signature is socketserver's
        """Log that a connection failed, without the traceback that socketserver prints."""
        log.error("connection_failed", address=client_address[0], error=type(sys.exception()).__name__)
