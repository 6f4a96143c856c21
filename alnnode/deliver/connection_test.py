"""A test study for a destination: one capture and one structured report, marked so that nobody takes it for a patient.

The UIDs follow from the AE title of the node and the name of the destination, and the content has a fixed date: a second test sends the same
bytes, so that a PACS holds one test study of each node.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ComprehensiveSRStorage, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from alnnode import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, MANUFACTURER, __version__
from alnnode.deliver.destination import OutboxFile

if TYPE_CHECKING:
    from pathlib import Path

PATIENT_NAME, PATIENT_ID = "ALNNODE^CONNECTION TEST", "ALNNODE-TEST"
DESCRIPTION = "alnnode connection test, not a patient"
NOTICE = "CONNECTION TEST OF ALNNODE\nNOT A PATIENT, NOT A RESULT\nThis study may be deleted."
DATE, TIME = "20000101", "000000"
ROWS, COLUMNS = 128, 384
NAMESPACE = uuid.UUID("1b6f6a4e-8c1d-5d0c-9a52-3f0a5f3d7a11")  # of the names from which the UIDs are made (RFC 9562 5.5)


def study_uid(ae_title: str, destination: str) -> str:
    """Return the Study Instance UID of the test study of a node for a destination."""
    return _uid(ae_title, destination, "study")


def write_test_study(folder: Path, ae_title: str, destination: str) -> list[OutboxFile]:
    """Write the two objects into a folder.

    Args:
        folder: exists.
        ae_title: of the node; it is the Station Name.
        destination: name in the settings.
    """
    found = []
    for kind, data in (("capture", _capture()), ("report", _report())):
        data.StudyInstanceUID = study_uid(ae_title, destination)
        data.SeriesInstanceUID = _uid(ae_title, destination, f"{kind} series")
        data.SOPInstanceUID = _uid(ae_title, destination, kind)
        data.StationName = ae_title
        data.file_meta = _meta(data)
        path = folder / f"{kind}.dcm"
        data.save_as(path, enforce_file_format=True)
        found.append(OutboxFile(data.SOPClassUID, data.SOPInstanceUID, ExplicitVRLittleEndian, path))
    return found


def _uid(*names: str) -> str:
    """Return a UID of the form 2.25.… (PS3.5 B.2) that follows from names."""
    return f"2.25.{uuid.uuid5(NAMESPACE, chr(0).join((__version__, *names))).int}"


def _meta(data: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return meta


def _common(sop_class: UID, modality: str, number: int) -> Dataset:
    """Return what both objects share: the patient, the study, the series and the equipment (PS3.3 C.7.1 to C.7.5)."""
    data = Dataset()
    data.SOPClassUID, data.Modality = sop_class, modality
    data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = PATIENT_NAME, PATIENT_ID, "", ""
    data.PatientComments = DESCRIPTION
    data.StudyDate = data.SeriesDate = data.ContentDate = DATE
    data.StudyTime = data.SeriesTime = data.ContentTime = TIME
    data.AccessionNumber, data.ReferringPhysicianName, data.StudyID = "", "", "TEST"
    data.StudyDescription = data.SeriesDescription = DESCRIPTION
    data.SeriesNumber, data.InstanceNumber = number, 1
    data.Manufacturer, data.ManufacturerModelName, data.SoftwareVersions = MANUFACTURER, "alnnode", __version__
    data.DeviceSerialNumber = "TEST"
    return data


def _capture() -> Dataset:
    """Return a Secondary Capture with the notice as its picture (PS3.3 A.8.1)."""
    data = _common(SecondaryCaptureImageStorage, "OT", 1)
    picture = Image.new("L", (COLUMNS, ROWS))
    ImageDraw.Draw(picture).text((12, 12), NOTICE, fill=255, font_size=18)
    data.ConversionType, data.PatientOrientation, data.Laterality = "SYN", "", ""
    data.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    data.QualityControlImage, data.BurnedInAnnotation = "YES", "NO"
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = ROWS, COLUMNS
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.PixelData = picture.tobytes()
    data["PixelData"].VR = "OB"
    return data


def _report() -> Dataset:
    """Return a Comprehensive SR with the notice as its text, because some destinations store images only (PS3.3 A.35.3)."""
    data = _common(ComprehensiveSRStorage, "SR", 2)
    data.CompletionFlag, data.VerificationFlag, data.PreliminaryFlag = "COMPLETE", "UNVERIFIED", "PRELIMINARY"
    data.ReferencedPerformedProcedureStepSequence = []
    data.PerformedProcedureCodeSequence = []
    data.ValueType, data.ContinuityOfContent = "CONTAINER", "SEPARATE"
    data.ConceptNameCodeSequence = [_code("121106", "Comment")]
    text = Dataset()
    text.RelationshipType, text.ValueType, text.TextValue = "CONTAINS", "TEXT", NOTICE.replace("\n", ". ")
    text.ConceptNameCodeSequence = [_code("121106", "Comment")]
    data.ContentSequence = [text]
    return data


def _code(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code
