"""What the text and the measurement reports share: the document around the content, who speaks, what is said in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    CodedConcept,
    CompositeContentItem,
    Comprehensive3DSR,
    ComprehensiveSR,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    ImageContentItem,
    ImageLibrary,
    LanguageOfContentItemAndDescendants,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes as standard

from alnnode import IMPLEMENTATION_CLASS_UID
from alnnode.errors import ReportError
from alnnode.records import SRClass
from alnnode.report import answer, codes, modules
from alnnode.report.answer import Kind
from alnnode.report.object_kind import ObjectNature
from alnnode.report.source_attributes import REQUIRED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alnnode.records import Analysis, ReportContext, ResultObject
    from alnnode.records.comparison import PriorReport
    from alnnode.report.object_kind import ObjectKind

CONTAINS = RelationshipTypeValues.CONTAINS
CONCEPTS = {
    Kind.NOTICE: codes.COMMENT,
    Kind.CONCLUSION: codes.CONCLUSION,
    Kind.FINDING: codes.FINDING,
    Kind.COMMENT: codes.COMMENT,
}


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


def statements(analysis: Analysis) -> list[ContentItem]:
    """Return the answer (`answer.statements`) as items of the root, for a report of measurements."""
    return [
        TextContentItem(name=CONCEPTS[statement.kind], value=statement.text, relationship_type=CONTAINS)
        for statement in answer.statements(analysis)
    ]


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
    """Return TID 4019. Without the optional manufacturer, which a common validator does not know; `parameters` stand once in the report."""
    model = analysis.model
    return AlgorithmIdentification(name=model.name, version=model.version, family=codes.ARTIFICIAL_INTELLIGENCE)


def parameters(analysis: Analysis) -> list[ContentItem]:
    """Return the whole of the bundle's digest and the model's name and version: once in a report, for people and programs."""
    model = analysis.model
    said = (
        (standard.DCM.AlgorithmName, model.name),
        (standard.DCM.AlgorithmVersion, model.version),
        (standard.DCM.AlgorithmParameters, f"bundle sha256 {model.digest}"),
    )
    return [TextContentItem(name=name, value=text, relationship_type=CONTAINS) for name, text in said]


def reference(item: ResultObject, kind: ObjectKind) -> ContentItem:
    """Return the item that refers to another result object.

    Raises:
        ReportError: the kind has no concept name.
    """
    if kind.code is None:
        raise ReportError(f"{item.role.value}: this kind of object has no concept name that a report could refer to it by")
    content_item = ImageContentItem if kind.nature is ObjectNature.IMAGE else CompositeContentItem
    return content_item(
        name=kind.code,
        referenced_sop_class_uid=item.sop_class_uid,
        referenced_sop_instance_uid=item.sop_instance_uid,
        relationship_type=CONTAINS,
    )


def source_reference(image: Dataset) -> ContentItem:
    """Return the item that points at the source image which a text report is about."""
    return ImageContentItem(
        name=standard.DCM.SourceImage,
        referenced_sop_class_uid=image.SOPClassUID,
        referenced_sop_instance_uid=image.SOPInstanceUID,
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


def _priors(analysis: Analysis) -> list[PriorReport]:
    comparison = analysis.comparison
    return [] if comparison is None or comparison.prior is None else [comparison.prior]


def stand_in(item: ResultObject) -> Dataset:
    """Return what the evidence needs of another result object."""
    return evidence(item.study_instance_uid, item.series_instance_uid, item.sop_class_uid, item.sop_instance_uid)


def evidence(study: str, series: str, sop_class: str, sop_instance: str) -> Dataset:
    """Return what the evidence needs of an object."""
    made = Dataset()
    for keyword in REQUIRED:
        setattr(made, keyword, None)
    made.StudyInstanceUID, made.SeriesInstanceUID = study, series
    made.SOPClassUID, made.SOPInstanceUID = sop_class, sop_instance
    return made


def measurement_report(
    analysis: Analysis,
    station: str,
    images: Sequence[Dataset],
    groups: Sequence[PlanarROIMeasurementsAndQualitativeEvaluations | MeasurementsAndQualitativeEvaluations],
    references: Sequence[ContentItem],
) -> Dataset:
    """Return the root of a TID 1500 report: the answer before the first container, then images, groups and references.

    What reads a report from the top has the answer on the first screen. Without groups there is no container for them: TID 1500 has no
    empty one.
    """
    summary = ContainerContentItem(name=codes.QUALITATIVE_EVALUATIONS, relationship_type=CONTAINS)
    summary.ContentSequence = ContentSequence([*parameters(analysis), *references])
    if groups:
        # Only with groups does the library make the whole; the answer and what follows are put around its containers.
        root: Dataset = MeasurementReport(
            observation_context=ObservationContext(observer_device_context=device_observer(analysis, station)),
            procedure_reported=codes.CT_PROCEDURE,
            imaging_measurements=groups,
            title=codes.IMAGING_REPORT,
            language_of_content_item_and_descendants=LanguageOfContentItemAndDescendants(CodedConcept.from_code(codes.ENGLISH)),
            referenced_images=images,
        )[0]
        items = list(root.ContentSequence)
    else:
        root = ContainerContentItem(name=codes.IMAGING_REPORT, template_id="1500")
        items = [
            *LanguageOfContentItemAndDescendants(CodedConcept.from_code(codes.ENGLISH)),
            *_device_items(analysis, station),
            CodeContentItem(
                name=standard.DCM.ProcedureReported,
                value=codes.CT_PROCEDURE,
                relationship_type=RelationshipTypeValues.HAS_CONCEPT_MOD,
            ),
            *(ImageLibrary(images) if images else []),
        ]
    first = next((n for n, item in enumerate(items) if item.ValueType == "CONTAINER"), len(items))
    root.ContentSequence = ContentSequence([*items[:first], *statements(analysis), *items[first:], summary])
    return root


def text_root(analysis: Analysis, station: str) -> tuple[ContainerContentItem, ContainerContentItem]:
    """Return a TID 2000 report in words, conclusions first, and its container of findings to add to."""
    root = ContainerContentItem(name=codes.DIAGNOSTIC_IMAGING_REPORT, template_id="2000")
    root.ContentSequence = ContentSequence(is_root=False)
    root.ContentSequence.extend(LanguageOfContentItemAndDescendants(CodedConcept.from_code(codes.ENGLISH)))
    for item in _device_items(analysis, station):
        root.ContentSequence.append(item)
    conclusions = ContainerContentItem(name=codes.CONCLUSIONS, relationship_type=CONTAINS)
    conclusions.ContentSequence = ContentSequence()
    findings = ContainerContentItem(name=codes.FINDINGS, relationship_type=CONTAINS)
    findings.ContentSequence = ContentSequence()
    for statement in answer.statements(analysis):
        first = statement.kind in {Kind.NOTICE, Kind.CONCLUSION}
        section, concept = (conclusions, codes.CONCLUSION) if first else (findings, codes.FINDING)
        section.ContentSequence.append(TextContentItem(name=concept, value=statement.text, relationship_type=CONTAINS))
    # TID 2000 has no place for TID 4019; the same concepts, as text.
    findings.ContentSequence.extend(parameters(analysis))
    root.ContentSequence.append(conclusions)
    root.ContentSequence.append(findings)
    return root, findings


def _device_items(analysis: Analysis, station: str) -> list[ContentItem]:
    """Return the device observer (TID 1002, 1004) of a text report."""
    context = ObservationContext(observer_device_context=device_observer(analysis, station))
    for item in context:
        item.RelationshipType = RelationshipTypeValues.HAS_OBS_CONTEXT.value
    return [item for item in context if isinstance(item, ContentItem)]
