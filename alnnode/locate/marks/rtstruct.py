"""Marks in RT Structure Sets: one per ROI, closed planar contours and points in patient coordinates (PS3.3 C.8.8.5, C.8.8.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alnnode.counted import counted
from alnnode.imaging.attribute_values import text
from alnnode.imaging.references import children, referenced_series
from alnnode.locate.marks import items
from alnnode.records import Drawing, Mark, MarkShape

if TYPE_CHECKING:
    from pydicom import Dataset

MAX_CONTOURS = 2000  # of one ROI
CLOSED = {"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"}


def read_structure_set(dataset: Dataset) -> tuple[list[Mark], list[str]]:
    """Return the marks of a structure set, and remarks on what was left out."""
    uid, series, created = text(dataset, "SOPInstanceUID"), referenced_series(dataset), items.created(dataset)
    contours = {items.integer(roi, "ReferencedROINumber"): roi for roi in children(dataset, "ROIContourSequence")}
    observations = {items.integer(item, "ReferencedROINumber"): item for item in children(dataset, "RTROIObservationsSequence")}
    stated = _frame(dataset)
    marks, remarks = [], []
    for place, roi in enumerate(children(dataset, "StructureSetROISequence"), start=1):
        if place > items.MAX_MARKS:
            remarks.append(f"only the first {items.MAX_MARKS} ROIs were read")
            break
        number = items.integer(roi, "ROINumber")
        frame = text(roi, "ReferencedFrameOfReferenceUID") or stated
        drawings, other = _drawings(contours.get(number), frame)
        if other:
            remarks.append(f"ROI {place}: {counted(other, 'contour')} left out (open, damaged, or too many)")
        observed = observations.get(number)
        finding = items.concept(observed, "RTROIIdentificationCodeSequence") if observed else None
        label = items.words(roi, "ROIName") or (items.words(observed, "ROIObservationLabel") if observed else "")
        marks.append(
            Mark(
                source_uid=uid,
                number=place,
                series_uids=series,
                tracking_uid=items.uid(roi, "TrackingUID"),
                tracking_identifier=items.words(roi, "TrackingID"),
                drawings=drawings,
                label=label,
                finding=finding,
                created=created,
            )
        )
    return marks, remarks or ([] if marks else ["the structure set holds no ROIs"])


def _frame(dataset: Dataset) -> str:
    """Return the Frame of Reference UID of the structure set; empty when it has none or several."""
    listed = {text(item, "FrameOfReferenceUID") for item in children(dataset, "ReferencedFrameOfReferenceSequence")} - {""}
    return listed.pop() if len(listed) == 1 else ""


def _drawings(roi: Dataset | None, frame: str) -> tuple[tuple[Drawing, ...], int]:
    """Return the contours of an ROI, and the number of contours left out."""
    found: list[Drawing] = []
    other = 0
    for contour in children(roi, "ContourSequence") if roi is not None else ():
        kind = text(contour, "ContourGeometricType").upper()
        corners = items.points(contour, "ContourData", 3)
        image = items.first(contour, "ContourImageSequence")
        where = (
            ("", None)
            if image is None
            else (text(image, "ReferencedSOPInstanceUID"), items.integer(image, "ReferencedFrameNumber"))
        )
        if len(found) == MAX_CONTOURS or not corners:
            other += 1
        elif kind in CLOSED and len(corners) > 2:
            found.append(Drawing(MarkShape.OUTLINE, corners, where[0], where[1], frame))
        elif kind == "POINT":
            found.append(Drawing(MarkShape.POINT, corners, where[0], where[1], frame))
        else:
            other += 1
    return tuple(found), other
