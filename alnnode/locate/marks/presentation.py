"""Marks in softcopy presentation states: graphic objects on images (PS3.3 C.10.5), in PIXEL units.

PIXEL counts from the upper left corner of the upper left pixel, 0 there (PS3.3 C.10.5.1.2): the coordinates of SCOORD.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alnnode.imaging.attribute_values import text
from alnnode.imaging.references import children, referenced_series
from alnnode.locate.marks import items
from alnnode.records import Mark

if TYPE_CHECKING:
    from pydicom import Dataset

    from alnnode.records import Drawing


def read_presentation_state(dataset: Dataset) -> tuple[list[Mark], list[str]]:
    """Return the marks of a presentation state, one per graphic annotation, and remarks on what was left out."""
    uid, series, created = text(dataset, "SOPInstanceUID"), referenced_series(dataset), items.created(dataset)
    shown = _images(dataset)
    marks: list[Mark] = []
    remarks: list[str] = []
    for number, annotation in enumerate(children(dataset, "GraphicAnnotationSequence"), start=1):
        if number > items.MAX_MARKS:
            remarks.append(f"only the first {items.MAX_MARKS} annotations were read")
            break
        images = [_reference(image) for image in children(annotation, "ReferencedImageSequence")] or shown
        if len(images) != 1:
            remarks.append(f"annotation {number}: it is drawn on {len(images)} images, not on one")
            continue
        label = next((items.words(t, "UnformattedTextValue") for t in children(annotation, "TextObjectSequence")), "")
        for graphic in children(annotation, "GraphicObjectSequence"):
            drawing, reason = _drawing(graphic, images[0])
            if drawing is None:
                remarks.append(f"annotation {number}: {reason}")
                continue
            if len(marks) == items.MAX_MARKS:
                break
            marks.append(
                Mark(
                    source_uid=uid,
                    number=len(marks) + 1,
                    series_uids=series,
                    tracking_uid=items.uid(graphic, "TrackingUID"),
                    tracking_identifier=items.words(graphic, "TrackingID"),
                    drawings=(drawing,),
                    label=label,
                    created=created,
                )
            )
    return marks, remarks[: items.MAX_MARKS] or ([] if marks else ["the presentation state holds no graphics"])


def _images(dataset: Dataset) -> list[tuple[str, int | None]]:
    """Return the images that the whole state is for."""
    return [
        _reference(image)
        for series in children(dataset, "ReferencedSeriesSequence")
        for image in children(series, "ReferencedImageSequence")
    ]


def _reference(image: Dataset) -> tuple[str, int | None]:
    return text(image, "ReferencedSOPInstanceUID"), items.integer(image, "ReferencedFrameNumber")


def _drawing(graphic: Dataset, where: tuple[str, int | None]) -> tuple[Drawing | None, str]:
    if text(graphic, "GraphicAnnotationUnits").upper() != "PIXEL":
        return None, "graphics in units of the display are not read"
    corners = items.points(graphic, "GraphicData", 2)
    kind = text(graphic, "GraphicType").upper()
    drawing = items.scoord(kind, corners, where, closed=text(graphic, "GraphicFilled") == "Y")
    return drawing, "coordinates that are damaged, too many, or an open line"
