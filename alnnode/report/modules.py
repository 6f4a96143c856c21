"""The modules that all result objects share: patient and study of the source, equipment, date and time; and reproducible bytes."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from alnnode import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, __version__
from alnnode.records import ObjectRole, ResultObject
from alnnode.report import source_attributes
from alnnode.report.ascii_text import to_ascii
from alnnode.report.series_naming import series_description
from alnnode.report.times import moment
from alnnode.report.uids import content_uid

if TYPE_CHECKING:
    from alnnode.records import Analysis, Crop, ReportContext
    from alnnode.report.object_kind import ObjectKind

MANUFACTURER, MODEL_NAME = "alnnode", "alnnode axillary lymph node analysis"
CREATOR = "alnnode^"  # a Person Name with one component


def finish(
    dataset: Dataset,
    analysis: Analysis,
    context: ReportContext,
    kind: ObjectKind,
    crop: Crop | None = None,
    syntax: UID = ExplicitVRLittleEndian,
) -> ResultObject:
    """Set the patient, study, equipment and time attributes of an object, derive its UID from its content, and return it as bytes.

    Args:
        dataset: the object.
        analysis: of the series.
        context: of the job.
        kind: of the object.
        crop: the network that it shows; None: both.
        syntax: transfer syntax of its pixel data.
    """
    date, time, offset = moment(analysis.header, context)
    dataset.InstanceCreationDate = dataset.SeriesDate = date
    dataset.InstanceCreationTime = dataset.SeriesTime = time
    if kind.content_date:
        dataset.ContentDate, dataset.ContentTime = date, time
    dataset.InstanceCreatorUID = IMPLEMENTATION_CLASS_UID
    dataset.Manufacturer, dataset.ManufacturerModelName = MANUFACTURER, MODEL_NAME
    dataset.SoftwareVersions = [f"alnnode {__version__}", f"{analysis.model.name} {analysis.model.version}"[:64]]
    dataset.DeviceSerialNumber = analysis.model.digest[:16]
    dataset.StationName = context.station
    dataset.SeriesDescription = series_description(analysis, kind, crop)
    to_ascii(dataset)
    if "SpecificCharacterSet" in dataset:
        del dataset.SpecificCharacterSet
    for element in (
        *source_attributes.patient_and_study(analysis),
        *source_attributes.request_attributes(analysis, kind),
        *source_attributes.lossy_compression(analysis, kind),
    ):
        dataset.add(element)
    if offset is not None:
        dataset.TimezoneOffsetFromUTC = offset
    if context.options.unicode or (
        kind.role is ObjectRole.PARAMETRIC_MAP and source_attributes.has_several_character_sets(dataset)
    ):
        source_attributes.to_unicode(dataset)
    dataset.file_meta = meta = _file_meta(dataset, syntax)
    provisional, head, element = _encoded(dataset), _encoded_head(meta), _instance_uid(dataset)
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = UID(content_uid(dataset.SOPInstanceUID, provisional))
    # The final bytes differ in the UID only: encoding the content again would take as long as before.
    before, _, after = provisional[len(head) :].partition(element)
    return ResultObject(
        role=kind.role,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        study_instance_uid=str(dataset.StudyInstanceUID),
        transfer_syntax_uid=str(syntax),
        data=b"".join((_encoded_head(meta), before, _instance_uid(dataset), after)),
    )


def _file_meta(dataset: Dataset, syntax: UID) -> FileMetaDataset:
    """Return the File Meta Information of an object (PS3.10 section 7.1)."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return meta


def _encoded(dataset: Dataset) -> bytes:
    """Return the bytes of a Part 10 file."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True, implicit_vr=False, little_endian=True)
    return buffer.getvalue()


def _encoded_head(meta: FileMetaDataset) -> bytes:
    """Return the bytes of a Part 10 file before its data set."""
    empty = Dataset()
    empty.file_meta = meta
    return _encoded(empty)


def _instance_uid(dataset: Dataset) -> bytes:
    """Return the encoded SOP Instance UID. It is among the first elements, before any sequence that could hold another one."""
    value = str(dataset.SOPInstanceUID).encode("ascii")
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HH2sH", 0x0008, 0x0018, b"UI", len(value)) + value


def delete_contributing_equipment(dataset: Dataset) -> None:
    """Delete the Contributing Equipment that highdicom adds: it states the version of the library and the time of writing."""
    if "ContributingEquipmentSequence" in dataset:
        del dataset.ContributingEquipmentSequence
