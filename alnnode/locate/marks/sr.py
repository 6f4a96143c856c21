"""Marks in structured reports: the measurement groups of TID 1500 (PS3.16), as OHIF, highdicom, dcmqi and dcmjs write them.

A group is TID 1410 (planar region), 1411 (volume), or 1501 (measurements whose coordinates are children of a NUM item, as cornerstone
writes). SNOMED-RT codes (SRT) are equivalent to SNOMED CT codes (SCT).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from alnnode.imaging.attribute_values import text
from alnnode.imaging.references import MAX_ITEMS, children, referenced_series
from alnnode.locate.marks import items
from alnnode.records import Concept, Drawing, Mark, MarkShape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydicom import Dataset

    from alnnode.records import Side

    Key = tuple[str, str]

GROUP = ("125007", "DCM")
IDENTIFIER, UNIQUE = ("112039", "DCM"), ("112040", "DCM")
FINDING, COMMENT = ("121071", "DCM"), ("121106", "DCM")
REGION = {("111030", "DCM"), ("121231", "DCM"), ("130488", "DCM")}  # Image Region, Volume Surface, Region in Space
SITE = {("363698007", "SCT"), ("G-C0E3", "SRT")}
LATERALITY = {("272741003", "SCT"), ("G-C171", "SRT")}
LONG = {("103339001", "SCT"), ("G-A185", "SRT")}
SHORT = {("103340004", "SCT"), ("G-A186", "SRT")}
SEGMENT = ("121191", "DCM")
# Statements on how a node was drawn or measured, not on the node itself.
STRUCTURAL = {
    ("276214006", "SCT"), ("130400", "DCM"), ("370129005", "SCT"), ("G-C306", "SRT"), ("112050", "DCM"), ("121049", "DCM"), ("C2348792", "UMLS"),
}  # fmt: skip
FREE_TEXT = "CORNERSTONEFREETEXT"
CLOSED_TOOLS = ("roi", "freehand", "segmentation")  # parts of the names of cornerstone tools that draw closed lines
NO_PLACE = {"angle", "cobbangle", "calibrationline"}
OBSERVER = ("121012", "DCM")


@dataclass(slots=True)
class _Group:
    """The content of one measurement group while it is read."""

    uid: str | None = None
    identifier: str = ""
    label: str = ""
    comment: str = ""
    finding: Concept | None = None
    site: Concept | None = None
    side: Side | None = None
    segment: tuple[str, int] | None = None
    image: tuple[str, int | None] = ("", None)
    evaluations: list[tuple[Concept, Concept]] = field(default_factory=list)
    drawings: list[Drawing] = field(default_factory=list)
    axes: dict[str, Drawing] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)


def read_report(dataset: Dataset) -> tuple[list[Mark], list[str]]:
    """Return the marks of a report, and remarks on what was left out."""
    groups = [group for group, _ in measurement_groups(dataset)]
    if not groups:
        return [], ["the report holds no measurement groups (TID 1500)"]
    uid, series, created = text(dataset, "SOPInstanceUID"), referenced_series(dataset), items.created(dataset)
    marks: dict[str, Mark] = {}
    remarks = []
    for number, item in enumerate(groups[: items.MAX_MARKS], start=1):
        group = _read_group(item)
        remarks += [f"measurement group {number}: {reason}" for reason in sorted(group.left_out)]
        mark = Mark(
            source_uid=uid,
            number=number,
            series_uids=series,
            tracking_uid=group.uid,
            tracking_identifier=group.identifier,
            drawings=_drawings(group),
            label=group.label or group.comment or (group.finding.meaning if group.finding else ""),
            finding=group.finding,
            site=group.site,
            side=group.side,
            evaluations=tuple(group.evaluations),
            segment=group.segment,
            created=created,
        )
        # Groups that share a tracking UID describe one mark, measured in several ways.
        key = mark.tracking_uid or f"#{number}"
        marks[key] = _joined(marks[key], mark) if key in marks else mark
    if len(groups) > items.MAX_MARKS:
        remarks.append(f"only the first {items.MAX_MARKS} measurement groups were read")
    return list(marks.values()), remarks


def device_observers(dataset: Dataset) -> set[str]:
    """Return the UIDs of the device observers of a report (TID 1004)."""
    return {text(item, "UID") for item in children(dataset, "ContentSequence") if concept_name(item) == OBSERVER}


def _joined(one: Mark, other: Mark) -> Mark:
    values = {name: getattr(one, name) or getattr(other, name) for name in Mark.__dataclass_fields__}
    values["drawings"] = _joined_drawings(one.drawings, other.drawings)
    values["evaluations"] = one.evaluations + tuple(e for e in other.evaluations if e not in one.evaluations)
    return Mark(**values)


def _joined_drawings(one: tuple[Drawing, ...], other: tuple[Drawing, ...]) -> tuple[Drawing, ...]:
    """Return the drawings of two groups of one mark; where both draw a contour on an image, only that of the group with more contours.

    A planar and a volumetric group both draw the contour on the measured slice, and two contours on a slice are an outer one and a hole.
    """
    fewer, more = sorted((one, other), key=lambda drawings: sum(drawing.shape is MarkShape.OUTLINE for drawing in drawings))
    drawn = {_place(drawing) for drawing in more if drawing.shape is MarkShape.OUTLINE}
    kept = tuple(drawing for drawing in fewer if drawing.shape is not MarkShape.OUTLINE or _place(drawing) not in drawn)
    return kept + more


def _place(drawing: Drawing) -> tuple[str, int | None, str, float]:
    """Return the image of a drawing, or its frame of reference and height."""
    height = drawing.points[0][2] if len(drawing.points[0]) == 3 else 0.0
    return drawing.sop_instance_uid, drawing.frame_number, drawing.frame_of_reference, round(float(height), 2)


def measurement_groups(dataset: Dataset) -> Iterator[tuple[Dataset, tuple[Dataset, ...]]]:
    """Yield the measurement groups in the order of the document, each with the containers around it, the outermost first."""
    left = MAX_ITEMS
    waiting: list[tuple[Dataset, tuple[Dataset, ...]]] = [(dataset, ())]
    while waiting:
        item, around = waiting.pop()
        if concept_name(item) == GROUP:
            yield item, around
            continue
        if len(around) < items.MAX_DEPTH:
            below = [child for child in children(item, "ContentSequence") if text(child, "ValueType") == "CONTAINER"]
            left -= len(below)
            if left < 0:
                return
            waiting += [(child, (*around, item)) for child in reversed(below)]


def concept_name(item: Dataset) -> Key:
    """Return value and scheme of the concept name of a content item; empty texts without one."""
    found = items.concept(item, "ConceptNameCodeSequence")
    return ("", "") if found is None else (found.code, found.scheme)


def _read_group(item: Dataset) -> _Group:
    group = _Group()
    below = list(children(item, "ContentSequence"))
    for child in below:
        _describe(group, child, concept_name(child))
    for child in below:
        _draw(group, child, axis="", depth=0)
    return group


def _describe(group: _Group, child: Dataset, name: Key) -> None:
    kind = text(child, "ValueType")
    if name == UNIQUE and kind == "UIDREF":
        group.uid = group.uid or items.uid(child, "UID")
    elif name == IDENTIFIER:
        group.identifier = items.words(child, "TextValue")
    elif kind == "TEXT":
        _said(group, child, name)
    elif kind == "CODE":
        _coded(group, child, name)
    elif kind in {"IMAGE", "COMPOSITE"}:
        _refer(group, child)


def _said(group: _Group, child: Dataset, name: Key) -> None:
    value = items.words(child, "TextValue")
    if name == FINDING:
        group.label = value
    elif name == COMMENT:
        group.comment = group.comment or value
    else:
        named = items.concept(child, "ConceptNameCodeSequence")
        if named is not None:
            group.evaluations.append((named, Concept("", "", value)))


def _coded(group: _Group, child: Dataset, name: Key) -> None:
    value = items.concept(child, "ConceptCodeSequence")
    if value is None:
        return
    if name == FINDING:
        if value.code == FREE_TEXT:
            group.label = value.meaning
        else:
            group.finding = group.finding or value
    elif name in SITE:
        group.site = value
        for modifier in children(child, "ContentSequence"):
            if concept_name(modifier) in LATERALITY:
                group.side = items.laterality(items.concept(modifier, "ConceptCodeSequence"))
    elif name in LATERALITY:
        group.side = items.laterality(value)
    elif name not in STRUCTURAL:
        named = items.concept(child, "ConceptNameCodeSequence")
        if named is not None:
            group.evaluations.append((named, value))


def _refer(group: _Group, child: Dataset) -> None:
    reference = items.first(child, "ReferencedSOPSequence")
    if reference is None:
        return
    segment = items.integer(reference, "ReferencedSegmentNumber")
    if segment is not None or concept_name(child) == SEGMENT:
        group.segment = (text(reference, "ReferencedSOPInstanceUID"), segment or 1)
    else:
        group.image = text(reference, "ReferencedSOPInstanceUID"), items.integer(reference, "ReferencedFrameNumber")


def _draw(group: _Group, child: Dataset, axis: str, depth: int) -> None:
    """Read the coordinates of a content item and its children; ``axis`` names the diameter that it measures."""
    kind, name = text(child, "ValueType"), concept_name(child)
    if kind in {"SCOORD", "SCOORD3D"}:
        drawing = _coordinates(group, child, name, kind)
        if drawing is not None and axis and drawing.shape is MarkShape.LINE:
            group.axes.setdefault(axis, drawing)
        elif drawing is not None:
            group.drawings.append(drawing)
    elif kind == "NUM" and depth < 2:
        axis = "long" if name in LONG else "short" if name in SHORT else ""
        for below in children(child, "ContentSequence"):
            _draw(group, below, axis, depth + 1)


def _coordinates(group: _Group, child: Dataset, name: Key, kind: str) -> Drawing | None:
    tool = group.identifier.lower().partition(":")[2].partition(":")[0]
    if tool in NO_PLACE:
        group.left_out.add("an angle or a calibration line is no mark of a node")
        return None
    dimensions = 2 if kind == "SCOORD" else 3
    corners = items.points(child, "GraphicData", dimensions)
    where = group.image
    for below in children(child, "ContentSequence"):
        reference = items.first(below, "ReferencedSOPSequence")
        if reference is not None:
            where = text(reference, "ReferencedSOPInstanceUID"), items.integer(reference, "ReferencedFrameNumber")
    closed = name in REGION or any(part in tool for part in CLOSED_TOOLS)
    frame = text(child, "ReferencedFrameOfReferenceUID") if dimensions == 3 else ""
    graphic = text(child, "GraphicType").upper()
    if graphic == "ELLIPSOID":
        group.left_out.add("ellipsoids are not read")
        return None
    drawing = items.scoord(graphic, corners, where, frame, closed=closed)
    if drawing is None:
        group.left_out.add("coordinates that are damaged, too many, or an open line")
    return drawing


def _drawings(group: _Group) -> tuple[Drawing, ...]:
    """Return the drawings of a group; two diameters on one slice become a pair of axes, a single one stays a line."""
    long_axis, short_axis = group.axes.get("long"), group.axes.get("short")
    if long_axis and short_axis and _same_slice(long_axis, short_axis):
        both = Drawing(
            MarkShape.AXES,
            long_axis.points + short_axis.points,
            long_axis.sop_instance_uid,
            long_axis.frame_number,
            long_axis.frame_of_reference,
        )
        return (both, *group.drawings)
    return (*group.axes.values(), *group.drawings)


def _same_slice(one: Drawing, other: Drawing) -> bool:
    return (one.sop_instance_uid, one.frame_number, one.frame_of_reference) == (
        other.sop_instance_uid,
        other.frame_number,
        other.frame_of_reference,
    )
