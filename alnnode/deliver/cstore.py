"""C-STORE SCU (PS3.4 Annex B): sends a batch on one association, the data sets of the files byte for byte.

A peer that accepts only the default transfer syntax (PS3.5 10.1) receives the same data set in that syntax; a peer that does not
accept JPEG-LS receives the captures uncompressed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom import dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless
from pynetdicom import _config, build_context

from alnnode.clients.association import ServiceUser, peer_of
from alnnode.clients.faults import file_words
from alnnode.clients.refusal_status import REFUSALS
from alnnode.deliver.destination import BatchFailures
from alnnode.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydicom import Dataset
    from pynetdicom.association import Association

    from alnnode.deliver.destination import StoredObject
    from alnnode.settings import DestinationCStore

# pynetdicom then sends the data set of a file as it is on the disk; otherwise it decodes and encodes it.
_config.STORE_SEND_CHUNKED_DATASET = True

SUCCESS, DUPLICATE_INSTANCE = 0x0000, 0x0111
WARNINGS = {0x0001, 0x0107, 0x0116}  # PS3.7 Annex C; the other warnings are 0xBxxx


def fallbacks(transfer_syntax: str) -> tuple[UID, ...]:
    """Return the transfer syntaxes in which an object can be sent to a peer that does not accept its own, best first."""
    if transfer_syntax == ExplicitVRLittleEndian:
        return (ImplicitVRLittleEndian,)
    return (ExplicitVRLittleEndian, ImplicitVRLittleEndian) if transfer_syntax == JPEGLSLossless else ()


def _uncompressed(item: StoredObject) -> Dataset:
    """Return the data set with decoded pixels. The SOP Instance UID stays, because the compression is lossless (PS3.5 8.2.3)."""
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
        """Send a C-ECHO (PS3.4 Annex A); raises the errors of `Destination.echo`."""
        self._user.echo()

    def send(self, objects: Sequence[StoredObject]) -> None:
        """Send every object by C-STORE on one association; raises the errors of `Destination.send`."""
        stored = {(item.sop_class_uid, item.transfer_syntax_uid) for item in objects}
        if not stored:
            return
        converted = {(sop_class, fallback) for sop_class, syntax in stored for fallback in fallbacks(syntax)}
        failures = BatchFailures()
        with self._user.associate([build_context(*pair) for pair in sorted(stored | converted)]) as association:
            accepted = {(cx.abstract_syntax, cx.transfer_syntax[0]) for cx in association.accepted_contexts}
            for item in objects:
                as_stored = (item.sop_class_uid, item.transfer_syntax_uid) in accepted
                possible = [(item.sop_class_uid, syntax) for syntax in fallbacks(item.transfer_syntax_uid)]
                if not as_stored and accepted.isdisjoint(possible):
                    failures.refused.append(
                        f"does not accept SOP class {item.sop_class_uid} in transfer syntax {item.transfer_syntax_uid}"
                    )
                    continue
                self._check(self._store(association, item, as_stored=as_stored), failures)
        failures.raise_if_any()

    def _store(self, association: Association, item: StoredObject, *, as_stored: bool) -> int:
        try:
            # pynetdicom encodes a data set in the accepted transfer syntax, and sends a file as it is.
            response = association.send_c_store(item.path if as_stored else _uncompressed(item))
        except OSError as error:
            raise DeliveryError(file_words(error)) from error
        except RuntimeError as error:  # of pynetdicom: the association is no longer established
            raise DeliveryError("the destination ended the association: read its log") from error
        except (ValueError, AttributeError) as error:
            raise DeliveryError(
                f"an object cannot be encoded ({type(error).__name__}): report this fault of the node"
            ) from error
        return self._user.status(response)

    def _check(self, status: int, failures: BatchFailures) -> None:
        """Add the failure of a C-STORE response to ``failures``; after a warning the object counts as stored.

        Raises:
            DeliveryError: the destination is out of resources, so that the rest of the batch would fail too.
        """
        if status in {SUCCESS, DUPLICATE_INSTANCE, *WARNINGS} or status >> 12 == 0xB:
            return
        if status >> 8 == 0xA9 or status in REFUSALS:
            reason = REFUSALS.get(status, "data set does not match SOP class")
            failures.refused.append(f"refused an object with status 0x{status:04X}: {reason}")
        elif status >> 8 == 0xA7:
            failures.later.append(f"out of resources (status 0x{status:04X})")
            failures.raise_if_any()
        else:
            failures.later.append(f"C-STORE response with status 0x{status:04X}")
