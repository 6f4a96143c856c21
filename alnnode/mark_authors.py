"""Who drew a mark, as its object states it: a reader, a reader with software, or other software alone.

- Structured report: the observer context (PS3.16 TID 1001, 1002), and the algorithm identification (TID 4019) of a measurement group.
- Segmentation: Segment Algorithm Type (PS3.3 C.8.20.2). RT Structure Set: ROI Generation Algorithm (PS3.3 C.8.8.5).

A presentation state has no such statement. The author decides what the results call a node, never whether a mark is used.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pydicom.config import disable_value_validation

from alnnode.errors import NotAnalysable
from alnnode.imaging import part10
from alnnode.imaging.attribute_values import BAD_VALUE, text
from alnnode.imaging.references import MAX_ITEMS, children
from alnnode.imaging.series import files
from alnnode.locate.marks import items, reading
from alnnode.locate.marks.nodes import gather_marks, nodes_from_marks, refers_to
from alnnode.records import MARK_STORAGE, MarkKind, NodeSource

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pydicom import Dataset

    from alnnode.locate.axillary_level import LevelModel
    from alnnode.locate.chest_anatomy import ChestAnatomy
    from alnnode.records import Mark, MarkObject, Node

_DAMAGED = (NotAnalysable, OSError, RecursionError, MemoryError, *BAD_VALUE)
_ALGORITHM_TYPES = {"AUTOMATIC": NodeSource.DEVICE, "SEMIAUTOMATIC": NodeSource.ASSISTED}
_GROUP, _TRACKING = ("125007", "DCM"), ("112040", "DCM")
_OBSERVER_TYPE, _PERSON_NAME = ("121005", "DCM"), ("121008", "DCM")
_OBSERVER_TYPES = {("121006", "DCM"): "person", ("121007", "DCM"): "device"}
# TID 1004: UID, name, manufacturer, model name, serial number and location of a device observer.
_DEVICE = {(str(code), "DCM") for code in range(121012, 121018)}
_ALGORITHM_NAME = ("111001", "DCM")
_LEFT_OUT = "a reader's mark ("


def read_marks(path: Path) -> MarkObject:
    """Read the marks in a Part 10 file with their authors (see `alnnode.locate.marks.reading.read_marks`)."""
    item = reading.read_marks(path)
    if not item.marks:
        return item
    try:
        with disable_value_validation():
            authors = _authors(part10.read(path, pixels=False), MARK_STORAGE.get(item.sop_class_uid))
    except _DAMAGED:
        return item
    return replace(item, marks=tuple(replace(mark, author=authors.get(_key(mark), mark.author)) for mark in item.marks))


def read_marks_in_folder(folder: Path) -> Iterator[MarkObject]:
    """Yield every object with marks below a folder, in the order of the paths; other files are ignored."""
    for path in files(folder):
        try:
            with disable_value_validation():
                holds = text(part10.read(path, pixels=False, tags=["SOPClassUID"]), "SOPClassUID") in MARK_STORAGE
        except NotAnalysable:
            continue
        if holds:
            yield read_marks(path)


def marked_nodes(
    anatomy: ChestAnatomy, objects: Iterable[MarkObject], levels: LevelModel | None = None
) -> tuple[list[Node], tuple[str, ...]]:
    """Return the nodes that the marks of one series describe, each with its author as source, and remarks.

    Arguments, numbers and remarks are those of `alnnode.locate.marks.nodes.nodes_from_marks`, which calls every mark a reader's.
    """
    of_series = [_named(item) for item in objects if refers_to(item, anatomy.volume)]
    authors = {mark.tracking_uid: mark.author for mark in _with_segments(of_series)}
    nodes, remarks = nodes_from_marks(anatomy, of_series, levels)
    attributed = [
        replace(
            node, source=authors[node.tracking_uid], tracking_uid=None if "#" in str(node.tracking_uid) else node.tracking_uid
        )
        for node in nodes
    ]
    # One remark may be on the marks of several authors.
    return attributed, tuple(remark.replace(_LEFT_OUT, "a mark (", 1) for remark in remarks)


def _named(item: MarkObject) -> MarkObject:
    """Return the object with a name in place of each missing tracking UID, by which a node is found to be that of its mark.

    It is the name that `gather_marks` uses for such a mark, so that the choice of the marks does not depend on it.
    """
    named = (replace(mark, tracking_uid=mark.tracking_uid or f"{mark.source_uid}#{mark.number}") for mark in item.marks)
    return replace(item, marks=tuple(named))


def _with_segments(objects: list[MarkObject]) -> list[Mark]:
    """Return the marks that are used. A report of a reader whose geometry is a segment of software was made with software."""
    segments = {(mark.source_uid, mark.number): mark.author for item in objects for mark in item.marks if mark.planes}
    marks = gather_marks(objects)
    return [
        replace(mark, author=NodeSource.ASSISTED)
        if mark.author is NodeSource.READER
        and mark.segment is not None
        and not mark.drawings
        and segments.get(mark.segment, mark.author) is not NodeSource.READER
        else mark
        for mark in marks
    ]


def _key(mark: Mark) -> str | int:
    return mark.tracking_uid or mark.number


def _authors(dataset: Dataset, kind: MarkKind | None) -> dict[str | int, NodeSource]:
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
    for number, (group, inherited) in enumerate(_groups(dataset), start=1):
        below = list(children(group, "ContentSequence"))
        observers = _observers(below) or inherited
        software = "device" in observers or _by_algorithm(below)
        key = next((uid for item in below if _name(item) == _TRACKING and (uid := items.uid(item, "UID"))), None) or number
        if software:
            found[key] = NodeSource.ASSISTED if "person" in observers else NodeSource.DEVICE
    return found


def _groups(dataset: Dataset) -> Iterator[tuple[Dataset, frozenset[str]]]:
    """Yield the measurement groups in the order of the document, each with the observers of the containers around it."""
    left = MAX_ITEMS
    waiting = [(dataset, 0, frozenset[str]())]
    while waiting:
        item, depth, inherited = waiting.pop()
        if _name(item) == _GROUP:
            yield item, inherited
            continue
        below = list(children(item, "ContentSequence"))
        observers = _observers(below) or inherited
        containers = [child for child in below if text(child, "ValueType") == "CONTAINER"] if depth < items.MAX_DEPTH else []
        left -= len(containers)
        if left < 0:
            return
        waiting += [(child, depth + 1, observers) for child in reversed(containers)]


def _observers(below: list[Dataset]) -> frozenset[str]:
    """Return the kinds of observers that content items name: "person", "device"."""
    stated = {_OBSERVER_TYPES.get(_value(item), "") for item in below if _name(item) == _OBSERVER_TYPE} - {""}
    named = {"person" for item in below if _name(item) == _PERSON_NAME} | {"device" for item in below if _name(item) in _DEVICE}
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
    return any(_name(item) == _ALGORITHM_NAME for part in (below, *drawn) for item in part)


def _name(item: Dataset) -> tuple[str, str]:
    found = items.concept(item, "ConceptNameCodeSequence")
    return ("", "") if found is None else (found.code, found.scheme)


def _value(item: Dataset) -> tuple[str, str]:
    found = items.concept(item, "ConceptCodeSequence")
    return ("", "") if found is None else (found.code, found.scheme)
