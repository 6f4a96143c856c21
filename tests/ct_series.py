"""Small CT series, written as the tests need them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom import Dataset, FileMetaDataset
from pydicom.dataset import FileDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

ROOT = "1.2.826.0.1.3680043.10.999"
SIDE = 64
SUPINE = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def pixels(k: int) -> np.ndarray:
    """Stored values that differ from slice to slice and along both axes: HU = value - 1024."""
    j, i = np.mgrid[:SIDE, :SIDE]
    return (1000 + 10 * k + 3 * j + i).astype(np.uint16)


def position(k: int, spacing: float = 2.0, orientation: tuple[float, ...] = SUPINE) -> list[float]:
    """Slice k counted from the feet, stacked along the normal, the field of view centred on the body axis."""
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    normal = np.cross(row, column)
    normal = normal if normal[2] >= 0 else -normal
    corner = normal * (k * spacing - 100.0) - (row + column) * 0.8 * (SIDE - 1) / 2
    return [round(float(v), 6) for v in corner]


def ct_slice(k: int, spacing: float = 2.0, orientation: tuple[float, ...] = SUPINE, **changes: Any) -> FileDataset:
    """One single-frame CT image; ``changes`` replace attributes, or delete them when None."""
    dataset = _instance(CTImageStorage, f"{ROOT}.1.{k + 1}")
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.ImagePositionPatient = position(k, spacing, orientation)
    dataset.ImageOrientationPatient = list(orientation)
    dataset.PixelSpacing = [0.8, 0.8]
    dataset.SliceThickness = 2.0
    dataset.InstanceNumber = 1000 - 7 * k  # a lie: it must not matter
    dataset.RescaleIntercept, dataset.RescaleSlope = -1024, 1
    dataset.PixelData = pixels(k).tobytes()
    return changed(dataset, **changes)


def changed(dataset: FileDataset, **changes: Any) -> FileDataset:
    """Replace attributes of a data set, or delete them when None."""
    for keyword, value in changes.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    return dataset


def enhanced(count: int = 6, spacing: float = 2.0, **changes: Any) -> FileDataset:
    """An Enhanced CT image: frames from the head down, each frame with its own intercept."""
    dataset = _instance(EnhancedCTImageStorage, f"{ROOT}.2.1")
    dataset.NumberOfFrames = count
    shared = Dataset()
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=list(SUPINE))]
    shared.PixelMeasuresSequence = [_item(PixelSpacing=[0.8, 0.8], SliceThickness=2.0)]
    shared.CTImageFrameTypeSequence = [_item(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])]
    dataset.SharedFunctionalGroupsSequence = [shared]
    order = list(reversed(range(count)))
    dataset.PerFrameFunctionalGroupsSequence = []
    for k in order:
        frame = Dataset()
        frame.PlanePositionSequence = [_item(ImagePositionPatient=position(k, spacing))]
        frame.PixelValueTransformationSequence = [_item(RescaleIntercept=-1024 - k, RescaleSlope=1, RescaleType="HU")]
        dataset.PerFrameFunctionalGroupsSequence.append(frame)
    dataset.PixelData = b"".join((pixels(k) + k).astype(np.uint16).tobytes() for k in order)
    return changed(dataset, **changes)


def write(datasets: Iterable[FileDataset], folder: Path) -> list[Path]:
    """Write each data set to its own Part 10 file."""
    folder.mkdir(exist_ok=True)
    paths = []
    for number, dataset in enumerate(datasets):
        paths.append(folder / f"{number:04d}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def _item(**attributes: Any) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def _instance(sop_class: str, uid: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, uid
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{ROOT}.3", f"{ROOT}.4"
    dataset.FrameOfReferenceUID = f"{ROOT}.5"
    dataset.Modality, dataset.PatientID, dataset.PatientName = "CT", "SECRET-ID", "Secret^Name"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows = dataset.Columns = SIDE
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    return dataset
