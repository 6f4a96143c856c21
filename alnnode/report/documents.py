"""What the text and the measurement reports share: the document around the content, who speaks, what is said in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    CompositeContentItem,
    Comprehensive3DSR,
    ComprehensiveSR,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    ImageContentItem,
    LanguageOfContentItemAndDescendants,
    ObservationContext,
    ObserverContext,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes as standard

from alnnode import IMPLEMENTATION_CLASS_UID
from alnnode.records import ObjectRole, SRClass
from alnnode.report import changes, codes, modules, words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydicom.sr.coding import Code

    from alnnode.comparison import Prior
    from alnnode.records import Analysis, ReportContext, ResultObject

CONTAINS = RelationshipTypeValues.CONTAINS
IMAGES = frozenset({ObjectRole.CAPTURE, ObjectRole.SEGMENTATION, ObjectRole.PARAMETRIC_MAP})


def document(
    context: ReportContext,
    *,
    content: Dataset,
    evidence: Sequence[Dataset],
    series_uid: str,
    instance_uid: str,
    series_number: int,
) -> Dataset:
    """Return the SR document of the wanted SOP class: complete, preliminary, unverified, for nobody has looked at it."""
    kind = Comprehensive3DSR if context.options.sr_class is SRClass.COMPREHENSIVE_3D else ComprehensiveSR
    made: Dataset = kind(
        evidence=list(evidence),
        content=content,
        series_instance_uid=series_uid,
        series_number=series_number,
        sop_instance_uid=instance_uid,
        instance_number=1,
        manufacturer=modules.MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
    )
    made.CodingSchemeIdentificationSequence = [codes.coding_scheme()]
    modules.drop_library(made)
    return made


def template(identifier: str) -> Dataset:
    """Return an item of the Content Template Sequence."""
    item = Dataset()
    item.MappingResource, item.TemplateIdentifier = "DCMR", identifier
    return item


def sentences(analysis: Analysis) -> list[tuple[Code, str]]:
    """Return the summary: what it is not for, the patient, each axilla, the operating point, the geometry."""
    texts: list[tuple[Code, str]] = [(codes.COMMENT, analysis.model.banner), (codes.CONCLUSION, words.patient(analysis))]
    if analysis.volume is not None:
        texts += [(codes.FINDING, sentence) for sentence in words.sides(analysis)]
        texts += [(codes.FINDING, sentence) for sentence in changes.sentences(analysis)]
        texts += [(codes.COMMENT, sentence) for sentence in changes.error(analysis)]
        texts += [(codes.COMMENT, f"Geometry: {note}") for note in analysis.volume.notes]
    texts += [(codes.COMMENT, f"Marks: {remark}") for remark in analysis.remarks]
    texts.append((codes.COMMENT, words.operating_point(analysis.model.operating_point)))
    return texts


def device_observer(analysis: Analysis, name: str) -> ObserverContext:
    """Return TID 1004: the node, by its software and its model."""
    return ObserverContext(
        observer_type=standard.DCM.Device,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=IMPLEMENTATION_CLASS_UID,
            name=name,
            manufacturer_name=modules.MANUFACTURER,
            model_name=modules.MODEL_NAME,
            serial_number=analysis.model.digest[:16],
        ),
    )


def algorithm(analysis: Analysis) -> AlgorithmIdentification:
    """Return TID 4019. Without the optional manufacturer, which a common validator does not know."""
    model = analysis.model
    return AlgorithmIdentification(
        name=model.name, version=model.version, family=codes.ARTIFICIAL_INTELLIGENCE, parameters=_parameters(analysis)
    )


def _parameters(analysis: Analysis) -> list[str]:
    model = analysis.model
    return [
        f"bundle sha256 {model.digest}",
        words.operating_point(model.operating_point),
        f"training data: {model.training_data}",
        model.banner,
    ]


def reference(item: ResultObject) -> ContentItem:
    """Return the item that points at another result object."""
    kind = ImageContentItem if item.role in IMAGES else CompositeContentItem
    return kind(
        name=codes.RESULT[item.role],
        referenced_sop_class_uid=item.sop_class_uid,
        referenced_sop_instance_uid=item.sop_instance_uid,
        relationship_type=CONTAINS,
    )


def prior_reference(analysis: Analysis) -> list[ContentItem]:
    """Return the item that points at the earlier report of a comparison; none without one."""
    return [
        CompositeContentItem(
            name=codes.PRIOR_REPORT,
            referenced_sop_class_uid=prior.sop_class_uid,
            referenced_sop_instance_uid=prior.sop_instance_uid,
            relationship_type=CONTAINS,
        )
        for prior in _priors(analysis)
    ]


def prior_evidence(analysis: Analysis) -> list[Dataset]:
    """Return what the evidence needs of it: of another study, so it goes to the Pertinent Other Evidence (PS3.3 C.17.2)."""
    return [
        evidence(prior.study_instance_uid, prior.series_instance_uid, prior.sop_class_uid, prior.sop_instance_uid)
        for prior in _priors(analysis)
    ]


def _priors(analysis: Analysis) -> list[Prior]:
    comparison = analysis.comparison
    return [] if comparison is None or comparison.prior is None else [comparison.prior]


def stand_in(item: ResultObject) -> Dataset:
    """Return what the evidence needs of another result object."""
    return evidence(item.study_instance_uid, item.series_instance_uid, item.sop_class_uid, item.sop_instance_uid)


def evidence(study: str, series: str, sop_class: str, sop_instance: str) -> Dataset:
    """Return what the evidence needs of an object."""
    made = Dataset()
    for keyword in modules.REQUIRED:
        setattr(made, keyword, None)
    made.StudyInstanceUID, made.SeriesInstanceUID = study, series
    made.SOPClassUID, made.SOPInstanceUID = sop_class, sop_instance
    return made


def text_root(analysis: Analysis, station: str) -> tuple[ContainerContentItem, ContainerContentItem]:
    """Return a TID 2000 report in words, and its container of findings to add to."""
    root = ContainerContentItem(name=codes.DIAGNOSTIC_IMAGING_REPORT, template_id="2000")
    root.ContentSequence = ContentSequence(is_root=False)
    root.ContentSequence.extend(LanguageOfContentItemAndDescendants(CodedConcept.from_code(codes.ENGLISH)))
    for item in _device_items(analysis, station):
        root.ContentSequence.append(item)
    findings = ContainerContentItem(name=codes.FINDINGS, relationship_type=CONTAINS)
    findings.ContentSequence = ContentSequence()
    conclusions = ContainerContentItem(name=codes.CONCLUSIONS, relationship_type=CONTAINS)
    conclusions.ContentSequence = ContentSequence()
    for name, text in sentences(analysis):
        section, concept = (conclusions, codes.CONCLUSION) if name is codes.CONCLUSION else (findings, codes.FINDING)
        section.ContentSequence.append(TextContentItem(name=concept, value=text, relationship_type=CONTAINS))
    # TID 2000 has no place for TID 4019; the same concepts, as text.
    model = analysis.model
    for name, text in (
        (standard.DCM.AlgorithmName, model.name),
        (standard.DCM.AlgorithmVersion, model.version),
        *((standard.DCM.AlgorithmParameters, parameter) for parameter in _parameters(analysis)),
    ):
        findings.ContentSequence.append(TextContentItem(name=name, value=text, relationship_type=CONTAINS))
    root.ContentSequence.append(findings)
    root.ContentSequence.append(conclusions)
    return root, findings


def _device_items(analysis: Analysis, station: str) -> list[ContentItem]:
    """Return the device observer (TID 1002, 1004) of a text report."""
    context = ObservationContext(observer_device_context=device_observer(analysis, station))
    for item in context:
        item.RelationshipType = RelationshipTypeValues.HAS_OBS_CONTEXT.value
    return [item for item in context if isinstance(item, ContentItem)]
