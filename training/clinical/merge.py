"""Several rows of one node, as from tools that draw a box on each slice, made one: the slice with the largest box stands for it."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from statistics import median
from typing import TYPE_CHECKING, Final

from training.clinical.check import NEAR, NEAR_MM, SAME_NODE, apart_mm, overlap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.clinical.folder import Folder
    from training.clinical.table import NodeRow

ROUNDED_MM: Final = 0.2  # of two positions: headers round them, often to 0.1 mm


def slices(rows: Sequence[NodeRow], folder: Folder) -> list[NodeRow]:
    """Return one row for each node.

    Rows are of one node when they share a tracking UID in a series, or when their boxes overlap on slices near each other: at most `NEAR` of
    the steps apart in which the boxes of the series are drawn (on every slice, on each third), and at most `NEAR_MM`.
    Labels that contradict each other are left empty.
    """
    reach = {uid: _reach([row for row in rows if row.series_uid == uid], folder) for uid in {row.series_uid for row in rows}}
    groups: list[list[NodeRow]] = []
    for row in rows:
        mine = [group for group in groups if any(_same(row, other, folder, reach[row.series_uid]) for other in group)]
        joined = [other for group in mine for other in group] + [row]
        groups = [group for group in groups if group not in mine] + [joined]
    return [_one(group, folder) for group in groups]


def _reach(rows: Sequence[NodeRow], folder: Folder) -> float:
    """Return how far apart two boxes of one node of a series may lie, mm."""
    steps = []
    for row in rows:
        away = [found for other in rows if 0 < (found := _apart(row, other, folder)) <= NEAR_MM and _alike(row, other)]
        steps += [min(away)] if away else []
    # Not `NEAR_MM` for all: where every slice is drawn, a small gap is that between two nodes.
    return min(NEAR_MM, NEAR * median(steps) + ROUNDED_MM) if steps else 0.0


def _same(one: NodeRow, other: NodeRow, folder: Folder, reach: float) -> bool:
    if one.series_uid != other.series_uid:
        return False
    if one.tracking_uid and other.tracking_uid:
        return one.tracking_uid == other.tracking_uid
    return 0 < _apart(one, other, folder) <= reach and _alike(one, other)


def _alike(one: NodeRow, other: NodeRow) -> bool:
    return overlap(one, other, of_smaller=True) > SAME_NODE


def _apart(one: NodeRow, other: NodeRow, folder: Folder) -> float:
    """Return how far two slices of a series lie from each other, mm; infinite where nothing tells."""
    series = folder.series.get(one.series_uid)
    found = apart_mm(one, other, series) if series else None
    return inf if found is None else found


def _place(row: NodeRow, folder: Folder) -> int:
    series = folder.series.get(row.series_uid)
    place = series.slice_of(row.sop_uid, row.frame) if series else None
    return -(10**6) if place is None else place


def _one(group: list[NodeRow], folder: Folder) -> NodeRow:
    places = {id(row): place for row in group if (place := _place(row, folder)) >= 0}
    middle = (min(places.values(), default=0) + max(places.values(), default=0)) / 2
    # Of slices with boxes of one size the one in the middle of the node.
    largest = max(
        group, key=lambda row: ((row.right - row.left) * (row.bottom - row.top), -abs(places.get(id(row), 0) - middle))
    )
    at = places.get(id(largest), 0)
    labels = {row.label for row in group if row.label}
    pathology = {row.pathology for row in group if row.pathology}
    return replace(
        largest,
        # The box holds the whole node, as that of a mask does.
        left=min(row.left for row in group),
        top=min(row.top for row in group),
        right=max(row.right for row in group),
        bottom=max(row.bottom for row in group),
        below=max([largest.below, *(at - place for place in places.values())]),
        above=max([largest.above, *(place - at for place in places.values())]),
        label=labels.pop() if len(labels) == 1 else "",
        pathology=pathology.pop() if len(pathology) == 1 else "",
    )
