"""Several rows of one node, as from tools that draw a box on each slice, made one: the slice with the largest box stands for it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from training.clinical.check import NEAR, SAME_NODE, overlap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.clinical.folder import Folder
    from training.clinical.table import NodeRow


def slices(rows: Sequence[NodeRow], folder: Folder) -> list[NodeRow]:
    """Return one row for each node.

    Rows are of one node when they share a tracking UID in a series, or when their boxes overlap on slices next to each other.
    Labels that contradict each other are left empty.
    """
    groups: list[list[NodeRow]] = []
    for row in rows:
        mine = [group for group in groups if any(_same(row, other, folder) for other in group)]
        joined = [other for group in mine for other in group] + [row]
        groups = [group for group in groups if group not in mine] + [joined]
    return [_one(group, folder) for group in groups]


def _same(one: NodeRow, other: NodeRow, folder: Folder) -> bool:
    if one.series_uid != other.series_uid:
        return False
    if one.tracking_uid and other.tracking_uid:
        return one.tracking_uid == other.tracking_uid
    places = [_place(row, folder) for row in (one, other)]
    return places[0] != places[1] and abs(places[0] - places[1]) <= NEAR and overlap(one, other, of_smaller=True) > SAME_NODE


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
