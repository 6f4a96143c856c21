"""The structured report: Comprehensive SR (PS3.3 A.35.3) after TID 1500, or TID 2000 when there is nothing to measure.

Per node two measurement groups share one tracking UID: first a bidirectional one (TID 1501/300) that OHIF restores as an editable
measurement, then a planar one (TID 1410) with the outline and the figures. docs/reporting.md gives the reason of each item.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from highdicom.sr import (
    CodedConcept,
    ContainerContentItem,
    ContentSequence,
    CoordinatesForMeasurement,
    FindingSite,
    ImageContentItem,
    ImageRegion,
    LanguageOfContentItemAndDescendants,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes as standard

from alnnode.errors import ReportError
from alnnode.records import ObjectRole
from alnnode.report import changes, codes, documents, figures, modules, record, words
from alnnode.report.uids import result_uid, tracking_uid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydicom.sr.coding import Code

    from alnnode.records import Analysis, Axis, Finding, ReportContext, ResultObject, SliceRef, Volume

SERIES_NUMBER = 9001
OHIF_BIDIRECTIONAL = "Cornerstone3DTools@^0.1.0:Bidirectional"
CONTAINS = RelationshipTypeValues.CONTAINS


def build(analysis: Analysis, context: ReportContext, captures: Sequence[ResultObject] = ()) -> ResultObject:
    """Return the report of an analysis, whatever came out of it. It references its captures."""
    if analysis.findings:
        images = _images(analysis)
        content: Dataset = _measurements(analysis, context, images, captures)[0]
    else:
        images = [_negative_image(analysis)]
        content = _negative(analysis, context, images[0], captures)
    report = documents.document(
        context,
        content=content,
        evidence=[*images, *(documents.stand_in(item) for item in captures), *documents.prior_evidence(analysis)],
        series_uid=result_uid(analysis, context, "sr", "series"),
        instance_uid=result_uid(analysis, context, "sr", "instance"),
        series_number=SERIES_NUMBER,
    )
    if not analysis.findings:
        report.ContentTemplateSequence = [documents.template("2000")]
    if context.predecessor:
        report.PredecessorDocumentsSequence = [_predecessor(context.predecessor)]
    if context.earlier is not None:
        record.write(report, analysis)
    return modules.finish(report, analysis, context, ObjectRole.SR)


def _measurements(
    analysis: Analysis, context: ReportContext, images: list[Dataset], captures: Sequence[ResultObject]
) -> ContentSequence:
    groups = [
        group for finding in analysis.findings for group in (_bidirectional(finding, analysis), _planar(finding, analysis))
    ]
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=documents.device_observer(analysis, context.station)),
        procedure_reported=codes.CT_PROCEDURE,
        imaging_measurements=groups,
        title=codes.IMAGING_REPORT,
        language_of_content_item_and_descendants=LanguageOfContentItemAndDescendants(CodedConcept.from_code(codes.ENGLISH)),
        referenced_images=images,
    )
    summary = ContainerContentItem(name=codes.QUALITATIVE_EVALUATIONS, relationship_type=CONTAINS)
    summary.ContentSequence = ContentSequence()
    for name, text in documents.sentences(analysis):
        summary.ContentSequence.append(TextContentItem(name=name, value=text, relationship_type=CONTAINS))
    for item in captures:
        summary.ContentSequence.append(documents.reference(item))
    summary.ContentSequence.extend(documents.prior_reference(analysis))
    report[0].ContentSequence.append(summary)
    return report


def _bidirectional(finding: Finding, analysis: Analysis) -> MeasurementsAndQualitativeEvaluations:
    node = finding.node
    reference = _reference(analysis, finding)
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=tracking_uid(analysis, node), identifier=f"{OHIF_BIDIRECTIONAL}:Node {node.number}"
        ),
        finding_type=codes.LYMPH_NODE,
        finding_sites=[_site(finding)],
        algorithm_id=documents.algorithm(analysis),
        measurements=[
            _axis(codes.LONG_AXIS, node.long_axis, reference, analysis),
            _axis(codes.SHORT_AXIS, node.short_axis, reference, analysis),
        ],
        source_images=[
            SourceImageForMeasurementGroup(reference.sop_class_uid, reference.sop_instance_uid, _frames(reference)),
        ],
    )
    # The one item that OHIF shows as the row's title and beside the measurement.
    group[0].ContentSequence.append(
        TextContentItem(name=codes.COMMENT, value=_title(finding, analysis), relationship_type=CONTAINS)
    )
    if len(analysis.findings) == 1:
        # At exactly one region in the report, PixelMed's rules take every group for a planar one and ask for its region.
        group[0].ContentSequence.append(_region(finding, analysis))
    return group


def _title(finding: Finding, analysis: Analysis) -> str:
    change = changes.title(finding, analysis)
    return words.verdict(finding, analysis) if change is None else f"{words.verdict(finding, analysis)}, {change}"


def _planar(finding: Finding, analysis: Analysis) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    node = finding.node
    group = PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=tracking_uid(analysis, node), identifier=f"Node {node.number}"),
        referenced_region=_region(finding, analysis),
        geometric_purpose=codes.BOUNDED_BY,
        finding_type=codes.LYMPH_NODE,
        finding_sites=[_site(finding)],
        algorithm_id=documents.algorithm(analysis),
        measurements=figures.measurements(finding, analysis),
        qualitative_evaluations=figures.evaluations(finding, analysis),
    )
    said = [words.verdict(finding, analysis), f"Located by {node.source.value}"]
    if node.level is not None:
        said.append(f"axillary level {node.level.value}")
    if (hilum := words.hilum(node)) is not None:
        said.append(hilum)
    if (change := changes.of_node(finding, analysis)) is not None:
        said.append(change)
    group[0].ContentSequence.append(TextContentItem(name=codes.COMMENT, value="; ".join(said), relationship_type=CONTAINS))
    return group


def _region(finding: Finding, analysis: Analysis) -> ImageRegion:
    """Return the outline, closed."""
    reference = _reference(analysis, finding)
    outline = np.array([*finding.node.contour, finding.node.contour[0]], dtype=np.float64)
    source = SourceImageForRegion(reference.sop_class_uid, reference.sop_instance_uid, _frames(reference))
    return ImageRegion("POLYLINE", _inside(outline, analysis), source)


def _axis(name: Code, axis: Axis, reference: SliceRef, analysis: Analysis) -> Measurement:
    ends = _inside(np.array([axis.start, axis.end], dtype=np.float64), analysis)
    source = SourceImageForRegion(reference.sop_class_uid, reference.sop_instance_uid, _frames(reference))
    line = CoordinatesForMeasurement("POLYLINE", ends, source)
    return Measurement(name, round(axis.length_mm, 1), codes.MILLIMETRE, referenced_coordinates=[line])


def _inside(
    points: np.ndarray[tuple[int, int], np.dtype[np.float64]], analysis: Analysis
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return the points within the image: SCOORD may not leave it (PS3.3 C.18.6.1.2)."""
    rows, columns = _volume(analysis).voxels.shape[1:]
    clipped: np.ndarray[tuple[int, int], np.dtype[np.float64]] = np.clip(points, 0.0, [float(columns), float(rows)])
    return clipped


