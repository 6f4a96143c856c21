"""Attributes that a result copies from its source: patient, study, the orders that it answers, and lossy compression."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

from pydicom import Dataset
from pydicom.multival import MultiValue

from alnnode.errors import ReportError
from alnnode.report.object_kind import ObjectNature
from alnnode.report.uids import uid

if TYPE_CHECKING:
    from alnnode.records import Analysis
    from alnnode.report.object_kind import ObjectKind

# Type 2: required, may be empty (PS3.3 C.7.1.1, C.7.2.1).
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
# Type 2 of the Clinical Trial modules (PS3.3 C.7.1.3, C.7.2.3, C.7.3.2): copied from the source, empty or not.
TRIAL = (
    "ClinicalTrialProtocolName", "ClinicalTrialSiteID", "ClinicalTrialSiteName", "ClinicalTrialTimePointID",
    "ClinicalTrialCoordinatingCenterName",
)  # fmt: skip
# Attributes of an item of the Referenced Request Sequence (PS3.3 C.17.2): type 2, and optional ones that a RIS may match by.
REQUEST = (
    "AccessionNumber", "PlacerOrderNumberImagingServiceRequest", "FillerOrderNumberImagingServiceRequest", "RequestedProcedureID",
    "RequestedProcedureDescription", "RequestedProcedureCodeSequence", "ReferencedStudySequence",
)  # fmt: skip
REQUEST_OPTIONAL = (
    "IssuerOfAccessionNumberSequence", "OrderPlacerIdentifierSequence", "OrderFillerIdentifierSequence",
    "ReasonForTheRequestedProcedure", "ReasonForRequestedProcedureCodeSequence",
)  # fmt: skip
LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")


def patient_and_study(analysis: Analysis) -> Dataset:
    """Return the patient and study attributes of the source unchanged, in its character set."""
    source, header = analysis.header, Dataset()
    for keyword in REQUIRED:
        header.add(deepcopy(source[keyword])) if keyword in source else setattr(header, keyword, None)
    for keyword in OPTIONAL:
        if keyword in source and source[keyword].value not in (None, ""):
            header.add(deepcopy(source[keyword]))
    for keyword in TRIAL:
        if keyword in source:
            header.add(deepcopy(source[keyword]))
    header.StudyInstanceUID = source_uid(source, "StudyInstanceUID")
    return header


def source_uid(source: Dataset, keyword: str) -> str:
    """Return the study or series UID of the source; when it is missing, a UID derived from its SOP Instance UID.

    Raises:
        ReportError: the source has no SOP Instance UID either, so that no object can refer to it.
    """
    found, instance = str(source.get(keyword) or ""), str(source.get("SOPInstanceUID") or "")
    if not found and not instance:
        raise ReportError(f"the source has neither {keyword} nor SOPInstanceUID: no result can refer to it")
    return found or uid(keyword, instance)


def request_attributes(analysis: Analysis, kind: ObjectKind) -> Dataset:
    """Return the orders of the source, by which a RIS matches the result, in the attribute that this kind of object has for them."""
    source, made = analysis.header, Dataset()
    orders = source.get("RequestAttributesSequence") or []
    if orders and kind.nature is ObjectNature.DOCUMENT:
        made.ReferencedRequestSequence = [_referenced_request(order, source) for order in orders]
    elif orders:
        made.add(deepcopy(source["RequestAttributesSequence"]))
    return made


def _referenced_request(order: Dataset, source: Dataset) -> Dataset:
    """Return an item of the Referenced Request Sequence: values of the Request Attributes item, else those of the study."""
    item = Dataset()
    for keyword in REQUEST:
        holder = (
            order if keyword in order or keyword in {"RequestedProcedureCodeSequence", "ReferencedStudySequence"} else source
        )
        if keyword in holder:
            item.add(deepcopy(holder[keyword]))
        else:
            setattr(item, keyword, [] if keyword.endswith("Sequence") else None)
    for keyword in REQUEST_OPTIONAL:
        if keyword in order:
            item.add(deepcopy(order[keyword]))
    item.StudyInstanceUID = str(order.get("StudyInstanceUID") or source.get("StudyInstanceUID") or "")
    return item


def lossy_compression(analysis: Analysis, kind: ObjectKind) -> Dataset:
    """Return the lossy compression of the source, which every derived image states (PS3.3 C.7.6.1.1.5)."""
    source, made = analysis.header, Dataset()
    if kind.nature is ObjectNature.IMAGE and str(source.get("LossyImageCompression", "")) == "01":
        for keyword in LOSSY:
            if keyword in source:
                made.add(deepcopy(source[keyword]))
    return made


def has_several_character_sets(dataset: Dataset) -> bool:
    """Return whether Specific Character Set has several values (ISO 2022 code extensions), which OHIF cannot read in a parametric map."""
    return isinstance(dataset.get("SpecificCharacterSet"), MultiValue)


def to_unicode(dataset: Dataset) -> None:
    """Set the character set of a data set to ISO_IR 192 (PS3.3 C.12.1.1.2); its values are encoded when it is saved."""
    dataset.SpecificCharacterSet = "ISO_IR 192"
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                _remove_character_set(item)


def _remove_character_set(item: Dataset) -> None:
    """Remove the character set of an item, so that it has that of the data set that holds it."""
    if "SpecificCharacterSet" in item:
        del item.SpecificCharacterSet
    for element in item:
        if element.VR == "SQ":
            for inner in element.value:
                _remove_character_set(inner)
