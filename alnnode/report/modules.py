"""What every result object has in common: patient and study of the source, dates of the job, bytes that repeat."""

from __future__ import annotations

import io
import unicodedata
from copy import deepcopy
from typing import TYPE_CHECKING

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from alnnode import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, RESULTS, __version__
from alnnode.errors import ReportError
from alnnode.records import Crop, ObjectRole, ResultObject
from alnnode.report import source_attributes, wording
from alnnode.report.times import moment
from alnnode.report.uids import content_uid, uid

if TYPE_CHECKING:
    from alnnode.records import Analysis, ReportContext, SliceRef, Volume

# Type 2: must be there, may be empty (PS3.3 C.7.1.1, C.7.2.1).
REQUIRED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "AccessionNumber", "ReferringPhysicianName", "StudyID",
)  # fmt: skip
OPTIONAL = (
    "SpecificCharacterSet", "IssuerOfPatientID", "OtherPatientIDs", "PatientAge", "PatientSize", "PatientWeight",
    "PatientBirthTime", "PatientComments", "PatientIdentityRemoved", "DeidentificationMethod", "LongitudinalTemporalInformationModified",
    "StudyDescription", "PhysiciansOfRecord", "ProcedureCodeSequence", "InstitutionName", "DeidentificationMethodCodeSequence",
    "IssuerOfPatientIDQualifiersSequence", "OtherPatientIDsSequence", "IssuerOfAccessionNumberSequence", "AdmissionID",
    "IssuerOfAdmissionIDSequence", "ClinicalTrialProtocolEthicsCommitteeName", "ClinicalTrialProtocolEthicsCommitteeApprovalNumber",
    "ClinicalTrialTimePointDescription", "LongitudinalTemporalOffsetFromEvent", "LongitudinalTemporalEventType",
    "ConsentForClinicalTrialUseSequence", "ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID", "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
)  # fmt: skip
# Type 2 of the Clinical Trial modules (PS3.3 C.7.1.3, C.7.2.3, C.7.3.2): as the source has them, empty or not.
TRIAL = (
    "ClinicalTrialProtocolName", "ClinicalTrialSiteID", "ClinicalTrialSiteName", "ClinicalTrialTimePointID",
    "ClinicalTrialCoordinatingCenterName",
)  # fmt: skip
MANUFACTURER, MODEL_NAME = "alnnode", "alnnode axillary lymph node analysis"
CREATOR = "alnnode^"  # a Person Name with one component

CONTENT = {
    ObjectRole.SR: "report",
    ObjectRole.CAPTURE: "captures",
    ObjectRole.SEGMENTATION: "masks",
    ObjectRole.PARAMETRIC_MAP: "Grad-CAM",
    ObjectRole.KEY_OBJECTS: "key images",
    ObjectRole.PRESENTATION_STATE: "boxes",
    ObjectRole.RESULTS_TREE: "list",
    ObjectRole.TEXT: "text",
    ObjectRole.PDF: "PDF",
    ObjectRole.REJECTION: "replaced",
}
# What is added to the Series Number; the map of the second network has the next one.
PLACE = {
    ObjectRole.SR: 1,
    ObjectRole.CAPTURE: 2,
    ObjectRole.SEGMENTATION: 3,
    ObjectRole.PARAMETRIC_MAP: 4,
    ObjectRole.KEY_OBJECTS: 6,
    ObjectRole.PRESENTATION_STATE: 7,
    ObjectRole.RESULTS_TREE: 8,
    ObjectRole.TEXT: 9,
    ObjectRole.PDF: 10,
    ObjectRole.REJECTION: 11,
}
SERIES_NUMBERS = 200_000  # above it ten thousand times the number would be no Integer String (PS3.5 6.2)
TEXT_VRS = ("LO", "SH", "ST", "LT", "UC", "UT")
SPELLINGS = str.maketrans(
    {"\u00b0": " degrees", "\u00b1": "+/-", "\u00b5": "u", "\u00d7": "x", "\u2013": "-", "\u2014": "-", "\u2026": "...", "\u2264": "<=", "\u2265": ">=",
     "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u00df": "ss"}
)  # fmt: skip


def source_header(analysis: Analysis) -> Dataset:
    """Return the patient and study attributes of the source as they came, in its character set."""
    source, header = analysis.header, Dataset()
    for keyword in REQUIRED:
        header.add(deepcopy(source[keyword])) if keyword in source else setattr(header, keyword, None)
    for keyword in OPTIONAL:
        if keyword in source and source[keyword].value not in (None, ""):
            header.add(deepcopy(source[keyword]))
    for keyword in TRIAL:
        if keyword in source:
            header.add(deepcopy(source[keyword]))
    header.StudyInstanceUID = _identity(source, "StudyInstanceUID")
    return header


def _identity(source: Dataset, keyword: str) -> str:
    """Return the study or series UID of the source; where it has none, one that follows from its instance.

    Raises:
        ReportError: the source has no SOP Instance UID either, so that nothing could refer to it.
    """
    found, instance = str(source.get(keyword) or ""), str(source.get("SOPInstanceUID") or "")
    if not found and not instance:
        raise ReportError(f"the source has neither {keyword} nor SOPInstanceUID: no result can refer to it")
    return found or uid(keyword, instance)


