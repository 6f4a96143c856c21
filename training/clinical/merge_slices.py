"""Merge the rows of one node, such as one box for each slice, into one row for the slice with the largest box."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from statistics import median
from typing import TYPE_CHECKING, Final

from training.clinical.table_check import NEAR, NEAR_MM, SAME_NODE, box_overlap, slice_distance_mm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.clinical.dicom_folder import DicomFolder
    from training.clinical.node_table import NodeRow

ROUNDED_MM: Final = 0.2  # rounding error of the distance of two positions, which headers often round to 0.1 mm


def merge_rows(rows: Sequence[NodeRow], folder: DicomFolder) -> list[NodeRow]:
    """Return one row for each node.

    Rows belong to one node if they have the same tracking UID in a series, or if their boxes overlap on nearby slices. Nearby slices are at
    most `NEAR_MM` and at most `NEAR` steps apart; a step is the usual distance of two boxes in the series (every slice, every third slice).
    Contradictory labels are left empty.
    """
    reach = {uid: _reach([row for row in rows if row.series_uid == uid], folder) for uid in {row.series_uid for row in rows}}
    groups: list[list[NodeRow]] = []
    for row in rows:
        mine = [group for group in groups if any(_same(row, other, folder, reach[row.series_uid]) for other in group)]
        joined = [other for group in mine for other in group] + [row]
        groups = [group for group in groups if group not in mine] + [joined]
    return [_one(group, folder) for group in groups]


def _reach(rows: Sequence[NodeRow], folder: DicomFolder) -> float:
    """Return the largest distance in mm between two boxes of one node in a series."""
    steps = []
    for row in rows:
        away = [found for other in rows if 0 < (found := _apart(row, other, folder)) <= NEAR_MM and _alike(row, other)]
        steps += [min(away)] if away else []
    # `NEAR_MM` alone is too large: where a box is drawn on every slice, even a small gap separates two nodes.
    return min(NEAR_MM, NEAR * median(steps) + ROUNDED_MM) if steps else 0.0


def _same(one: NodeRow, other: NodeRow, folder: DicomFolder, reach: float) -> bool:
    if one.series_uid != other.series_uid:
        return False
    if one.tracking_uid and other.tracking_uid:
        return one.tracking_uid == other.tracking_uid
    return 0 < _apart(one, other, folder) <= reach and _alike(one, other)


def _alike(one: NodeRow, other: NodeRow) -> bool:
    return box_overlap(one, other, of_smaller=True) > SAME_NODE


def _apart(one: NodeRow, other: NodeRow, folder: DicomFolder) -> float:
    """Return the distance between two slices of a series in mm; infinite if it is not known."""
    series = folder.series.get(one.series_uid)
    found = slice_distance_mm(one, other, series) if series else None
    return inf if found is None else found


def _place(row: NodeRow, folder: DicomFolder) -> int:
    series = folder.series.get(row.series_uid)
    place = series.slice_of(row.sop_uid, row.frame) if series else None
    return -(10**6) if place is None else place


def _one(group: list[NodeRow], folder: DicomFolder) -> NodeRow:
    places = {id(row): place for row in group if (place := _place(row, folder)) >= 0}
    middle = (min(places.values(), default=0) + max(places.values(), default=0)) / 2
    # Of several slices with boxes of the same size, the one nearest to the middle of the node.
    largest = max(
        group, key=lambda row: ((row.right - row.left) * (row.bottom - row.top), -abs(places.get(id(row), 0) - middle))
    )
    at = places.get(id(largest), 0)
    labels = {row.label for row in group if row.label}
    pathology = {row.pathology for row in group if row.pathology}
    return replace(
        largest,
        # The box contains the node on all its slices, like the box of a mask.
        left=min(row.left for row in group),
        top=min(row.top for row in group),
        right=max(row.right for row in group),
        bottom=max(row.bottom for row in group),
        below=max([largest.below, *(at - place for place in places.values())]),
        above=max([largest.above, *(place - at for place in places.values())]),
        label=labels.pop() if len(labels) == 1 else "",
        pathology=pathology.pop() if len(pathology) == 1 else "",
    )
