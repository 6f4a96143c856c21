"""What every result object has in common: patient and study of the source, dates of the job, bytes that repeat."""

from __future__ import annotations

import io
from copy import deepcopy
from typing import TYPE_CHECKING

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from alnnode import __version__
from alnnode.records import ObjectRole, ResultObject
from alnnode.report.uids import IMPLEMENTATION_CLASS_UID, uid

if TYPE_CHECKING:
    from alnnode.records import Analysis, ReportContext, SliceRef, Volume

# Type 2: must be there, may be empty (PS3.3 C.7.1.1, C.7.2.1).
REQUIRED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "AccessionNumber", "ReferringPhysicianName", "StudyID",
)  # fmt: skip
OPTIONAL = (
    "SpecificCharacterSet", "TimezoneOffsetFromUTC", "IssuerOfPatientID", "OtherPatientIDs", "PatientAge", "PatientSize", "PatientWeight",
    "PatientBirthTime", "PatientComments", "PatientIdentityRemoved", "DeidentificationMethod", "LongitudinalTemporalInformationModified",
    "StudyDescription", "PhysiciansOfRecord", "ProcedureCodeSequence", "ReferencedRequestSequence", "InstitutionName",
)  # fmt: skip
MANUFACTURER, MODEL_NAME = "alnnode", "alnnode axillary lymph node analysis"


def source_header(analysis: Analysis) -> Dataset:
    """Return the patient and study attributes of the source, complete enough to build on.

    A source without a Study or Series Instance UID gets ones that its place in the analysis gives, so that a report can exist.
    """
    source, header = analysis.header, Dataset()
    for keyword in REQUIRED:
        header.add(deepcopy(source[keyword])) if keyword in source else setattr(header, keyword, None)
    for keyword in OPTIONAL:
        if keyword in source and source[keyword].value not in (None, ""):
            header.add(deepcopy(source[keyword]))
    header.StudyInstanceUID = str(source.get("StudyInstanceUID") or uid("study", analysis.model.digest))
    return header


def source_image(analysis: Analysis, reference: SliceRef | None) -> Dataset:
    """Return a data set that stands for a source image: what a reference and an image library entry need of it."""
    source = analysis.header
    image = source_header(analysis)
    for keyword in (
        "SeriesInstanceUID", "FrameOfReferenceUID", "Modality", "Rows", "Columns", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices",
        "ImageOrientationPatient", "AcquisitionDate", "AcquisitionTime",
    ):  # fmt: skip
        if keyword in source:
            image.add(deepcopy(source[keyword]))
    image.SOPClassUID = reference.sop_class_uid if reference else str(source.get("SOPClassUID", ""))
    image.SOPInstanceUID = reference.sop_instance_uid if reference else str(source.get("SOPInstanceUID", ""))
    if reference:
        image.ImagePositionPatient = [round(p, 6) for p in reference.position]
    _complete_geometry(image, analysis.volume)
    return image


def _complete_geometry(image: Dataset, volume: Volume | None) -> None:
    """Give the image library what it describes: a multi-frame source keeps it in its functional groups."""
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


def finish(dataset: Dataset, analysis: Analysis, context: ReportContext, role: ObjectRole) -> ResultObject:
    """Set the patient, study, equipment and time attributes of an object and return its bytes."""
    for element in source_header(analysis):
        dataset.add(element)
    moment = context.created
    date, time = moment.strftime("%Y%m%d"), moment.strftime("%H%M%S")
    dataset.InstanceCreationDate = dataset.ContentDate = dataset.SeriesDate = date
    dataset.InstanceCreationTime = dataset.ContentTime = dataset.SeriesTime = time
    dataset.InstanceCreatorUID = IMPLEMENTATION_CLASS_UID
    dataset.Manufacturer, dataset.ManufacturerModelName = MANUFACTURER, MODEL_NAME
    dataset.SoftwareVersions = [f"alnnode {__version__}", f"{analysis.model.name} {analysis.model.version}"]
    dataset.DeviceSerialNumber = analysis.model.digest[:16]
    dataset.StationName = context.station
    dataset.SeriesDescription = series_description(analysis, role)
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = f"ALNNODE_{__version__}"[:16]
    dataset.file_meta = meta
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True, implicit_vr=False, little_endian=True)
    return ResultObject(
        role=role,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        study_instance_uid=str(dataset.StudyInstanceUID),
        transfer_syntax_uid=str(ExplicitVRLittleEndian),
        data=buffer.getvalue(),
    )


def series_description(analysis: Analysis, role: ObjectRole) -> str:
    """Return the Series Description (LO, 64 characters): what it is, and that it is not for clinical use."""
    what = {ObjectRole.SR: "AI axillary nodes", ObjectRole.CAPTURE: "AI axillary nodes, heatmaps"}[role]
    return f"{what} - {'DEMO MODEL, ' if analysis.model.demonstration else ''}NOT FOR CLINICAL USE"
