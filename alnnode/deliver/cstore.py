"""C-STORE SCU (PS3.4 Annex B): one association per batch, the files' data sets sent byte for byte.

A peer that takes nothing but the default transfer syntax (PS3.5 10.1) gets the same data set in that, and one that does not take
JPEG-LS the captures uncompressed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom import dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless
from pynetdicom import _config, build_context

from alnnode.clients.association import Peer, ServiceUser
from alnnode.deliver.destination import Failures
from alnnode.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydicom import Dataset
    from pynetdicom.association import Association

    from alnnode.deliver.destination import StoredObject
    from alnnode.settings import ArchiveDicom, DestinationCStore

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


def peer_of(settings: DestinationCStore | ArchiveDicom) -> Peer:
    """Return the application entity that a destination of kind "cstore", or an archive of kind "dicom", is."""
    return Peer(settings.name, settings.ae_title, settings.host, settings.port, settings.timeout, settings.tls)


def fallbacks(transfer_syntax: str) -> tuple[UID, ...]:
    """Return the transfer syntaxes in which the same data set can be sent to a peer that does not take the one it is stored in."""
    if transfer_syntax == ExplicitVRLittleEndian:
        return (ImplicitVRLittleEndian,)
    return (ExplicitVRLittleEndian, ImplicitVRLittleEndian) if transfer_syntax == JPEGLSLossless else ()


def _uncompressed(item: StoredObject) -> Dataset:
    """Return the data set, its pixels decoded: the SOP Instance UID stays, as nothing is lost (PS3.5 8.2.3)."""
    dataset = dcmread(item.path)
    if item.transfer_syntax_uid == JPEGLSLossless:
        dataset.decompress(generate_instance_uid=False)
    return dataset


class CStoreDestination:
    """A Storage SCP."""

    def __init__(self, settings: DestinationCStore, calling_ae_title: str) -> None:
        self.name = settings.name
        self._user = ServiceUser(peer_of(settings), calling_ae_title)

    def echo(self) -> None:
        """C-ECHO (PS3.4 Annex A); raises as `Destination.echo` says."""
        self._user.echo()

    def send(self, objects: Sequence[StoredObject]) -> None:
        """C-STORE every object on one association; raises as `Destination.send` says."""
        pairs = {(item.sop_class_uid, item.transfer_syntax_uid) for item in objects}
        if not pairs:
            return
        default = {(sop_class, syntax) for sop_class, stored in pairs for syntax in fallbacks(stored)}
        failures = Failures(self.name)
        with self._user.associate([build_context(*pair) for pair in sorted(pairs | default)]) as association:
            accepted = {(cx.abstract_syntax, cx.transfer_syntax[0]) for cx in association.accepted_contexts}
            for item in objects:
                as_stored = (item.sop_class_uid, item.transfer_syntax_uid) in accepted
                possible = [(item.sop_class_uid, syntax) for syntax in fallbacks(item.transfer_syntax_uid)]
                if not as_stored and accepted.isdisjoint(possible):
                    failures.refused.append(
                        f"takes no SOP class {item.sop_class_uid} in transfer syntax {item.transfer_syntax_uid}"
                    )
                    continue
                self._judge(self._store(association, item, as_stored=as_stored), failures)
        failures.conclude()

    def _store(self, association: Association, item: StoredObject, *, as_stored: bool) -> int:
        try:
            # A data set that was read is encoded in what was accepted, a file goes as it is.
            answer = association.send_c_store(item.path if as_stored else _uncompressed(item))
        except (RuntimeError, ValueError, AttributeError, OSError) as error:
            # A lost association, or an outbox file that is gone: the class name says which; the text may hold a path.
            raise DeliveryError(f"{self.name}: an object could not be sent ({type(error).__name__})") from error
        return self._user.status(answer)

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
