"""What every DIMSE service user of the node shares: one association to a peer, with or without TLS, and why it did not come about."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from pydicom.uid import UID
from pynetdicom import AE, build_context, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from alnnode import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from alnnode.errors import DeliveryError, DeliveryRefused, DestinationAway, ServiceError
from alnnode.tls import client_context, remembering

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from ssl import SSLContext

    from pydicom import Dataset
    from pynetdicom.association import Association
    from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
    from pynetdicom.presentation import PresentationContext

    from alnnode.settings import ClientTls

# A-ASSOCIATE-RJ by the service user, PS3.8 table 9-21: reasons that only a change of settings mends.
REJECTIONS = {
    2: "it does not know the DICOM application context",
    3: "it does not know this node's AE title; add it there",
    7: "it has another AE title; correct its ae_title in the settings",
}
SUCCESS = 0x0000
REJECTED_PERMANENT, SOURCE_SERVICE_USER = 1, 1


class _Tls(NamedTuple):
    context: SSLContext
    server_name: str
    reason: Callable[[], str | None]


class Peer(NamedTuple):
    """Where an application entity listens; ``timeout`` (s) bounds every wait for it."""

    name: str
    ae_title: str
    host: str
    port: int
    timeout: float
    tls: ClientTls | None = None


class ServiceUser:
    """Makes associations to one peer."""

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

    def status(self, answer: Dataset) -> int:
        """Status of a DIMSE response.

        Raises:
            DeliveryError: there was none.
        """
        if "Status" not in answer:
            raise DeliveryError(f"{self.name}: the association broke off, or no answer came within {self.peer.timeout:g} s")
        return int(answer.Status)

    def echo(self) -> None:
        """C-ECHO (PS3.4 Annex A).

        Raises:
            DeliveryError: it is not answered with success.
        """
        with self.associate([build_context(Verification)]) as association:
            status = self.status(association.send_c_echo())
        if status != SUCCESS:
            raise DeliveryError(f"{self.name}: C-ECHO answered with status 0x{status:04X}")

    @contextmanager
    def associate(
        self,
        contexts: list[PresentationContext],
        roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
        handlers: Sequence[tuple[Any, Any]] = (),
    ) -> Iterator[Association]:
        """Associate, and release or abort at the end.

        Args:
            contexts: what is proposed.
            roles: role selections (PS3.7 D.3.3.4).
            handlers: events of pynetdicom with what answers them.

        Raises:
            DestinationAway: nobody answers, or it takes no association now.
            DeliveryRefused: it knows one of the two titles not, or none of the contexts.
        """
        peer = self.peer
        tls = self._tls()
        association = self._entity.associate(
            peer.host,
            peer.port,
            contexts,
            ae_title=peer.ae_title,
            ext_neg=list(roles),
            evt_handlers=[(evt.EVT_CONN_OPEN, self._opened), *handlers],
            tls_args=tls and (tls.context, tls.server_name),
        )
        if not association.is_established:
            raise self._not_established(association, tls and tls.reason())
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
        """Read the certificates anew for each association, so that renewed ones need no restart."""
        settings = self.peer.tls
        if settings is None:
            return None
        try:
            context = client_context(settings)
        except ServiceError as error:
            raise DeliveryError(f"{self.name}: {error}") from error
        return _Tls(context, settings.server_name or self.peer.host, remembering(context))

    def _opened(self, event: evt.Event) -> None:
        """Set what pynetdicom leaves open: Nagle's algorithm would cost 40 ms an object, and its reads would wait for ever."""
        transport = event.assoc.dul.socket
        if transport is not None and transport.socket is not None:
            transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport.socket.settimeout(self.peer.timeout)

    def _not_established(self, association: Association, tls_failure: str | None) -> DeliveryError:
        where = f"{self.peer.host}:{self.peer.port}"
        if association.is_rejected:
            answer = association.acceptor.primitive
            source, reason = getattr(answer, "result_source", None), getattr(answer, "diagnostic", None)
            if getattr(answer, "result", None) == REJECTED_PERMANENT and source == SOURCE_SERVICE_USER and reason in REJECTIONS:
                return DeliveryRefused(f"{self.name}: {where} rejects the association: {REJECTIONS[reason]}")
            return DestinationAway(f"{self.name}: {where} rejects the association (source {source}, reason {reason})")
        if association.rejected_contexts:
            return DeliveryRefused(f"{self.name}: {where} accepts none of the proposed presentation contexts")
        if tls_failure is not None:
            return DestinationAway(f"{self.name}: no TLS connection with {where}: {tls_failure}")
        return DestinationAway(f"{self.name}: no association with {where}")