def source_image(analysis: Analysis, reference: SliceRef | None) -> Dataset:
    """Return a data set that stands for a source image: what a reference and an image library entry need of it.

    Patient attributes are empty here: the library that builds the report refuses values that a hospital's source may have
    (a character set with an empty first value, a sex spelt out). `finish` writes them as they came.

    Raises:
        ReportError: there is no image that a result could refer to.
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
    image.StudyInstanceUID = _identity(source, "StudyInstanceUID")
    image.SeriesInstanceUID = _identity(source, "SeriesInstanceUID")
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


def finish(
    dataset: Dataset,
    analysis: Analysis,
    context: ReportContext,
    role: ObjectRole,
    crop: Crop | None = None,
    syntax: UID = ExplicitVRLittleEndian,
) -> ResultObject:
    """Set the patient, study, equipment and time attributes of an object, name it by its content, and return its bytes.

    ``syntax`` is that of its pixel data.
    """
    date, time, offset = moment(analysis.header, context)
    dataset.InstanceCreationDate = dataset.SeriesDate = date
    dataset.InstanceCreationTime = dataset.SeriesTime = time
    if role is not ObjectRole.PRESENTATION_STATE:  # it has the Presentation Creation Date instead
        dataset.ContentDate, dataset.ContentTime = date, time
    dataset.InstanceCreatorUID = IMPLEMENTATION_CLASS_UID
    dataset.Manufacturer, dataset.ManufacturerModelName = MANUFACTURER, MODEL_NAME
    dataset.SoftwareVersions = [f"alnnode {__version__}", f"{analysis.model.name} {analysis.model.version}"[:64]]
    dataset.DeviceSerialNumber = analysis.model.digest[:16]
    dataset.StationName = context.station
    dataset.SeriesDescription = series_description(analysis, role, crop)
    _plain(dataset)
    if "SpecificCharacterSet" in dataset:
        del dataset.SpecificCharacterSet
    for element in (
        *source_header(analysis),
        *source_attributes.request(analysis, role),
        *source_attributes.loss(analysis, role),
    ):
        dataset.add(element)
    if offset is not None:
        dataset.TimezoneOffsetFromUTC = offset
    if context.options.unicode or (role is ObjectRole.PARAMETRIC_MAP and source_attributes.has_several_character_sets(dataset)):
        source_attributes.to_unicode(dataset)
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    dataset.file_meta = meta
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = UID(content_uid(dataset.SOPInstanceUID, _encoded(dataset)))
    return ResultObject(
        role=role,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        study_instance_uid=str(dataset.StudyInstanceUID),
        transfer_syntax_uid=str(syntax),
        data=_encoded(dataset),
    )


def _encoded(dataset: Dataset) -> bytes:
    """Return the bytes of a Part 10 file."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True, implicit_vr=False, little_endian=True)
    return buffer.getvalue()


def drop_library(dataset: Dataset) -> None:
    """Take out what would name the library that wrote the object and the moment of writing."""
    if "ContributingEquipmentSequence" in dataset:
        del dataset.ContributingEquipmentSequence


def _plain(dataset: Dataset) -> None:
    """Spell our own words in ASCII: the character set is the source's, and it need not know a degree sign."""
    for element in dataset.iterall():
        if element.VR in TEXT_VRS and isinstance(element.value, str):
            element.value = ascii_words(element.value)


def ascii_words(text: str) -> str:
    """Return the text in ASCII; a letter keeps its base, any other sign without a spelling becomes a question mark."""
    spelt = unicodedata.normalize("NFKD", text.translate(SPELLINGS))
    return "".join(c for c in spelt if not unicodedata.combining(c)).encode("ascii", "replace").decode("ascii")


def series_description(analysis: Analysis, role: ObjectRole, crop: Crop | None = None) -> str:
    """Return "AI nodes of series 4: Grad-CAM FSC - DEMO, NOT FOR CLINICAL USE" (LO, 64 characters).

    Of which series, what, of which network, and that it is not for clinical use.
    """
    number = _source_number(analysis)
    notice = f" - {'DEMO, ' if analysis.model.demonstration else ''}NOT FOR CLINICAL USE"
    what = CONTENT[role] if crop is None else f"{CONTENT[role]} {crop.value.upper()}"
    head = f"{RESULTS[0]} {'?' if number is None else number}: "
    return head + what.replace("Grad-CAM", "CAM" if len(head + what + notice) > 64 else "Grad-CAM") + notice


def series_number(analysis: Analysis, role: ObjectRole, crop: Crop | None = None) -> int:
    """Return the Series Number of a result: 49001 is the report of series 4, 9001 that of a series without number.

    So the results of several series of a study differ, and come after what they are of.
    """
    place = 9000 + PLACE[role] + int(crop is Crop.ASC)
    number = _source_number(analysis) or 0
    return place + (number if number > SERIES_NUMBERS else 10_000 * number)


def _source_number(analysis: Analysis) -> int | None:
    """Return the Series Number of the source; None where it has none, or one that no result could be numbered after."""
    try:
        number = int(str(analysis.header.get("SeriesNumber", "")))
    except ValueError:
        return None
    return number if 0 <= number < 10**9 else None


def main_image(analysis: Analysis) -> Dataset:
    """Return the stand-in of the image that a text report refers to.

    That of the most probable node, else the middle slice, or the header's own instance where no volume could be built.
    """
    volume = analysis.volume
    if volume is None:
        return source_image(analysis, None)
    top = next(iter(wording.by_probability(analysis.findings)), None)
    return source_image(analysis, volume.slices[len(volume.slices) // 2 if top is None else top.node.slice_index])
