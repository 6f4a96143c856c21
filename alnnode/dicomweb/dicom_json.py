"""Data sets in the DICOM JSON model (PS3.18 Annex F), for objects that strangers made: bounded in depth and size, and always strict JSON."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json
from pydicom.datadict import dictionary_VR

from alnnode.imaging.attribute_values import BAD_VALUE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydicom import Dataset
    from pydicom.tag import BaseTag

Json = dict[str, dict[str, Any]]

# What pydicom raises over damaged bytes; an answer must hold all the other objects.
UNREADABLE = (*BAD_VALUE, RecursionError, MemoryError)
MAX_DEPTH = (
    32  # sequences inside each other; content trees of reports (PS3.16) need about ten. Serialisers of JSON end at some 80
)
MAX_INTEGER = 1 << 64  # UV has 64 bits; an IS of a thousand digits is no number that a reader of JSON can hold
_PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_NUMERIC = frozenset({"DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"})


class TooMuchError(ValueError):
    """The data set has more elements than the caller wants to convert."""


class _Left:
    """How many more elements may be converted."""

    def __init__(self, elements: float) -> None:
        self._elements = elements

    def take(self) -> None:
        self._elements -= 1
        if self._elements < 0:
            raise TooMuchError("more elements than are converted for one answer")


def as_json(dataset: Dataset, bulk: str = "", *, tags: Iterable[str] | None = None, most: float = math.inf) -> Json:
    """Return a data set in the DICOM JSON model.

    Args:
        dataset: the object.
        bulk: the URL below which binary values are referenced; where it is empty they are left out.
        tags: the attributes to convert (eight hex digits each); None converts all.
        most: the number of elements to convert. An attribute that holds more has no value in the answer.

    A value that the standard or JSON does not allow is left out: bytes that are no value of the VR, numbers that are not finite,
    sequences deeper than `MAX_DEPTH`.
    """
    chosen = None if tags is None else {int(tag, 16) for tag in tags}
    found: Json = {}
    for tag in sorted(dataset.keys()):
        if chosen is None or tag in chosen:
            _add(found, dataset, tag, bulk, _Left(most))
    return found


def dumps(document: object) -> bytes:
    """Return a document as strict JSON.

    Raises:
        ValueError: it cannot be written, for example because text in it is not Unicode. One of `UNREADABLE`.
    """
    return to_json(document, inf_nan_mode="null")


def depth(document: Json) -> int:
    """Return how many sequences are inside each other."""
    items = [item for element in document.values() if element.get("vr") == "SQ" for item in element.get("Value", ())]
    return 1 + max(map(depth, items)) if items else 0


def _items(dataset: Dataset, bulk: str, depth: int, left: _Left) -> Json:
    found: Json = {}
    for tag in sorted(dataset.keys()):
        _add(found, dataset, tag, bulk, left, depth)
    return found


def _add(found: Json, dataset: Dataset, tag: BaseTag, bulk: str, left: _Left, depth: int = 0) -> None:
    if tag in _PIXELS or tag.group == 2:
        return
    left.take()
    try:
        found[f"{tag:08X}"] = _element(dataset[tag], bulk, depth, left)
    except TooMuchError:
        if depth:
            raise
        found[f"{tag:08X}"] = {"vr": _vr(dataset, tag)}
    # A value that its VR does not allow, or whose bytes are none: the rest of the object is still worth showing.
    except UNREADABLE:
        found[f"{tag:08X}"] = {"vr": _vr(dataset, tag)}


def _vr(dataset: Dataset, tag: BaseTag) -> str:
    """Return what the object says, or else PS3.6; pydicom decodes no value for that."""
    told = dataset.get_item(tag, keep_deferred=True).VR
    try:
        return told or dictionary_VR(tag)
    except KeyError:
        return "UN"


def _element(element: Any, bulk: str, depth: int, left: _Left) -> dict[str, Any]:
    path = f"{bulk}/{element.tag:08X}"
    if element.VR == "SQ":
        if depth >= MAX_DEPTH:
            return {"vr": "SQ"}
        items = [_items(item, f"{path}/{number}" if bulk else "", depth + 1, left) for number, item in enumerate(element.value)]
        return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
    if element.VR in _BINARY:
        if element.value in {b"", None} or not bulk:
            return {"vr": element.VR}
        return {"vr": element.VR, "BulkDataURI": path}
    written: dict[str, Any] = element.to_json_dict(None, 1024)
    return _finite(written) if element.VR in _NUMERIC and "Value" in written else written


def _finite(written: dict[str, Any]) -> dict[str, Any]:
    """Take out numbers that JSON does not know; the others keep their places (PS3.18 section F.2.5: null is an empty value)."""
    values = [value if _is_number(value) else None for value in written["Value"]]
    if all(value is None for value in values):
        return {"vr": written["vr"]}
    return {**written, "Value": values}


def _is_number(value: object) -> bool:
    if isinstance(value, int):
        return abs(value) < MAX_INTEGER
    return not isinstance(value, float) or math.isfinite(value)
