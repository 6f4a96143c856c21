"""Reads the marks of a file of any supported kind. Malformed objects do not raise: remarks state what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.config import disable_value_validation

from alnnode import IMPLEMENTATION_CLASS_UID, MANUFACTURER
from alnnode.errors import NotAnalysable
from alnnode.imaging import part10
from alnnode.imaging.attribute_values import BAD_VALUE, text
from alnnode.imaging.series import files
from alnnode.locate.marks import presentation, rtstruct, segmentation, sr
from alnnode.locate.marks.authors import with_authors
from alnnode.records import MARK_STORAGE, MarkKind, MarkObject

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydicom import Dataset

    from alnnode.records import Mark

_UNREADABLE = (*BAD_VALUE, RecursionError, MemoryError)
_KEY_OBJECTS = "a key object selection flags whole images: it says nothing of where on them, so no node is made of it"


def read_marks(path: Path) -> MarkObject:
    """Read the marks in a Part 10 file.

    Args:
        path: an SR, RT Structure Set, Segmentation, Presentation State or Key Object Selection (`MARK_STORAGE`); any other object
            has no marks.

    Returns:
        The marks as the object states them, not checked against any image, with remarks on what was left out. An object that
        this software made (`MarkObject.own`) keeps its marks, so that callers can compare them.
    """
    with disable_value_validation():
        try:
            dataset = part10.read(path, pixels=False)
        except (NotAnalysable, OSError):
            return MarkObject("", "", "", "", remarks=("a file of marks is damaged, or has too many elements to be read",))
        kind = MARK_STORAGE.get(text(dataset, "SOPClassUID"))
        try:
            found, remarks = _marks(dataset, kind, path)
            marks = with_authors(found, dataset, kind) if found else found
            own = _own(dataset)
        except _UNREADABLE:
            marks, remarks, own = [], ["the object is damaged"], False
        return MarkObject(
            sop_class_uid=text(dataset, "SOPClassUID"),
            sop_instance_uid=text(dataset, "SOPInstanceUID"),
            series_uid=text(dataset, "SeriesInstanceUID"),
            study_uid=text(dataset, "StudyInstanceUID"),
            marks=tuple(marks),
            remarks=tuple(remarks),
            own=own,
        )


def read_marks_in_folder(folder: Path) -> Iterator[MarkObject]:
    """Yield every object below a folder that may hold marks, in the order of the paths; other files are ignored."""
    for path in files(folder):
        if _may_hold_marks(path):
            yield read_marks(path)


def _may_hold_marks(path: Path) -> bool:
    try:
        with disable_value_validation():
            return text(part10.read(path, pixels=False, tags=["SOPClassUID"]), "SOPClassUID") in MARK_STORAGE
    except NotAnalysable:
        return False


def _marks(dataset: Dataset, kind: MarkKind | None, path: Path) -> tuple[list[Mark], list[str]]:
    match kind:
        case MarkKind.REPORT:
            return sr.read_report(dataset)
        case MarkKind.STRUCTURES:
            return rtstruct.read_structure_set(dataset)
        case MarkKind.SEGMENTATION:
            return segmentation.read_segmentation(dataset, path)
        case MarkKind.PRESENTATION:
            return presentation.read_presentation_state(dataset)
        case MarkKind.KEY_OBJECTS:
            return [], [_KEY_OBJECTS]
        case _:
            return [], ["the object is of no kind that holds marks"]


def _own(dataset: Dataset) -> bool:
    """Return whether this software made the object, by its manufacturer or by the device observer of a report."""
    return text(dataset, "Manufacturer") == MANUFACTURER or IMPLEMENTATION_CLASS_UID in sr.device_observers(dataset)
