"""From marks to nodes: which marks are of nodes of this series, on which side, measured like any other node."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from alnnode.imaging.frames import text
from alnnode.locate.chest_anatomy import Site
from alnnode.locate.marks import growing, placing
from alnnode.locate.marks.placing import MisplacedError
from alnnode.locate.measure import node_from_mask
from alnnode.records import NodeSource, Shape, Side

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from alnnode.locate.axillary_level import LevelModel
    from alnnode.locate.grid import Mask
    from alnnode.records import Mark, MarkObject, Node, Volume

AROUND_MM = 25.0  # outside the search region a mark may still be of an axillary node
SAME_NODE = 0.25  # of the smaller mask: two that share more are one node
# SNOMED: structure of lymph node, of axillary lymph node, and their kin of CID 7600; and what people write.
NODE_CODES = {
    "59441001", "68171009", "69691007", "12196003", "33770006", "283001", "16051009", "420800007", "9659009", "30746006", "127232002",
}  # fmt: skip
NODE_WORDS = re.compile(r"\blymph|\bnodes?\b|\bln\b|axill", re.IGNORECASE)
CONTOUR_SHAPES = {Shape.OUTLINE, Shape.ELLIPSE, Shape.CIRCLE, Shape.BOX}
PREFERRED = (Shape.OUTLINE, Shape.ELLIPSE, Shape.CIRCLE, Shape.AXES, Shape.BOX, Shape.LINE, Shape.POINT)


class Chart:
    """The chest of a volume, asked where a mark lies in it."""

    def __init__(self, site: Site, levels: LevelModel | None) -> None:
        self._site, self._levels = site, levels
        self._shape = site.frame.canonical(site.volume.voxels).shape

    @cached_property
    def _near(self) -> Mask | None:
        if self._site.axillae is None:
            return None
        right, left = self._site.axillae
        near: Mask = ndimage.distance_transform_edt(~(right.mask | left.mask), self._site.coarse.spacing) <= AROUND_MM
        return near

    def side(self, node: Node) -> Side:
        """Side of the body: of the midline between the lungs, or of the middle of the images."""
        _, _, x = self._canonical(node)
        chest = self._site.chest
        middle = chest.midline * self._site.coarse.step[2] if chest else (self._shape[2] - 1) / 2
        return Side.RIGHT if x < middle else Side.LEFT

    def axillary(self, node: Node) -> bool:
        """Whether a node lies in or near an axilla; True where the chest is not recognised."""
        if self._near is None:
            return True
        place = [int(c / s) for c, s in zip(self._canonical(node), self._site.coarse.step, strict=True)]
        return bool(self._near[tuple(min(p, n - 1) for p, n in zip(place, self._near.shape, strict=True))])

    def levelled(self, node: Node) -> Node:
        """The node with its level, where that can be told."""
        landmarks = self._site.landmarks
        if self._levels is None or landmarks is None:
            return node
        return replace(node, level=landmarks.level(self._levels, landmarks.place(*self._canonical(node))))

    def _canonical(self, node: Node) -> tuple[float, float, float]:
        k, j, i = node.box.centre
        frame = self._site.frame
        y, x = (i, j) if frame.transposed else (j, i)
        return (
            k,
            self._shape[1] - 1 - y if frame.flip_y else y,
            self._shape[2] - 1 - x if frame.flip_x else x,
        )


def gather(objects: Iterable[MarkObject]) -> list[Mark]:
    """Bring the marks of several objects together: the newest of each tracking UID, segments joined to what refers to them.

    Own results are left out.
    """
    found = [item for item in objects if not item.own]
    segments = {(m.source_uid, m.number): m for item in found for m in item.marks if m.planes}
    used: set[tuple[str, int]] = set()
    marks = []
    for mark in (mark for item in found for mark in item.marks):
        other = segments.get(mark.segment) if mark.segment and not mark.drawings else None
        if mark.segment and other is not None:
            used.add(mark.segment)
            marks.append(replace(mark, planes=other.planes, side=mark.side or other.side))
        else:
            marks.append(mark)
    newest: dict[str, Mark] = {}
    for mark in sorted(marks, key=lambda m: (m.created, m.source_uid, m.number)):
        if (mark.source_uid, mark.number) not in used or mark.segment:
            newest[mark.tracking_uid or f"{mark.source_uid}#{mark.number}"] = mark
    return sorted(newest.values(), key=lambda m: (m.created, m.source_uid, m.number))


def nodes(
    volume: Volume, objects: Iterable[MarkObject], levels: LevelModel | None = None, chart: Chart | None = None
) -> tuple[list[Node], tuple[str, ...]]:
    """Make nodes of the marks of one series.

    Args:
        volume: the series.
        objects: what `read` gave of any objects; those of other series are passed over.
        levels: tells the axillary level; None leaves it open.
        chart: of this volume, where somebody made it already.

    Returns:
        The nodes, numbered from 1 in no particular order, none twice; and remarks on marks that are no node of this series.
    """
    given = tuple(item for item in objects if concerns(volume, item))
    remarks = [remark for item in given if not item.own for remark in item.remarks]
    marks = gather(given)
    if not marks:
        return [], tuple(dict.fromkeys(remarks))
    chart = chart or Chart(Site(volume), levels)
    found: list[Node] = []
    # The newest first: where two lie on one place, the older is the same node.
    for mark in reversed(marks):
        try:
            node = _node(volume, mark, chart, remarks)
        except MisplacedError as error:
            remarks.append(f"{_called(mark)} left out: {error}")
            continue
        if any(overlaps(node, other) for other in found):
            remarks.append(f"{_called(mark)} left out: a newer mark is of the same node")
            continue
        found.append(node)
    numbered = [replace(node, number=number) for number, node in enumerate(found, start=1)]
    return numbered, tuple(dict.fromkeys(remarks))


def concerns(volume: Volume, item: MarkObject) -> bool:
    """Whether an object is of this series: it refers to it, does not say to which, or uses its frame of reference."""
    series, frame = text(volume.header, "SeriesInstanceUID"), placing.frame_of_reference(volume)
    named = {uid for mark in item.marks for uid in mark.series_uids}
    return not named or series in named or any(frame in mark.frames_of_reference for mark in item.marks)


def _called(mark: Mark) -> str:
    """Name a mark by its place: labels may hold a name."""
    return f"a reader's mark ({mark.number} of its object)"


def _node(volume: Volume, mark: Mark, chart: Chart, remarks: list[str]) -> Node:
    mask, offset, drawn = _mask(volume, mark)
    try:
        node = node_from_mask(volume, mask, offset, Side.RIGHT, 0, 1.0, NodeSource.READER, drawn)
    except ValueError:
        raise MisplacedError("it is empty, or reaches beyond the images") from None
    if not (_said_node(mark) or chart.axillary(node)):
        raise MisplacedError("it lies outside both axillae, and is not called a lymph node")
    side = chart.side(node)
    if mark.side is not None and mark.side is not side:
        remarks.append(f"{_called(mark)} is said to be {mark.side.value}, and lies on the {side.value}; its place counts")
    return replace(chart.levelled(node), side=side, tracking_uid=mark.tracking_uid)


def _said_node(mark: Mark) -> bool:
    coded = {concept.code for concept in (mark.finding, mark.site) if concept is not None}
    return bool(coded & NODE_CODES) or NODE_WORDS.search(mark.label) is not None


def _mask(volume: Volume, mark: Mark) -> tuple[Mask, tuple[int, int, int], int | None]:
    """The voxels of a mark: its segment, its contours, or what grows from the best of its graphics; and the slice of a single cross-section."""
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
    return mask, (first, 0, 0), None if best is Shape.POINT else largest.slice_index


def _size(volume: Volume, item: placing.Placed) -> float:
    extent = (item.points.max(axis=0) - item.points.min(axis=0)) * np.array(volume.spacing[1:])
    return float(extent.prod() + extent.max())


def overlaps(one: Node, other: Node) -> bool:
    """Whether two nodes with masks are one."""
    if one.mask is None or other.mask is None:
        return False
    low = [max(a, b) for a, b in zip(one.box.low, other.box.low, strict=True)]
    high = [min(a, b) for a, b in zip(one.box.high, other.box.high, strict=True)]
    if any(h <= a for a, h in zip(low, high, strict=True)):
        return False
    parts = [n.mask[tuple(slice(a - o, h - o) for a, h, o in zip(low, high, n.box.low, strict=True))] for n in (one, other)]  # type: ignore[index]
    shared = int(np.count_nonzero(parts[0] & parts[1]))
    return shared > SAME_NODE * min(int(one.mask.sum()), int(other.mask.sum()))


def merge(marked: Sequence[Node], found: Sequence[Node]) -> list[Node]:
    """Return the marked nodes, and of those the algorithm found the ones that no mark is of."""
    return [*marked, *(node for node in found if not any(overlaps(node, mark) for mark in marked))]
