"""Why an association was not served, in words for an administrator.

What names a peer (AE titles, address, SOP classes) comes over the network before anything is checked, and is cleaned.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from pydicom.uid import UID

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from pynetdicom.association import Association

MAX_DETAIL = 255  # characters


class RejectionKind(StrEnum):
    """Why an association was not served. The value is also the label of the counter."""

    CALLED = "called AE title"
    CALLING = "calling AE title"
    USER = "user identity"
    CONTEXTS = "no context"
    LIMIT = "limit"
    ADDRESS = "address"
    TLS = "TLS"
    PROTOCOL = "no DICOM"


REMEDIES: Mapping[RejectionKind, str] = {
    RejectionKind.CALLED: "Correct the called AE title at the sender, or add it to [listener] called_ae_titles.",
    RejectionKind.CALLING: "If this sender may send, add its AE title to [listener] calling_ae_titles.",
    RejectionKind.USER: "Correct user name and passcode at the sender, or add the user to [[listener.users]].",
    RejectionKind.CONTEXTS: "The sender proposed no SOP class and transfer syntax that this node accepts: send CT images, "
    "with a transfer syntax of docs/conformance.md.",
    RejectionKind.LIMIT: "If this repeats, raise [listener] max_associations or processes.",
    RejectionKind.ADDRESS: "If this sender may send, add its address to [listener] addresses.",
    RejectionKind.TLS: "Renew or correct the certificate of the sender, or [listener] tls.",
    RejectionKind.PROTOCOL: "What connects here is no DICOM sender, or uses TLS although [listener] tls is not set: correct its port or TLS.",
}


@dataclass(frozen=True, slots=True)
class Rejection:
    """One association that was not served; texts as the peer sent them."""

    kind: RejectionKind
    called_ae: str = ""
    calling_ae: str = ""
    address: str = ""
    detail: str = ""

    def cleaned(self) -> Rejection:
        """Return it with printable texts of limited length."""
        texts = (
            _clean(self.called_ae, 16),
            _clean(self.calling_ae, 16),
            _clean(self.address, 64),
            _clean(self.detail, MAX_DETAIL),
        )
        return Rejection(self.kind, *texts)


@dataclass(frozen=True, slots=True)
class RejectedAssociation:
    """Equal rejections, as the status page lists them."""

    kind: RejectionKind
    called_ae: str
    calling_ae: str
    address: str
    detail: str
    count: int
    first_at: datetime
    last_at: datetime

    @property
    def remedy(self) -> str:
        """What an administrator changes."""
        return REMEDIES[self.kind]


# By result, source and reason of the A-ASSOCIATE-RJ (PS3.8 table 9-21), of which pynetdicom sends these.
_KINDS: Mapping[tuple[object, object, object], RejectionKind] = {
    (1, 1, 3): RejectionKind.CALLING,
    (1, 1, 7): RejectionKind.CALLED,
    (2, 2, 1): RejectionKind.USER,
    (2, 3, 2): RejectionKind.LIMIT,
}


def association_rejection(association: Association) -> Rejection:
    """Return the rejection of an association that was answered with A-ASSOCIATE-RJ."""
    answer = association.acceptor.primitive
    reason = (getattr(answer, "result", None), getattr(answer, "result_source", None), getattr(answer, "diagnostic", None))
    return _rejection(association, _KINDS.get(reason, RejectionKind.LIMIT), "")


def contexts_rejection(association: Association) -> Rejection | None:
    """Return the rejection of an accepted association with no presentation context to store by, though the peer proposed some."""
    accepted = [str(context.abstract_syntax) for context in association.accepted_contexts]
    refused = [str(context.abstract_syntax) for context in association.rejected_contexts]
    if accepted and (any(map(_is_storage, accepted)) or not any(map(_is_storage, refused))):
        return None
    return _rejection(association, RejectionKind.CONTEXTS, _proposed(refused))


def _is_storage(uid: str) -> bool:
    return UID(uid).name.endswith("Storage")


def _rejection(association: Association, kind: RejectionKind, detail: str) -> Rejection:
    request = association.requestor.primitive
    called = "" if request is None else str(request.called_ae_title)
    return Rejection(kind, called, str(association.requestor.ae_title), str(association.requestor.address or ""), detail)


def _proposed(abstract_syntaxes: Iterable[str | None]) -> str:
    """Return a text that names the SOP classes that a peer proposed, at most three, by their registered names."""
    names = list(dict.fromkeys(_sop_class(uid or "") for uid in abstract_syntaxes))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"proposed: {', '.join(names[:3])}{more}" if names else "proposed no presentation context"


def _sop_class(uid: str) -> str:
    found = UID(uid[:64])
    return found.name if found.is_valid and found.name != found else "a SOP class that is not registered"


def _clean(text: str, limit: int) -> str:
    """Return printable ASCII; what is not printable becomes a question mark."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text[:limit]).strip()
