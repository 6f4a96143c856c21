"""C-STORE SCU (PS3.4 Annex B): one association per batch, the files' data sets sent byte for byte."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from pydicom.uid import UID
from pynetdicom import AE, _config, build_context, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from alnnode import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from alnnode.errors import DeliveryError, DeliveryRefused, DestinationAway, ServiceError
from alnnode.send.destination import Failures
from alnnode.tls import client_context, remembering

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from ssl import SSLContext

    from pydicom import Dataset
    from pynetdicom.association import Association
    from pynetdicom.presentation import PresentationContext

    from alnnode.send.destination import StoredObject
    from alnnode.settings import Destination as DestinationSettings

# pynetdicom then sends a file's data set as it lies on the disk; otherwise it decodes and encodes it again.
_config.STORE_SEND_CHUNKED_DATASET = True

SUCCESS, DUPLICATE_INSTANCE = 0x0000, 0x0111
# PS3.7 Annex C and PS3.4 B.2.3: what waiting does not mend. Everything else (out of resources, processing failure, and
# "cannot understand", which many PACS also answer for their own passing faults) is tried again.
REFUSALS = {
    0x0106: "invalid attribute value",
    0x0112: "no such SOP instance",
    0x0117: "invalid SOP instance UID",
    0x0118: "no such SOP class",
    0x0119: "class-instance conflict",
    0x0120: "missing attribute",
    0x0121: "missing attribute value",
    0x0122: "SOP class not supported",
    0x0124: "not authorised",
    0x0211: "unrecognised operation",
    0x0212: "mistyped argument",
}
# A-ASSOCIATE-RJ by the service user, PS3.8 table 9-21: reasons that only a change of settings mends.
REJECTIONS = {
    2: "it does not know the DICOM application context",
    3: "it does not know this node's AE title; add it there",
    7: "it has another AE title; correct [[destinations]] ae_title",
}
REJECTED_PERMANENT, SOURCE_SERVICE_USER = 1, 1


class _Tls(NamedTuple):
    context: SSLContext
    server_name: str
    reason: Callable[[], str | None]


class CStoreDestination:
    """A Storage SCP."""

    def __init__(self, settings: DestinationSettings, calling_ae_title: str) -> None:
        self.name = settings.name
        self._settings = settings
        self._entity = AE(calling_ae_title)
        self._entity.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
        self._entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        self._entity.connection_timeout = settings.timeout
        self._entity.acse_timeout = settings.timeout
        self._entity.dimse_timeout = settings.timeout
        self._entity.network_timeout = settings.timeout
        self._entity.maximum_pdu_size = 131072

    def echo(self) -> None:
        """C-ECHO (PS3.4 Annex A); raises as `Destination.echo` says."""
        with self._associate([build_context(Verification)]) as association:
            if not association.accepted_contexts:
                raise DeliveryRefused(f"{self.name}: it does not take C-ECHO")
            status = self._status(association.send_c_echo())
        if status != SUCCESS:
            raise DeliveryError(f"{self.name}: C-ECHO answered with status 0x{status:04X}")

    def send(self, objects: Sequence[StoredObject]) -> None:
        """C-STORE every object on one association; raises as `Destination.send` says."""
        pairs = sorted({(item.sop_class_uid, item.transfer_syntax_uid) for item in objects})
        if not pairs:
            return
        failures = Failures(self.name)
        with self._associate([build_context(*pair) for pair in pairs]) as association:
            accepted = {(cx.abstract_syntax, cx.transfer_syntax[0]) for cx in association.accepted_contexts}
            for item in objects:
                if (item.sop_class_uid, item.transfer_syntax_uid) not in accepted:
                    failures.refused.append(
                        f"takes no SOP class {item.sop_class_uid} in transfer syntax {item.transfer_syntax_uid}"
                    )
                    continue
                self._judge(self._store(association, item), failures)
        failures.conclude()

    def _store(self, association: Association, item: StoredObject) -> int:
        try:
            answer = association.send_c_store(item.path)
        except (RuntimeError, ValueError, AttributeError, OSError) as error:
            # A lost association, or an outbox file that is gone: the class name says which; the text may hold a path.
            raise DeliveryError(f"{self.name}: an object could not be sent ({type(error).__name__})") from error
        return self._status(answer)

    def _status(self, answer: Dataset) -> int:
        if "Status" not in answer:
            raise DeliveryError(
                f"{self.name}: the association broke off, or no answer came within {self._settings.timeout:g} s"
            )
        return int(answer.Status)

    def _judge(self, status: int, failures: Failures) -> None:
        """Warnings (PS3.7 Annex C: 0001, Bxxx, 0107, 0116) mean that the object was stored.

        Raises:
            DeliveryError: the destination is out of resources: the rest of the batch would fare no better.
        """
        if status in {SUCCESS, DUPLICATE_INSTANCE, 0x0001, 0x0107, 0x0116} or status >> 12 == 0xB:
            return
        if status >> 8 == 0xA9 or status in REFUSALS:
            reason = REFUSALS.get(status, "data set does not match SOP class")
            failures.refused.append(f"refused an object with status 0x{status:04X}: {reason}")
        elif status >> 8 == 0xA7:
            failures.later.append(f"out of resources (status 0x{status:04X})")
            failures.conclude()
        else:
            failures.later.append(f"answered with status 0x{status:04X}")

    @contextmanager
    def _associate(self, contexts: list[PresentationContext]) -> Iterator[Association]:
        settings = self._settings
        tls = self._tls()
        association = self._entity.associate(
            settings.host or "",
            settings.port or 0,
            contexts,
            ae_title=settings.ae_title or "",
            evt_handlers=[(evt.EVT_CONN_OPEN, self._opened)],
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
        settings = self._settings.tls
        if settings is None:
            return None
        try:
            context = client_context(settings)
        except ServiceError as error:
            raise DeliveryError(f"{self.name}: {error}") from error
        return _Tls(context, settings.server_name or self._settings.host or "", remembering(context))

    def _opened(self, event: evt.Event) -> None:
        """Set what pynetdicom leaves open: Nagle's algorithm would cost 40 ms an object, and its reads would wait for ever."""
        transport = event.assoc.dul.socket
        if transport is not None and transport.socket is not None:
            transport.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport.socket.settimeout(self._settings.timeout)

    def _not_established(self, association: Association, tls_failure: str | None) -> DeliveryError:
        where = f"{self._settings.host}:{self._settings.port}"
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
