"""What became of the objects of one STOW-RS request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from alnnode.errors import RejectedObject
from alnnode.receive.presentation_contexts import STORAGE_CLASSES, TRANSFER_SYNTAXES

if TYPE_CHECKING:
    from alnnode.db.rows import NewInstance

# PS3.18 Table I.2-2, Failure Reason; the others are those of C-STORE (`alnnode.receive.dimse_status`).
CLASS_NOT_SUPPORTED, SYNTAX_NOT_SUPPORTED, PROCESSING_FAILURE = 0x0122, 0xC122, 0x0110
_CLASSES, _SYNTAXES = {str(uid) for uid in STORAGE_CLASSES}, {str(uid) for uid in TRANSFER_SYNTAXES}


@dataclass(slots=True)
class Failure:
    """An object that was not kept; its UIDs as far as it, or its File Meta Information, gives them."""

    sop_class_uid: str
    sop_instance_uid: str
    reason: int


@dataclass(slots=True)
class Outcome:
    """The objects of one request."""

    stored: list[NewInstance] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    fault: str | None = None  # why the rest of the body could not be read
    too_large: bool = False


def check_kind(sop_class: str, syntax: str) -> None:
    """Refuse what the listener would not negotiate.

    Raises:
        RejectedObject: this SOP class or transfer syntax is not kept here.
    """
    if sop_class not in _CLASSES:
        raise RejectedObject(CLASS_NOT_SUPPORTED, "this SOP class is not kept here")
    if syntax not in _SYNTAXES:
        raise RejectedObject(SYNTAX_NOT_SUPPORTED, "this transfer syntax is not kept here")
