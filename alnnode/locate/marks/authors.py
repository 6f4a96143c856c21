"""Who drew a mark, as its object states it: a reader, a reader with software, or other software alone.

- Structured report: the observer context (PS3.16 TID 1001, 1002), and the algorithm identification (TID 4019) of a measurement group.
- Segmentation: Segment Algorithm Type (PS3.3 C.8.20.2). RT Structure Set: ROI Generation Algorithm (PS3.3 C.8.8.5).

A presentation state has no such statement. The author decides what the results call a node, never whether a mark is used.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from alnnode.imaging.attribute_values import text
from alnnode.imaging.references import children
from alnnode.locate.marks import items
from alnnode.locate.marks.sr import UNIQUE, concept_name, measurement_groups
from alnnode.records import MarkKind, NodeSource

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydicom import Dataset

    from alnnode.records import Mark

_ALGORITHM_TYPES = {"AUTOMATIC": NodeSource.DEVICE, "SEMIAUTOMATIC": NodeSource.ASSISTED}
_OBSERVER_TYPE, _PERSON_NAME = ("121005", "DCM"), ("121008", "DCM")
_OBSERVER_TYPES = {("121006", "DCM"): "person", ("121007", "DCM"): "device"}
# TID 1004: UID, name, manufacturer, model name, serial number and location of a device observer.
_DEVICE = {(str(code), "DCM") for code in range(121012, 121018)}
_ALGORITHM_NAME = ("111001", "DCM")


def with_authors(marks: Iterable[Mark], dataset: Dataset, kind: MarkKind | None) -> list[Mark]:
    """Return the marks of an object with the author that the object states for each."""
    stated = _stated(dataset, kind)
    return [replace(mark, author=stated.get(mark.tracking_uid or mark.number, mark.author)) for mark in marks]


def of_geometry(mark: Mark, segment: Mark) -> NodeSource:
    """Return the author of a mark whose geometry is a segment.

    A reader who reports the segment of software marked with it. Software that measures a segment did not draw it.
    """
    if mark.author is NodeSource.DEVICE:
        return segment.author
    return NodeSource.ASSISTED if segment.author is not NodeSource.READER else mark.author


def _stated(dataset: Dataset, kind: MarkKind | None) -> dict[str | int, NodeSource]:
    """Return the author of each mark of an object, by its tracking UID or else its number; a mark without statement has none."""
    match kind:
        case MarkKind.REPORT:
            return _of_report(dataset)
        case MarkKind.SEGMENTATION:
            return _of_items(dataset, "SegmentSequence", "SegmentAlgorithmType", "SegmentNumber")
        case MarkKind.STRUCTURES:
            return _of_items(dataset, "StructureSetROISequence", "ROIGenerationAlgorithm")
        case _:
            return {}


def _of_items(dataset: Dataset, sequence: str, keyword: str, number: str = "") -> dict[str | int, NodeSource]:
    """Return the authors of segments or ROIs; ``number`` names the attribute that numbers them, else their position does."""
    found: dict[str | int, NodeSource] = {}
    for place, item in enumerate(children(dataset, sequence), start=1):
        author = _ALGORITHM_TYPES.get(text(item, keyword).upper())
        if author is not None:
            found[items.uid(item, "TrackingUID") or (items.integer(item, number) if number else None) or place] = author
    return found


def _of_report(dataset: Dataset) -> dict[str | int, NodeSource]:
    """Return the authors of the measurement groups; groups of one tracking UID are one mark, and so have one author."""
    found: dict[str | int, NodeSource] = {}
    known: dict[int, frozenset[str]] = {}  # many groups share the containers around them
    for number, (group, around) in enumerate(measurement_groups(dataset), start=1):
        below = list(children(group, "ContentSequence"))
        observers = _observers(below)
        for container in around:
            if id(container) not in known:
                known[id(container)] = _observers(list(children(container, "ContentSequence")))
        # The observers of a container apply to all below it that has none of its own (PS3.16 TID 1001).
        observers = observers or next((seen for one in reversed(around) if (seen := known[id(one)])), frozenset())
        software = "device" in observers or _by_algorithm(below)
        key = next((uid for item in below if concept_name(item) == UNIQUE and (uid := items.uid(item, "UID"))), None) or number
        if software:
            found[key] = NodeSource.ASSISTED if "person" in observers else NodeSource.DEVICE
    return found


def _observers(below: list[Dataset]) -> frozenset[str]:
    """Return the kinds of observers that content items name: "person", "device"."""
    stated = {_OBSERVER_TYPES.get(_value(item), "") for item in below if concept_name(item) == _OBSERVER_TYPE} - {""}
    named = {"person" for item in below if concept_name(item) == _PERSON_NAME} | {
        "device" for item in below if concept_name(item) in _DEVICE
    }
    return frozenset(stated or named)


def _by_algorithm(below: list[Dataset]) -> bool:
    """Return whether an algorithm is named for a group, or for a measurement that has the coordinates.

    A measurement without coordinates, such as a mean attenuation, says nothing of who drew the region.
    """
    drawn = [
        list(children(item, "ContentSequence"))
        for item in below
        if text(item, "ValueType") == "NUM"
        and any(text(child, "ValueType") in {"SCOORD", "SCOORD3D"} for child in children(item, "ContentSequence"))
    ]
    return any(concept_name(item) == _ALGORITHM_NAME for part in (below, *drawn) for item in part)


def _value(item: Dataset) -> tuple[str, str]:
    found = items.concept(item, "ConceptCodeSequence")
    return ("", "") if found is None else (found.code, found.scheme)
