"""Optional attributes of a source: finite and bounded. Unusable values are left out, and a remark names the attributes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pydicom.datadict import dictionary_description, dictionary_VM
from pydicom.multival import MultiValue

from alnnode.imaging.attribute_values import BAD_VALUE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pydicom import DataElement, Dataset

MAX_DEPTH = 16  # nested sequences; the attributes that reports copy need three
MAX_TEXT = 10_240  # characters: the limit of VR LT (PS3.5 Table 6.2-1)
NAMED = 5  # attributes that a remark lists
_MAX_INTEGER = 1 << 31  # IS (PS3.5 Table 6.2-1)
_NUMERIC = frozenset({"DS", "FD", "FL", "IS"})
_LENGTHS = frozenset({"SliceThickness", "SpacingBetweenSlices"})  # mm: positive, below a metre
_UNREADABLE = (*BAD_VALUE, RecursionError, MemoryError)


def usable(element: DataElement) -> bool:
    """Return whether a result can hold the value of an attribute, and of all attributes within a sequence."""
    return _usable(element, 0)


def remark(tags: Iterable[int]) -> str:
    """Return a remark that names the attributes that were left out. Their values are patient data and are not quoted."""
    names = [_name(tag) for tag in sorted(tags)]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"values in the image header that cannot be used were left out: {', '.join(names[:NAMED])}{more}"


def _name(tag: int) -> str:
    try:
        return dictionary_description(tag)
    except KeyError:
        return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _usable(element: DataElement, depth: int) -> bool:
    if element.VR == "SQ":
        return depth < MAX_DEPTH and all(_all_usable(item, depth + 1) for item in element.value)
    values: Sequence[Any] = element.value if isinstance(element.value, (MultiValue, list)) else [element.value]
    if element.VR in _NUMERIC:
        return _fits(element, len(values)) and all(value in (None, "") or _is_number(element, value) for value in values)
    return not isinstance(element.value, str) or len(element.value) <= MAX_TEXT


def _all_usable(item: Dataset, depth: int) -> bool:
    try:
        return all(_usable(item[tag], depth) for tag in item.keys())  # noqa: SIM118 - as `part10.header_of` does
    except _UNREADABLE:
        return False


def _fits(element: DataElement, count: int) -> bool:
    """Return whether an element has no more than one value where PS3.6 allows one."""
    try:
        return count < 2 or dictionary_VM(element.tag) != "1"
    except KeyError:
        return True


def _is_number(element: DataElement, value: Any) -> bool:
    number = float(value)
    if element.keyword in _LENGTHS:
        return 0 < number < 1000
    return math.isfinite(number) and (element.VR != "IS" or abs(number) < _MAX_INTEGER)
