"""Nodes from marks: selects the marks of nodes of one series, determines their side and level, and measures them like any other node."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from alnnode.imaging.attribute_values import text
from alnnode.locate.marks import growing, placing
from alnnode.locate.marks.authors import of_geometry
from alnnode.locate.marks.placing import MisplacedError
from alnnode.locate.marks.remarks import Remarks
from alnnode.locate.measure import measure_node
from alnnode.records import MarkShape

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from alnnode.locate.axillary_level import LevelModel
    from alnnode.locate.chest_anatomy import ChestAnatomy
    from alnnode.locate.grid import Mask
    from alnnode.records import Mark, MarkObject, Node, Volume

SAME_NODE = 0.25  # share of the smaller mask: two masks that overlap more are one node
# SNOMED CT codes of CID 7600 that mean a lymph node or an axillary lymph node, and the words that readers write.
NODE_CODES = {
    "59441001", "68171009", "69691007", "12196003", "33770006", "283001", "16051009", "420800007", "9659009", "30746006", "127232002",
}  # fmt: skip
NODE_WORDS = re.compile(r"\blymph|\bnodes?\b|\bln\b|axill", re.IGNORECASE)
CONTOUR_SHAPES = {MarkShape.OUTLINE, MarkShape.ELLIPSE, MarkShape.CIRCLE, MarkShape.BOX}
PREFERRED = (
    MarkShape.OUTLINE,
    MarkShape.ELLIPSE,
    MarkShape.CIRCLE,
    MarkShape.AXES,
    MarkShape.BOX,
    MarkShape.LINE,
    MarkShape.POINT,
)


def gather_marks(objects: Iterable[MarkObject]) -> list[Mark]:
    """Return the marks of several objects: the newest of each tracking UID, with the segments that they refer to.

    Results of this software are left out.
    """
    readers = [item for item in objects if not item.own]
    segments = {(m.source_uid, m.number): m for item in readers for m in item.marks if m.planes}
    used: set[tuple[str, int]] = set()
    marks = []
    for mark in (mark for item in readers for mark in item.marks):
        segment = segments.get(mark.segment) if mark.segment and not mark.drawings else None
        if mark.segment and segment is not None:
            used.add(mark.segment)
            author = of_geometry(mark, segment)
            marks.append(replace(mark, planes=segment.planes, side=mark.side or segment.side, author=author))
        else:
            marks.append(mark)
    newest: dict[str, Mark] = {}
    for mark in sorted(marks, key=lambda m: (m.created, m.source_uid, m.number)):
        if (mark.source_uid, mark.number) not in used or mark.segment:
            newest[mark.tracking_uid or f"{mark.source_uid}#{mark.number}"] = mark
    return sorted(newest.values(), key=lambda m: (m.created, m.source_uid, m.number))


def nodes_from_marks(
    anatomy: ChestAnatomy, objects: Iterable[MarkObject], levels: LevelModel | None = None
) -> tuple[list[Node], tuple[str, ...]]:
    """Return the nodes that the marks of one series describe.

    Args:
        anatomy: the chest of the series.
        objects: results of `read_marks`; objects of other series are ignored.
        levels: model of the axillary level; None leaves the level undetermined.

    Returns:
        The nodes, numbered from 1 in no particular order, each once; and remarks on marks that describe no node of this series.
    """
    volume = anatomy.volume
    of_series = tuple(item for item in objects if refers_to(item, volume))
    remarks = Remarks(remark for item in of_series if not item.own for remark in item.remarks)
    found: list[Node] = []
    # The newest first: where two marks lie on one place, the older one describes the same node.
    for mark in reversed(gather_marks(of_series)):
        try:
            node = _node(anatomy, mark, levels, remarks)
        except MisplacedError as error:
            remarks.add(mark, f"left out: {error}")
            continue
        if any(overlaps(node, other) for other in found):
            remarks.add(mark, "left out: a newer mark is of the same node")
            continue
        found.append(node)
    numbered = [replace(node, number=number) for number, node in enumerate(found, start=1)]
    return numbered, remarks.texts()


def refers_to(item: MarkObject, volume: Volume) -> bool:
    """Return whether an object is of a series: it refers to the series or to its frame of reference, or names no series at all."""
    series, frame = text(volume.header, "SeriesInstanceUID"), placing.frame_of_reference(volume)
    named = {uid for mark in item.marks for uid in mark.series_uids}
    return not named or series in named or any(frame in mark.frames_of_reference for mark in item.marks)


def _node(anatomy: ChestAnatomy, mark: Mark, levels: LevelModel | None, remarks: Remarks) -> Node:
    mask, offset, drawn = _mask(anatomy.volume, mark)
    try:
        node = measure_node(anatomy.volume, mask, offset, drawn)
    except ValueError:
        raise MisplacedError("it is empty, or reaches beyond the images") from None
    position = node.box.centre
    if not (_is_called_node(mark) or anatomy.is_axillary(position)):
        raise MisplacedError("it lies outside both axillae, and is not called a lymph node")
    side = anatomy.side(position)
    if mark.side is not None and mark.side is not side:
        remarks.add(mark, f"is said to be {mark.side.value}, and lies on the {side.value}; its place counts")
    level = None if levels is None else anatomy.level(levels, position)
    return replace(node, side=side, level=level, source=mark.author, tracking_uid=mark.tracking_uid)


def _is_called_node(mark: Mark) -> bool:
    coded = {concept.code for concept in (mark.finding, mark.site) if concept is not None}
    return bool(coded & NODE_CODES) or NODE_WORDS.search(mark.label) is not None


def _mask(volume: Volume, mark: Mark) -> tuple[Mask, tuple[int, int, int], int | None]:
    """Return the voxels of a mark, their offset, and the slice of a single cross-section.

    The voxels are those of its segment or of its contours, or they grow from the best of its graphics.
    """
    if mark.planes:
        return *placing.segment(volume, mark.planes), None
    placed, reasons = [], []
    for drawing in mark.drawings:
        try:
            placed.append(placing.place(volume, drawing))
        except MisplacedError as error:
            reasons.append(str(error))
    if not placed:
        raise MisplacedError(reasons[0] if reasons else "it has no place: it is empty, or refers to something that is not here")
    best = next(shape for shape in PREFERRED if any(item.shape is shape for item in placed))
    chosen = [item for item in placed if item.shape is best]
    if best in CONTOUR_SHAPES and len({item.slice_index for item in chosen}) > 1:
        mask, first = placing.stacked(volume, chosen)
        return mask, (first, 0, 0), None
    largest = max(chosen, key=lambda item: _size(volume, item))
    mask, first = growing.grow(volume, largest)
    # A point says where a node is, not where it is largest.
    return mask, (first, 0, 0), None if best is MarkShape.POINT else largest.slice_index


def _size(volume: Volume, item: placing.Placed) -> float:
    extent = (item.points.max(axis=0) - item.points.min(axis=0)) * np.array(volume.spacing[1:])
    return float(extent.prod() + extent.max())


def overlaps(one: Node, other: Node) -> bool:
    """Return whether two nodes with masks overlap so much that they are one node."""
    if one.mask is None or other.mask is None:
        return False
    low = [max(a, b) for a, b in zip(one.box.low, other.box.low, strict=True)]
    high = [min(a, b) for a, b in zip(one.box.high, other.box.high, strict=True)]
    if any(h <= a for a, h in zip(low, high, strict=True)):
        return False
    parts = [n.mask[tuple(slice(a - o, h - o) for a, h, o in zip(low, high, n.box.low, strict=True))] for n in (one, other)]  # type: ignore[index]
    shared = int(np.count_nonzero(parts[0] & parts[1]))
    return shared > SAME_NODE * min(int(one.mask.sum()), int(other.mask.sum()))


def merge_nodes(marked: Sequence[Node], found: Sequence[Node]) -> list[Node]:
    """Return the marked nodes, and the nodes found by the algorithm that overlap no marked node."""
    return [*marked, *(node for node in found if not any(overlaps(node, mark) for mark in marked))]
