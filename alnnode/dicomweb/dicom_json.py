"""Convert data sets to the DICOM JSON model (PS3.18 Annex F). Depth and size are limited, and the result is always strict JSON.

The objects come from other systems, so any value may be damaged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement

from alnnode.imaging.attribute_values import BAD_VALUE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydicom import DataElement, Dataset
    from pydicom.tag import BaseTag

Json = dict[str, dict[str, Any]]

# The exceptions of pydicom for damaged bytes. A response must contain all other objects despite a damaged one.
UNREADABLE = (*BAD_VALUE, RecursionError, MemoryError)
MAX_DEPTH = 32  # nested sequences; content trees of reports (PS3.16) need about ten, JSON serialisers fail at about 80
MAX_INTEGER = 1 << 64  # UV has 64 bits; JSON readers cannot represent an IS of a thousand digits
MAX_TEXT = 16 << 20  # bytes of all texts of one attribute, a sequence included
_UNDEFINED = 0xFFFFFFFF
_PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_NUMERIC = frozenset({"DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"})


class TooLargeError(ValueError):
    """The attribute has more elements, or longer texts, than the caller allows."""


class _Budget:
    """The number of elements that may still be converted, and the bytes of their texts."""

    def __init__(self, elements: float, text: float) -> None:
        self._elements, self._text = elements, text

    def spend(self, raw: RawDataElement | DataElement, vr: str) -> None:
        """Count an element before its value is converted, or even read."""
        self._elements -= 1
        length = raw.length if isinstance(raw, RawDataElement) and raw.length != _UNDEFINED else 0
        # Bytes of a sequence are those of its elements, which are counted in turn; binary values are not written.
        if self._elements < 0 or (vr not in _BINARY and length > self._text):
            raise TooLargeError("the attribute has too many elements, or too long a text")
        if vr not in _BINARY and vr != "SQ":
            self._text -= length


@dataclass(frozen=True, slots=True)
class _Position:
    """Where the conversion is: the URL for the bulk data of this data set (empty for none), the depth, and what is left."""

    bulk: str
    depth: int
    budget: _Budget


def as_json(
    dataset: Dataset,
    bulk: str = "",
    *,
    tags: Iterable[str] | None = None,
    max_elements: float = math.inf,
    max_text: int = MAX_TEXT,
) -> Json:
    """Return a data set in the DICOM JSON model.

    Values that the standard or JSON does not allow are omitted: bytes that are not a value of the VR, numbers that are not finite, and sequences
    deeper than `MAX_DEPTH`.

    Args:
        dataset: the object.
        bulk: the URL below which binary values are referenced; if it is empty, binary values are omitted.
        tags: the attributes to convert, as eight hexadecimal digits each; None converts all.
        max_elements: the number of elements to convert for one attribute. An attribute with more elements has no value in the result.
        max_text: the same for the bytes of all its texts.
    """
    chosen = None if tags is None else {int(tag, 16) for tag in tags}
    found: Json = {}
    for tag in sorted(dataset.keys()):
        if chosen is None or tag in chosen:
            _add(found, dataset, tag, _Position(bulk, 0, _Budget(max_elements, max_text)))
    return found


def dumps(document: object) -> bytes:
    """Return a document as strict JSON.

    Raises:
        ValueError: it cannot be written, for example because its text is not Unicode. One of `UNREADABLE`.
    """
    return to_json(document, inf_nan_mode="null")


def depth(document: Json) -> int:
    """Return the number of nested sequences."""
    items = [item for element in document.values() if element.get("vr") == "SQ" for item in element.get("Value", ())]
    return 1 + max(map(depth, items)) if items else 0


def _item(dataset: Dataset, position: _Position) -> Json:
    found: Json = {}
    for tag in sorted(dataset.keys()):
        _add(found, dataset, tag, position)
    return found


def _add(found: Json, dataset: Dataset, tag: BaseTag, position: _Position) -> None:
    if tag in _PIXELS or tag.group == 2:
        return
    raw = dataset.get_item(tag, keep_deferred=True)
    vr = _vr(raw, tag)
    try:
        position.budget.spend(raw, vr)
        found[f"{tag:08X}"] = _deferred(raw, vr, position) or _element(dataset[tag], position)
    except TooLargeError:
        if position.depth:
            raise
        found[f"{tag:08X}"] = {"vr": vr}
    # The value is not allowed for its VR, or cannot be decoded: the rest of the object is still useful.
    except UNREADABLE:
        found[f"{tag:08X}"] = {"vr": vr}


def _vr(raw: RawDataElement | DataElement, tag: BaseTag) -> str:
    """Return the VR of the object, or else of PS3.6, without decoding the value."""
    try:
        return (raw.VR or dictionary_VR(tag)).rpartition(" ")[2]  # of "OB or OW" the last
    except KeyError:
        return "UN"


def _deferred(raw: RawDataElement | DataElement, vr: str, position: _Position) -> dict[str, Any] | None:
    """Return a binary value that was not read from the file; None if the value was read, or is not binary."""
    if vr not in _BINARY or not isinstance(raw, RawDataElement) or raw.value is not None or not raw.length:
        return None
    return {"vr": vr, "BulkDataURI": f"{position.bulk}/{raw.tag:08X}"} if position.bulk else {"vr": vr}


def _element(element: Any, position: _Position) -> dict[str, Any]:
    url = f"{position.bulk}/{element.tag:08X}"
    if element.VR == "SQ":
        if position.depth >= MAX_DEPTH:
            return {"vr": "SQ"}
        inner = replace(position, depth=position.depth + 1)
        items = [
            _item(item, replace(inner, bulk=f"{url}/{number}" if position.bulk else ""))
            for number, item in enumerate(element.value)
        ]
        return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
    if element.VR in _BINARY:
        if element.value in {b"", None} or not position.bulk:
            return {"vr": element.VR}
        return {"vr": element.VR, "BulkDataURI": url}
    written: dict[str, Any] = element.to_json_dict(None, 1024)
    return _finite(written) if element.VR in _NUMERIC and "Value" in written else written


def _finite(written: dict[str, Any]) -> dict[str, Any]:
    """Replace numbers that JSON cannot represent by null, an empty value (PS3.18 section F.2.5); the others keep their positions."""
    values = [value if _is_number(value) else None for value in written["Value"]]
    if all(value is None for value in values):
        return {"vr": written["vr"]}
    return {**written, "Value": values}


def _is_number(value: object) -> bool:
    if isinstance(value, int):
        return abs(value) < MAX_INTEGER
    return not isinstance(value, float) or math.isfinite(value)
