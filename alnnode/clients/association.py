"""Associations that the node opens to a peer, with or without TLS; the base of every DIMSE service user (SCU)."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from pydicom.uid import UID
from pynetdicom import AE, build_context, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from alnnode import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from alnnode.clients import faults
from alnnode.errors import DeliveryError, DeliveryRefused, DestinationAway, ServiceError
from alnnode.tls import client_context, record_failures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from ssl import SSLContext

    from pydicom import Dataset
    from pynetdicom.association import Association
    from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
    from pynetdicom.presentation import PresentationContext

    from alnnode.settings import ArchiveDicom, ClientTls, DestinationCStore


# Reasons of an A-ASSOCIATE-RJ by the service user (PS3.8 table 9-21) that only a change of settings removes.
REJECTIONS = {
    2: "the peer does not support the DICOM application context",
    3: "the peer does not know this node's AE title; add it there",
    7: "the peer has another AE title; correct its ae_title in the settings",
}
SUCCESS = 0x0000
REJECTED_PERMANENT, SOURCE_SERVICE_USER = 1, 1


class _Tls(NamedTuple):
    """TLS of one association; ``failure`` returns why the handshake failed."""

    context: SSLContext
    server_name: str
    failure: Callable[[], str | None]


class Peer(NamedTuple):
    """The address of a remote application entity; ``timeout`` in seconds limits every wait for it."""

    name: str
    ae_title: str
    host: str
    port: int
    timeout: float
    tls: ClientTls | None = None


def peer_of(settings: DestinationCStore | ArchiveDicom) -> Peer:
    """Return the application entity of a destination of kind "cstore", or of an archive of kind "dicom"."""
    return Peer(settings.name, settings.ae_title, settings.host, settings.port, settings.timeout, settings.tls)


class ServiceUser:
    """Opens associations to one peer."""

    def __init__(self, peer: Peer, calling_ae_title: str) -> None:
        self.peer = peer
        self.name = peer.name
        self._entity = AE(calling_ae_title)
        self._entity.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
        self._entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        self._entity.connection_timeout = peer.timeout
        self._entity.acse_timeout = peer.timeout
        self._entity.dimse_timeout = peer.timeout
        self._entity.network_timeout = peer.timeout
        self._entity.maximum_pdu_size = 131072

    def status(self, response: Dataset) -> int:
        """Return the status of a DIMSE response.

        Raises:
            DeliveryError: the peer sent no response.
        """
        if "Status" not in response:
            raise DeliveryError(f"the association was lost, or no response came within {self.peer.timeout:g} s")
        return int(response.Status)

    def echo(self) -> None:
        """Send a C-ECHO (PS3.4 Annex A).

        Raises:
            DeliveryError: the peer does not respond with success.
        """
        with self.associate([build_context(Verification)]) as association:
            status = self.status(association.send_c_echo())
        if status != SUCCESS:
            raise DeliveryError(f"the response to C-ECHO has status 0x{status:04X}")

    @contextmanager
    def associate(
        self,
        contexts: list[PresentationContext],
        roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
        handlers: Sequence[tuple[Any, Any]] = (),
    ) -> Iterator[Association]:
        """Open an association; release it at the end of the ``with`` block, or abort it after an unexpected error.

        Args:
            contexts: presentation contexts to propose.
            roles: role selections (PS3.7 D.3.3.4).
            handlers: events of pynetdicom with their handlers.

        Raises:
            DestinationAway: the peer does not respond, or accepts no association now.
            DeliveryRefused: the peer rejects one of the two AE titles, or every presentation context.
        """
        peer = self.peer
        tls = self._tls()
        unknown = faults.resolve_words(peer.host, peer.port)
        if unknown is not None:
            raise DestinationAway(unknown)
        connected: list[evt.Event] = []
        association = self._entity.associate(
            peer.host,
            peer.port,
            contexts,
            ae_title=peer.ae_title,
            ext_neg=list(roles),
            evt_handlers=[(evt.EVT_CONN_OPEN, self._connected), (evt.EVT_CONN_OPEN, connected.append), *handlers],
            tls_args=tls and (tls.context, tls.server_name),
        )
        if not association.is_established:
            raise self._not_established(association, tls and tls.failure(), connected=bool(connected))
        try:
            yield association
        except DeliveryError:
            if association.is_established:
                association.release()
            raise
        except BaseException:
            association.abort()
            raise
        else:
            association.release()

    def _tls(self) -> _Tls | None:
        """Read the certificates for each association again, so that a renewed certificate needs no restart."""
        settings = self.peer.tls
        if settings is None:
            return None
        try:
            context = client_context(settings)
        except ServiceError as error:
            raise DeliveryError(f"{error}") from error
        return _Tls(context, settings.server_name or self.peer.host, record_failures(context))

    def _connected(self, event: evt.Event) -> None:
        """Set two options that pynetdicom does not: Nagle's algorithm delays each object by 40 ms, and a read has no timeout."""
        transport = event.assoc.dul.socket
        if transport is not None and transport.socket is not None:
            transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport.socket.settimeout(self.peer.timeout)

    def _not_established(self, association: Association, tls_failure: str | None, *, connected: bool) -> DeliveryError:
        where = f"{self.peer.host}:{self.peer.port}"
        if association.is_rejected:
            response = association.acceptor.primitive
            source, reason = getattr(response, "result_source", None), getattr(response, "diagnostic", None)
            if (
                getattr(response, "result", None) == REJECTED_PERMANENT
                and source == SOURCE_SERVICE_USER
                and reason in REJECTIONS
            ):
                return DeliveryRefused(f"{where} rejects the association: {REJECTIONS[reason]}")
            return DestinationAway(
                f"{where} rejects the association for now (source {source}, reason {reason}): read the log of the peer"
            )
        if association.rejected_contexts:
            return DeliveryRefused(
                f"{where} accepts none of the proposed presentation contexts: enable the SOP Classes of the results at the peer"
            )
        if tls_failure is not None:
            return DestinationAway(
                f"no TLS connection with {where} ({tls_failure}): check tls ca and the certificates of both, and that the peer uses TLS"
            )
        unreachable = None if connected else faults.probe_words(self.peer.host, self.peer.port, self.peer.timeout)
        return DestinationAway(unreachable or f"{where} does not answer the association request: {faults.NO_DICOM}")
