"""Data sets that stand for source images, for references and image libraries."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

from pydicom import Dataset

from alnnode.errors import ReportError
from alnnode.report import wording
from alnnode.report.source_attributes import REQUIRED, source_uid

if TYPE_CHECKING:
    from alnnode.records import Analysis, SliceRef, Volume


def source_image(analysis: Analysis, reference: SliceRef | None) -> Dataset:
    """Return a data set that stands for a source image: the attributes that references and image library entries need.

    Patient attributes are empty: highdicom rejects values that the source of a hospital may have (a character set with an empty first
    value, a sex spelt out). `alnnode.report.modules.finish` copies them unchanged.

    Raises:
        ReportError: the source has no SOP Class UID or no SOP Instance UID.
    """
    source, image = analysis.header, Dataset()
    for keyword in REQUIRED:
        setattr(image, keyword, None)
    for keyword in (
        "FrameOfReferenceUID", "Rows", "Columns", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices",
        "ImageOrientationPatient", "AcquisitionDate", "AcquisitionTime",
    ):  # fmt: skip
        if keyword in source:
            image.add(deepcopy(source[keyword]))
    image.Modality = str(source.get("Modality") or "CT")
    image.StudyInstanceUID = source_uid(source, "StudyInstanceUID")
    image.SeriesInstanceUID = source_uid(source, "SeriesInstanceUID")
    image.SOPClassUID = reference.sop_class_uid if reference else str(source.get("SOPClassUID") or "")
    image.SOPInstanceUID = reference.sop_instance_uid if reference else str(source.get("SOPInstanceUID") or "")
    if not (image.SOPClassUID and image.SOPInstanceUID):
        raise ReportError("the source has no SOP Class UID or no SOP Instance UID: no result can refer to it")
    if reference and reference.frame_of_reference:
        image.FrameOfReferenceUID = reference.frame_of_reference
    if reference:
        image.ImagePositionPatient = [round(p, 6) for p in reference.position]
    _complete_geometry(image, analysis.volume)
    return image


def _complete_geometry(image: Dataset, volume: Volume | None) -> None:
    """Add the geometry that the image library describes; a multi-frame source has it in its functional groups."""
    if volume is None:
        return
    columns, rows = volume.affine[:3, 2] / volume.spacing[2], volume.affine[:3, 1] / volume.spacing[1]
    derived = {
        "Rows": volume.voxels.shape[1],
        "Columns": volume.voxels.shape[2],
        "PixelSpacing": [round(s, 6) for s in volume.spacing[1:]],
        "SliceThickness": round(volume.slice_thickness or volume.spacing[0], 6),
        "ImageOrientationPatient": [round(float(c), 6) + 0.0 for c in (*columns, *rows)],
        "ImagePositionPatient": [round(float(c), 6) for c in volume.affine[:3, 3]],
    }
    for keyword, value in derived.items():
        if image.get(keyword) in (None, ""):
            setattr(image, keyword, value)


def main_image(analysis: Analysis) -> Dataset:
    """Return the stand-in for the image that a text report refers to.

    It is the image of the most probable node, else the middle slice, or the instance of the header when there is no volume.
    """
    volume = analysis.volume
    if volume is None:
        return source_image(analysis, None)
    top = next(iter(wording.by_probability(analysis.findings)), None)
    return source_image(analysis, volume.slices[len(volume.slices) // 2 if top is None else top.node.slice_index])
