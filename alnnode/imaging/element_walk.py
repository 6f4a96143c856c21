"""Walk over the elements of sequences without building them: pydicom needs up to a hundred times the memory of their bytes.

pydicom builds each sequence of undefined length while it reads a data set, whether its attribute is wanted or not. `skip_value` finds the end
of such a sequence, and counts what pydicom would build.
"""

from __future__ import annotations

import io
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from pydicom.datadict import dictionary_VR
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

if TYPE_CHECKING:
    from typing import BinaryIO

UNDEFINED = 0xFFFFFFFF
MAX_DEPTH = 256  # nested sequences; deeper ones are damaged, or made to exhaust a reader
_ITEM_END, _SEQUENCE_END = 0xFFFEE00D, 0xFFFEE0DD
NESTING = frozenset({None, "SQ", "UN"})  # VRs of what pydicom can read as a sequence
_LONG = frozenset(str(vr).encode() for vr in EXPLICIT_VR_LENGTH_32)  # four bytes for the length (PS3.5 section 7.1.2)
_HEADS = {
    little: tuple(Struct(order + form) for form in ("HHL", "HHxxH", "L")) for little, order in ((True, "<"), (False, ">"))
}


class StructureError(ValueError):
    """The data set has too many elements, is nested too deeply, or ends within a sequence."""


class TooManyElementsError(StructureError):
    """The data set has more elements and items than are read."""


class ElementBudget:
    """The number of elements and items that may still be read."""

    def __init__(self, left: int) -> None:
        self.left = left

    def spend(self, count: int = 1) -> None:
        """Count elements.

        Raises:
            TooManyElementsError: there are more than allowed.
        """
        self.left -= count
        if self.left < 0:
            raise TooManyElementsError("the data set has too many elements")


class _Level(NamedTuple):
    """The items of a sequence, or the elements of an item.

    Attributes:
        items: whether it holds items.
        end: where its length ends, which is at most ``bound``; None without a length.
        bound: where the nearest level around it that has a length ends; None if none has. Damaged lengths do not lead beyond it.
        implicit: whether its elements have implicit VRs.
        inside: whether to look into items and sequences that have a length.
    """

    items: bool
    end: int | None
    bound: int | None
    implicit: bool
    inside: bool


def is_sequence(tag: int, vr: str | None) -> bool:
    """Return whether pydicom reads an element as a sequence; without a VR, or with UN, PS3.6 decides."""
    if vr not in {None, "UN"}:
        return vr == "SQ"
    try:
        return dictionary_VR(tag) == "SQ"
    except KeyError:
        return False


def skip_value(stream: BinaryIO, *, vr: str | None, little: bool, budget: ElementBudget, inside: bool = False) -> int:
    """Move a stream from the beginning of an element, which is a sequence or has no length, to its end.

    Args:
        stream: of a data set.
        vr: of the element; None if the data set has implicit VRs.
        little: the byte order.
        budget: pays for each element and item.
        inside: also count what has a length: pydicom builds it when the attribute is converted.

    Returns:
        The number of elements and items.

    Raises:
        StructureError: the budget or `MAX_DEPTH` is exceeded, or the stream ends before the element.
    """
    long, short, extra = _HEADS[little]
    read, seek, tell = stream.read, stream.seek, stream.tell
    before = budget.left
    length = long.unpack(_whole(read(8)))[2] if vr is None else extra.unpack(_whole(read(12), 12)[8:])[0]
    if length != UNDEFINED and not inside:
        seek(length, io.SEEK_CUR)
        return 0
    end = None if length == UNDEFINED else tell() + length
    levels = [_Level(True, end, end, vr is None, inside and vr in NESTING)]
    while levels:
        level = levels[-1]
        if level.bound is not None and tell() >= level.bound:
            seek(level.bound)
            levels.pop()
            continue
        head = _whole(read(8))
        budget.spend()
        group, element, length = long.unpack(head)
        tag, kind = group << 16 | element, None
        if tag == (_SEQUENCE_END if level.items else _ITEM_END):
            if level.end is not None:  # what has a length needs no delimiter, and ends where its length says
                seek(level.end)
            levels.pop()
            continue
        if not level.items and not level.implicit and _names_vr(head):
            kind = head[4:6].decode("latin-1")
            length = extra.unpack(_whole(read(4), 4))[0] if head[4:6] in _LONG else short.unpack(head)[2]
        if length != UNDEFINED and not (level.inside and (level.items or is_sequence(tag, kind))):
            seek(length, io.SEEK_CUR)
            continue
        if len(levels) > 2 * MAX_DEPTH:
            raise StructureError("the data set has too many nested sequences")
        implicit = level.implicit
        if (
            level.items and not implicit
        ):  # an item can have implicit VRs although the data set has explicit ones (PS3.5 section 6.2.2)
            first = read(8)
            seek(-len(first), io.SEEK_CUR)
            implicit = not _names_vr(first)
        end = None if length == UNDEFINED else min(tell() + length, level.bound or tell() + length)
        bound = level.bound if end is None else end
        # The items of other values than sequences are fragments, which hold no elements.
        levels.append(_Level(not level.items, end, bound, implicit, level.inside and (level.items or kind in NESTING)))
    return before - budget.left


def _names_vr(head: bytes) -> bool:
    return b"AA" <= head[4:6] <= b"ZZ"


def _whole(data: bytes, size: int = 8) -> bytes:
    if len(data) < size:
        raise StructureError("the data set ends within a sequence")
    return data
