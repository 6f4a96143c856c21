"""Undamaged input of the fuzzer: objects of every kind that the node accepts or produces, and a model bundle."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import analyses
import ct_series
import dicom_objects
from bundles import write_bundle
from odd_objects import BAD
from pydicom import Dataset, dcmread
from pydicom.uid import RLELossless, RTStructureSetStorage

from alnnode import report
from chaos.bodies import MarkSeeds

if TYPE_CHECKING:
    from pathlib import Path


class Seeds:
    """Undamaged objects of every kind that the node accepts, as Part 10 files, and a model bundle."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bundle = write_bundle(folder / "bundle")
        slices = [ct_series.ct_slice(k) for k in range(6)]
        compressed = dicom_objects.ct(1)
        compressed.compress(RLELossless)
        made = report.build(
            analyses.analysis(2), analyses.EVERYTHING
        )  # SR, captures, SEG, maps, key objects, presentation states
        self.images = [dicom_objects.ct(number, side=32) for number in (1, 2)]
        self.odd = [make() for make in BAD.values()]
        self.marks = MarkSeeds(folder)
        self.series = [_bytes(one) for one in slices]
        self.objects = [
            _bytes(dicom_objects.ct(1, side=32)), _bytes(ct_series.enhanced(6)), _bytes(compressed), _bytes(structures()),
            *(item.data for item in made), *self.marks.objects,
        ]  # fmt: skip


def structures() -> Dataset:
    """An RT Structure Set with one contour (PS3.3 section C.8.8.5 and C.8.8.6)."""
    found = dcmread(io.BytesIO(_bytes(dicom_objects.ct(5))))
    del found.PixelData
    found.SOPClassUID = found.file_meta.MediaStorageSOPClassUID = RTStructureSetStorage
    found.Modality, found.StructureSetLabel = "RTSTRUCT", "nodes"
    contour, roi, named = Dataset(), Dataset(), Dataset()
    contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", 3
    contour.ContourData = [0, 0, 0, 5, 0, 0, 0, 5, 0]
    roi.ReferencedROINumber, roi.ContourSequence = 1, [contour]
    named.ROINumber, named.ROIName = 1, "node 1"
    found.ROIContourSequence, found.StructureSetROISequence = [roi], [named]
    return found


def _bytes(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
