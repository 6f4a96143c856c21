"""Import nodes that readers marked in DICOM objects (SR, SEG, RTSTRUCT, PR) with the code of the node (`alnnode.locate.marks`).

Training uses the same voxels, box and slice of a mark as the node does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from alnnode.errors import NotAnalysable
from alnnode.imaging.series import read_volume
from alnnode.locate.chest_anatomy import ChestAnatomy
from alnnode.locate.marks.nodes import gather_marks, nodes_from_marks
from alnnode.records import MARK_STORAGE, Level, MarkKind, MarkObject
from training.clinical.imported import ImportedNodes, patient_of
from training.clinical.mark_labels import MarkLabel, label_of_mark
from training.clinical.node_table import NodeRow, row_of_node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from alnnode.records import Mark
    from training.clinical.dicom_folder import DicomFolder, ImageSeries

SCHEME: Final = "99ALNNODE"
LEVELS: Final = {f"LEVEL-{level.value}": level.value for level in Level}
# An SR that refers to segments needs the segmentation.
NEEDED_OBJECTS: Final = {MarkKind.REPORT: {MarkKind.REPORT, MarkKind.SEGMENTATION}}


@dataclass(frozen=True, slots=True)
class MarkImport:
    """Which marks are imported, and how.

    Attributes:
        kind: of the objects.
        folder: the DICOM files of the CT series.
        known: texts and codes that map to a label (`training.clinical.labels.label_mapping`).
        own: also import nodes from objects that alnnode made; their classification never becomes a label.
    """

    kind: MarkKind
    folder: DicomFolder
    known: Mapping[str, str]
    own: bool = False


def read_marks(objects: Iterable[MarkObject], wanted: MarkImport, progress: Callable[[], None]) -> ImportedNodes:
    """Return the nodes that are marked in objects of one kind, one row for each; of two versions of a mark, the newer counts.

    Args:
        objects: of any kind, as `alnnode.locate.marks.reading.read_marks` returns them.
        wanted: which marks are imported.
        progress: called after each series.
    """
    found = ImportedNodes()
    kind = wanted.kind
    given = [item for item in objects if MARK_STORAGE.get(item.sop_class_uid) in NEEDED_OBJECTS.get(kind, {kind})]
    uids = {item.sop_instance_uid for item in given if MARK_STORAGE[item.sop_class_uid] is kind}
    made_here = {item.sop_instance_uid for item in given if item.own and item.sop_instance_uid in uids}
    if wanted.own:
        given = [replace(item, own=False) for item in given]
    elif made_here:
        found.left_out.append(
            f"{len(made_here)} object(s) that alnnode made: corrections by a reader are in other objects; --own imports the positions without a label"
        )
    # Of a segmentation beside a report only the segments count to which the report refers. Another segment with the same tracking UID and
    # time could otherwise replace a mark.
    referred = {mark.segment for item in given if item.sop_instance_uid in uids for mark in item.marks}
    given = [
        item
        if item.sop_instance_uid in uids
        else replace(item, marks=tuple(mark for mark in item.marks if (mark.source_uid, mark.number) in referred))
        for item in given
    ]
    by_series: dict[str, list[Mark]] = {}
    for mark in gather_marks(given):
        if mark.source_uid not in uids:
            continue
        series = _series_of(mark, wanted.folder)
        if isinstance(series, str):
            found.left_out.append(f"{_called(mark)}: {series}")
        else:
            by_series.setdefault(series.series_uid, []).append(mark)
    found.left_out += [f"an object: {remark}" for item in given if not item.own for remark in item.remarks]
    for uid in sorted(by_series):
        _import_series(found, wanted.folder.series[uid], by_series[uid], wanted, made_here)
        progress()
    return found


def _import_series(
    found: ImportedNodes, series: ImageSeries, marked: list[Mark], wanted: MarkImport, made_here: set[str]
) -> None:
    try:
        volume = read_volume(series.paths)
    except NotAnalysable as error:
        found.left_out += [f"{_called(mark)}: its series cannot be used: {error}" for mark in marked]
        return
    # The tracking UID of the located node identifies its mark.
    named = {f"{mark.source_uid}#{mark.number}": mark for mark in marked}
    objects = [_alone(mark, name) for name, mark in named.items()]
    nodes, remarks = nodes_from_marks(ChestAnatomy(volume), objects)
    found.left_out += remarks
    unclear = 0
    for node in nodes:
        mark = named[node.tracking_uid or ""]
        # A classification by alnnode itself must not become a training label.
        stated = MarkLabel("", "") if mark.source_uid in made_here else label_of_mark(mark, wanted.known)
        unclear += stated.other_question
        if stated.contradictory:
            found.left_out.append(
                f"the label of {_called(mark)}: its class, finding and name contradict each other; fill in the correct label"
            )
        origin = NodeRow(
            patient_of(series), series.study_uid, series.series_uid, "", None, 0, 0, 0, 0,
            label=stated.label, pathology=stated.text, source=wanted.kind.value.upper(), source_uid=mark.source_uid,
        )  # fmt: skip
        row = row_of_node(replace(node, tracking_uid=mark.tracking_uid), volume, origin)
        found.rows.append(replace(row, level=row.level or _level(mark)))
    if unclear:
        found.left_out.append(
            f"the label of {unclear} mark(s) of one series: a known word answers a question that does not ask for the class; fill in the label if it is one"
        )


def _alone(mark: Mark, name: str) -> MarkObject:
    return MarkObject("", mark.source_uid, "", "", (replace(mark, tracking_uid=name),))


def _series_of(mark: Mark, folder: DicomFolder) -> ImageSeries | str:
    """Return the CT series on which a mark is drawn or to which it refers, or the reason why there is none."""
    drawn = {folder.by_image[d.sop_instance_uid].series_uid for d in mark.drawings if d.sop_instance_uid in folder.by_image}
    referred = {uid for uid in mark.series_uids if uid in folder.series and folder.series[uid].is_ct}
    choice = drawn or referred
    if not choice:
        return "the CT series to which it refers is not in the folder"
    if len(choice) > 1:
        return f"it refers to {len(choice)} CT series, so its series is ambiguous"
    return folder.series[choice.pop()]


def _level(mark: Mark) -> str:
    coded = (LEVELS.get(value.code, "") for _, value in mark.evaluations if value.scheme == SCHEME)
    return next(filter(None, coded), "")


def _called(mark: Mark) -> str:
    """Return a name of a mark by its number, because its label may contain the name of a person."""
    return f"mark {mark.number} of its object"
