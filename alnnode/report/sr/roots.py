"""The content trees of structured reports: the answer in words, around measurements (TID 1500) or alone (TID 2000)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from highdicom.sr import (
    CodeContentItem,
    CodedConcept,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    ImageLibrary,
    LanguageOfContentItemAndDescendants,
    MeasurementReport,
    ObservationContext,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom.sr.codedict import codes as standard

from alnnode.report import answer, codes
from alnnode.report.answer import StatementKind
from alnnode.report.sr.documents import device_observer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydicom import Dataset

    from alnnode.records import Analysis
    from alnnode.report.sr.node_groups import NodeGroup

CONTAINS = RelationshipTypeValues.CONTAINS
CONCEPTS = {
    StatementKind.NOTICE: codes.COMMENT,
    StatementKind.CONCLUSION: codes.CONCLUSION,
    StatementKind.FINDING: codes.FINDING,
    StatementKind.COMMENT: codes.COMMENT,
}


def statements(analysis: Analysis) -> list[ContentItem]:
    """Return the answer (`answer.statements`) as items of the root of a measurement report."""
    return [
        TextContentItem(name=CONCEPTS[statement.kind], value=statement.text, relationship_type=CONTAINS)
        for statement in answer.statements(analysis)
    ]


def parameters(analysis: Analysis) -> list[ContentItem]:
    """Return the name and version of the model and the full digest of the bundle; a report has them once."""
    model = analysis.model
    said = (
        (standard.DCM.AlgorithmName, model.name),
        (standard.DCM.AlgorithmVersion, model.version),
        (standard.DCM.AlgorithmParameters, f"bundle sha256 {model.digest}"),
    )
    return [TextContentItem(name=name, value=text, relationship_type=CONTAINS) for name, text in said]


def measurement_report(
    analysis: Analysis,
    station: str,
    images: Sequence[Dataset],
    groups: Sequence[NodeGroup],
    references: Sequence[ContentItem],
) -> Dataset:
    """Return the root of a TID 1500 report: the answer before the first container, then images, groups and references.

    So the answer is on the first screen of a viewer. Without groups the report has no container for them, because TID 1500 does not allow
    an empty one.
    """
    summary = ContainerContentItem(name=codes.QUALITATIVE_EVALUATIONS, relationship_type=CONTAINS)
    summary.ContentSequence = ContentSequence([*parameters(analysis), *references])
    if groups:
        # highdicom builds the root only with groups; the answer and the summary are added around its containers.
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
    """Return the root of a TID 2000 report, conclusions first, and its container of findings, to which the caller adds."""
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
        first = statement.kind in {StatementKind.NOTICE, StatementKind.CONCLUSION}
        section, concept = (conclusions, codes.CONCLUSION) if first else (findings, codes.FINDING)
        section.ContentSequence.append(TextContentItem(name=concept, value=statement.text, relationship_type=CONTAINS))
    # TID 2000 does not include TID 4019; the same concepts are added as text items.
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
