"""What one STOW-RS request stores, and the outcome for each of its objects."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from alnnode.errors import RejectedObject
from alnnode.receive.presentation_contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES

if TYPE_CHECKING:
    from alnnode.db.rows import NewInstance
    from alnnode.receive.acceptor import Acceptor

# PS3.18 Table I.2-2, Failure Reason; the other reasons are the statuses of C-STORE (`alnnode.receive.dimse_status`).
CLASS_NOT_SUPPORTED, SYNTAX_NOT_SUPPORTED, PROCESSING_FAILURE = 0x0122, 0xC122, 0x0110
_CLASSES, _SYNTAXES = {str(uid) for uid in STORAGE_CLASSES}, {str(uid) for uid in TRANSFER_SYNTAXES}


@dataclass(slots=True)
class StoreFailure:
    """An object that was not stored; its UIDs as far as the object or its File Meta Information contains them."""

    sop_class_uid: str
    sop_instance_uid: str
    reason: int


@dataclass(slots=True)
class StowOutcome:
    """The outcome for the objects of one request.

    Attributes:
        stored: the objects that were stored.
        failed: the objects that were refused.
        fault: why the rest of the body could not be read; None if the body is complete.
        too_large: whether the body was too large.
    """

    stored: list[NewInstance] = field(default_factory=list)
    failed: list[StoreFailure] = field(default_factory=list)
    fault: str | None = None
    too_large: bool = False


@dataclass(frozen=True, slots=True)
class StowRequest:
    """One request that stores objects.

    Attributes:
        acceptor: stores the objects, as it does for C-STORE.
        sender: the name of the client; it counts as the calling AE title.
        study: the Study Instance UID in the URL; the objects of other studies are refused. None allows all studies.
        outcome: is filled while the body is read.
    """

    acceptor: Acceptor
    sender: str
    study: str | None
    outcome: StowOutcome = field(default_factory=StowOutcome)


def check_supported(sop_class: str, syntax: str) -> None:
    """Refuse objects whose presentation context the listener would not accept.

    Raises:
        RejectedObject: the node does not store this SOP class or transfer syntax.
    """
    if sop_class not in _CLASSES:
        raise RejectedObject(CLASS_NOT_SUPPORTED, "this node does not store the SOP class")
    if syntax not in _SYNTAXES:
        raise RejectedObject(SYNTAX_NOT_SUPPORTED, "this node does not store the transfer syntax")
