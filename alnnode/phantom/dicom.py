"""Phantoms as CT Image Storage instances (PS3.3 A.3); the bytes are the same on every run."""

from __future__ import annotations

import uuid
from dataclasses import fields
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from alnnode.phantom.settings import PhantomError, Phase, Position

if TYPE_CHECKING:
    from pathlib import Path

    from alnnode.phantom.patient import Phantom

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://alnnode.invalid/phantom")
_DATE, _TIME = "20240102", "101500"
_INTERCEPT = -1024
_IMPLEMENTATION = UID(f"2.25.{uuid.uuid5(_NAMESPACE, 'implementation').int}")


def object_uid(phantom: Phantom, *role: str | int) -> UID:
    """Return the UID (``2.25.`` + uuid5, PS3.5 B.2) of the study, the series or an instance of a phantom.

    Args:
        phantom: the UID depends on everything that determines its pixels.
        role: the object that the UID is for, unique within the phantom.
    """
    # "Habit" is a former class name: it stays, so that a phantom keeps the UIDs that earlier versions gave it.
    values = ", ".join(f"{field.name}={getattr(phantom.patient, field.name)!r}" for field in fields(phantom.patient))
    names = [repr(phantom.seed), repr(phantom.index), f"Habit({values})", repr(phantom.hu.shape), *map(repr, role)]
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, '/'.join(names)).int}")


def series_uid(phantom: Phantom) -> UID:
    """Return the Series Instance UID."""
    return object_uid(phantom, "series")


def instance_uid(phantom: Phantom, k: int) -> UID:
    """Return the SOP Instance UID of slice ``k`` (from the feet)."""
    return object_uid(phantom, "instance", k)


def write_series(phantom: Phantom, folder: Path) -> list[Path]:
    """Write the slices of a phantom as Part 10 files, explicit VR little endian.

    Args:
        phantom: the phantom to write.
        folder: created if it does not exist. The file names are ``CT0001.dcm`` …, with the Instance Number.

    Returns:
        The paths, ordered by slice from the feet to the head.

    Raises:
        PhantomError: the folder contains files.
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise PhantomError(
            "Cannot write the series: the folder is not empty; choose another folder, because a folder may contain one series only"
        )
    common = _common(phantom)
    paths = []
    for k in range(len(phantom.hu)):
        data = _instance(phantom, common, k)
        path = folder / f"CT{int(data.InstanceNumber):04d}.dcm"
        buffer = BytesIO()
        data.save_as(buffer, enforce_file_format=True)
        path.write_bytes(buffer.getvalue())
        paths.append(path)
    return paths


def _common(phantom: Phantom) -> Dataset:
    """Return the attributes that all instances share."""
    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 100"
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.SOPClassUID = CTImageStorage
    data.StudyDate = data.SeriesDate = data.AcquisitionDate = data.ContentDate = data.InstanceCreationDate = _DATE
    data.StudyTime = data.SeriesTime = data.AcquisitionTime = data.ContentTime = data.InstanceCreationTime = _TIME
    data.AccessionNumber = f"PH{phantom.seed % 10**6:06d}{phantom.index % 10**5:05d}"
    data.Modality = "CT"
    data.Manufacturer = "alnnode"
    data.ManufacturerModelName = "Synthetic phantom"
    data.SoftwareVersions = "phantom 1"
    data.DeviceSerialNumber = "0"
    data.InstitutionName = "SYNTHETIC"
    data.ReferringPhysicianName = ""
    data.StudyDescription = "SYNTHETIC PHANTOM CHEST"
    data.SeriesDescription = "SYNTHETIC PHANTOM - NOT A PATIENT"
    data.PatientName = f"PHANTOM^{phantom.index + 1:04d}"
    data.PatientID = f"PHANTOM-{phantom.seed}-{phantom.index + 1:04d}"
    data.PatientBirthDate = ""
    data.PatientSex = "O"
    data.PatientComments = "Synthetic image, drawn by a program"
    _acquisition(data, phantom)
    _pixels(data, phantom)
    return data


def _acquisition(data: Dataset, phantom: Phantom) -> None:
    patient = phantom.patient
    if patient.phase is not Phase.NONE:
        data.ContrastBolusAgent = "SIMULATED"
    data.BodyPartExamined = "CHEST"
    data.ScanOptions = "AXIAL"
    data.SliceThickness = _decimal(patient.thickness)
    data.KVP = "120"
    data.SpacingBetweenSlices = _decimal(patient.thickness)
    data.DataCollectionDiameter = "500"
    data.ReconstructionDiameter = _decimal(patient.spacing * phantom.hu.shape[2])
    data.GantryDetectorTilt = "0"
    data.ConvolutionKernel = "PHANTOM"
    data.PatientPosition = patient.position.value
    data.StudyInstanceUID = object_uid(phantom, "study")
    data.SeriesInstanceUID = series_uid(phantom)
    data.StudyID = "1"
    data.SeriesNumber = 1
    data.AcquisitionNumber = 1
    data.FrameOfReferenceUID = object_uid(phantom, "frame of reference")
    data.PositionReferenceIndicator = ""
    data.ImageOrientationPatient = [int(v) for v in np.r_[np.sign(phantom.affine[:3, 2]), np.sign(phantom.affine[:3, 1])]]


def _pixels(data: Dataset, phantom: Phantom) -> None:
    patient = phantom.patient
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.Rows, data.Columns = phantom.hu.shape[1:]
    data.PixelSpacing = [_decimal(patient.spacing)] * 2
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    if patient.padding:
        data.PixelPaddingValue = 0
    data.WindowCenter, data.WindowWidth = "40", "400"
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = str(_INTERCEPT), "1", "HU"
    data.BurnedInAnnotation = "NO"


def _instance(phantom: Phantom, common: Dataset, k: int) -> Dataset:
    data = Dataset()
    data.update(common)
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = instance_uid(phantom, k)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = _IMPLEMENTATION
    meta.ImplementationVersionName = "ALNNODE_PHANTOM"
    data.file_meta = meta
    data.SOPInstanceUID = instance_uid(phantom, k)
    # A scanner numbers the slices in scan order: from the head (head first) or from the feet (feet first).
    feet_first = phantom.patient.position is Position.FFS
    data.InstanceNumber = k + 1 if feet_first else len(phantom.hu) - k
    position = phantom.affine @ np.array([k, 0, 0, 1.0])
    data.ImagePositionPatient = [_decimal(float(v)) for v in position[:3]]
    data.SliceLocation = _decimal(float(position[2]))
    data.PixelData = (phantom.hu[k].astype(np.int32) - _INTERCEPT).astype("<u2").tobytes()
    return data


def _decimal(value: float) -> str:
    """Return a Decimal String (at most 16 characters, PS3.5 Table 6.2-1); negative zero becomes 0."""
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return "0" if text in {"-0", ""} else text