def _site(finding: Finding) -> FindingSite:
    return FindingSite(codes.AXILLARY_LYMPH_NODE, laterality=codes.LATERALITY[finding.node.side])


def _volume(analysis: Analysis) -> Volume:
    if analysis.volume is None:
        raise ReportError("an analysis with findings has no volume")
    return analysis.volume


def _reference(analysis: Analysis, finding: Finding) -> SliceRef:
    return _volume(analysis).slices[finding.node.slice_index]


def _frames(reference: SliceRef) -> list[int] | None:
    return None if reference.frame_number is None else [reference.frame_number]


def _images(analysis: Analysis) -> list[Dataset]:
    """Return each referenced source image once, in the order of the volume."""
    volume = _volume(analysis)
    wanted = {volume.slices[finding.node.slice_index].sop_instance_uid for finding in analysis.findings}
    found: dict[str, Dataset] = {}
    for reference in volume.slices:
        if reference.sop_instance_uid in wanted and reference.sop_instance_uid not in found:
            found[reference.sop_instance_uid] = modules.source_image(analysis, reference)
    return list(found.values())


def _negative_image(analysis: Analysis) -> Dataset:
    """Return the middle slice, or the header's own instance where no volume could be built."""
    if analysis.volume is None:
        return modules.source_image(analysis, None)
    return modules.source_image(analysis, analysis.volume.slices[len(analysis.volume.slices) // 2])


def _negative(analysis: Analysis, context: ReportContext, image: Dataset, captures: Sequence[ResultObject]) -> Dataset:
    """Return a text report about one image. A TID 1500 report without measurements ends some viewers' image view."""
    root, findings = documents.text_root(analysis, context.station)
    findings.ContentSequence.append(
        ImageContentItem(
            name=standard.DCM.SourceImage,
            referenced_sop_class_uid=image.SOPClassUID,
            referenced_sop_instance_uid=image.SOPInstanceUID,
            relationship_type=CONTAINS,
        )
    )
    for item in captures:
        findings.ContentSequence.append(documents.reference(item))
    findings.ContentSequence.extend(documents.prior_reference(analysis))
    return root


def _predecessor(identity: tuple[str, str, str, str]) -> Dataset:
    """Return an item of the Predecessor Documents Sequence (PS3.3 C.17.2)."""
    sop_class, sop_instance, series, study = identity
    instance, of_series, of_study = Dataset(), Dataset(), Dataset()
    instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID = sop_class, sop_instance
    of_series.SeriesInstanceUID, of_series.ReferencedSOPSequence = series, [instance]
    of_study.StudyInstanceUID, of_study.ReferencedSeriesSequence = study, [of_series]
    return of_study
