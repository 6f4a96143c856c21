"""Nodes that readers marked in DICOM objects, by the readers that the node itself uses (`alnnode.locate.marks`): SR, SEG, RTSTRUCT, PR.

What the node makes of a mark is what training learns from it: the same voxels, box and slice.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from alnnode.errors import NotAnalysable
from alnnode.imaging.series import read_volume
from alnnode.locate.chest_anatomy import ChestAnatomy
from alnnode.locate.marks.nodes import gather_marks, nodes_from_marks
from alnnode.records import MARK_STORAGE, Level, MarkKind, MarkObject
from training.clinical.imported import Imported, patient_of
from training.clinical.statements import Said, of_mark
from training.clinical.table import NodeRow, of_node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from alnnode.records import Mark
    from training.clinical.folder import Folder, Series

SCHEME: Final = "99ALNNODE"
LEVELS: Final = {f"LEVEL-{level.value}": level.value for level in Level}
# SR that points at segments needs the segmentation, too.
BESIDE: Final = {MarkKind.REPORT: {MarkKind.REPORT, MarkKind.SEGMENTATION}}


def read(
    objects: Iterable[MarkObject],
    kind: MarkKind,
    folder: Folder,
    known: Mapping[str, str],
    progress: Callable[[], None],
    *,
    own: bool = False,
) -> Imported:
    """Return the nodes marked in objects of one kind, each as one row; of two versions of a mark the newer.

    Args:
        objects: what `alnnode.locate.marks.reading.read_marks` gave, of any kind.
        kind: what is wanted.
        folder: where the CT series lie.
        known: texts and codes that mean a label (`training.clinical.labels.mapping`).
        progress: called after each series.
        own: take the places that alnnode itself found, too; what it said of them never becomes a label.
    """
    found = Imported()
    given = [item for item in objects if MARK_STORAGE.get(item.sop_class_uid) in BESIDE.get(kind, {kind})]
    wanted = {item.sop_instance_uid for item in given if MARK_STORAGE[item.sop_class_uid] is kind}
    made_here = {item.sop_instance_uid for item in given if item.own and item.sop_instance_uid in wanted}
    if own:
        given = [replace(item, own=False) for item in given]
    elif made_here:
        found.left_out.append(
            f"{len(made_here)} object(s) that alnnode made: what a reader corrected comes in others; --own takes the places, without a label"
        )
    # A segmentation beside a report counts for what the report refers to: with the same tracking UID and moment it could take a mark's place.
    referred = {mark.segment for item in given if item.sop_instance_uid in wanted for mark in item.marks}
    given = [
        item
        if item.sop_instance_uid in wanted
        else replace(item, marks=tuple(mark for mark in item.marks if (mark.source_uid, mark.number) in referred))
        for item in given
    ]
    by_series: dict[str, list[Mark]] = {}
    for mark in gather_marks(given):
        if mark.source_uid not in wanted:
            continue
        series = _series_of(mark, folder)
        if isinstance(series, str):
            found.left_out.append(f"{_called(mark)}: {series}")
        else:
            by_series.setdefault(series.series_uid, []).append(mark)
    found.left_out += [f"an object: {remark}" for item in given if not item.own for remark in item.remarks]
    for uid in sorted(by_series):
        _of_series(found, folder.series[uid], by_series[uid], kind, known, made_here)
        progress()
    return found


def _of_series(
    found: Imported, series: Series, marked: list[Mark], kind: MarkKind, known: Mapping[str, str], made_here: set[str]
) -> None:
    try:
        volume = read_volume(series.paths)
    except NotAnalysable as error:
        found.left_out += [f"{_called(mark)}: its series cannot be used: {error}" for mark in marked]
        return
    # The tracking UID comes back with the node, so it tells which mark it was.
    named = {f"{mark.source_uid}#{mark.number}": mark for mark in marked}
    objects = [_alone(mark, name) for name, mark in named.items()]
    nodes, remarks = nodes_from_marks(ChestAnatomy(volume), objects)
    found.left_out += remarks
    unasked = 0
    for node in nodes:
        mark = named[node.tracking_uid or ""]
        # An algorithm that learns what it said itself learns nothing.
        said = Said("", "") if mark.source_uid in made_here else of_mark(mark, known)
        unasked += said.unasked
        if said.disputed:
            found.left_out.append(
                f"the label of {_called(mark)}: its class, finding and name contradict each other; fill it in by what is right"
            )
        origin = NodeRow(
            patient_of(series), series.study_uid, series.series_uid, "", None, 0, 0, 0, 0,
            label=said.label, pathology=said.text, source=kind.value.upper(), source_uid=mark.source_uid,
        )  # fmt: skip
        row = of_node(replace(node, tracking_uid=mark.tracking_uid), volume, origin)
        found.rows.append(replace(row, level=row.level or _level(mark)))
    if unasked:
        found.left_out.append(
            f"the label of {unasked} mark(s) of one series: a known word stands under a question that is not after the class; fill it in where it is one"
        )


def _alone(mark: Mark, name: str) -> MarkObject:
    return MarkObject("", mark.source_uid, "", "", (replace(mark, tracking_uid=name),))


def _series_of(mark: Mark, folder: Folder) -> Series | str:
    """Return the CT series that a mark is drawn on, or refers to."""
    drawn = {folder.by_image[d.sop_instance_uid].series_uid for d in mark.drawings if d.sop_instance_uid in folder.by_image}
    referred = {uid for uid in mark.series_uids if uid in folder.series and folder.series[uid].is_ct}
    choice = drawn or referred
    if not choice:
        return "the CT series that it refers to is not in the folder"
    if len(choice) > 1:
        return f"it refers to {len(choice)} CT series and does not say on which it lies"
    return folder.series[choice.pop()]


def _level(mark: Mark) -> str:
    coded = (LEVELS.get(value.code, "") for _, value in mark.evaluations if value.scheme == SCHEME)
    return next(filter(None, coded), "")


def _called(mark: Mark) -> str:
    """Name a mark by its place: labels may hold a name."""
    return f"mark {mark.number} of its object"
