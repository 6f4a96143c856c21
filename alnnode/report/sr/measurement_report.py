"""The structured report: Comprehensive SR (PS3.3 A.35.3) after TID 1500, or TID 2000 when there is nothing to measure.

The answer comes first, in words. Then two measurement groups for each node, most probable first, that share one tracking UID: a group
(TID 1501/300) with the measurements of the node, whose axes OHIF restores as an editable measurement, and a planar one (TID 1410) with the
outline and the measurements within it. docs/reporting.md gives the reason for each item.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from highdicom.sr import (
    CoordinatesForMeasurement,
    FindingSite,
    ImageRegion,
    Measurement,
    MeasurementsAndQualitativeEvaluations,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom import Dataset
from pydicom.sr.coding import Code

from alnnode.errors import ReportError
from alnnode.records import ObjectRole
from alnnode.report import codes, comparison_text, wording
from alnnode.report.capture import secondary_capture
from alnnode.report.modules import finish
from alnnode.report.object_kind import ObjectKind, ObjectNature
from alnnode.report.series_naming import series_number
from alnnode.report.source_images import main_image, source_image
from alnnode.report.sr import documents, measurements, prior_record, references, roots
from alnnode.report.uids import result_uid, tracking_identifier, tracking_uid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alnnode.records import Analysis, Axis, Finding, ReportContext, ResultObject, SliceRef, Volume

OHIF_BIDIRECTIONAL = "Cornerstone3DTools@^0.1.0:Bidirectional"
CONTAINS = RelationshipTypeValues.CONTAINS

KIND = ObjectKind(ObjectRole.SR, "report", 1, ObjectNature.DOCUMENT, Code("RESULT-SR", codes.SCHEME, "Measurement report"))


def build(analysis: Analysis, context: ReportContext, captures: Sequence[ResultObject] = ()) -> ResultObject:
    """Return the report for any result of an analysis. It references the captures."""
    if analysis.findings:
        images = _images(analysis)
        content = _measurements(analysis, context, images, captures)
    else:
        images = [main_image(analysis)]
        content = _negative(analysis, context, images[0], captures)
    report = documents.document(
        context,
        content=content,
        evidence=[*images, *(references.stand_in(item) for item in captures), *references.prior_evidence(analysis)],
        series_uid=result_uid(analysis, context, "sr", "series"),
        instance_uid=result_uid(analysis, context, "sr", "instance"),
        series_number=series_number(analysis, KIND),
    )
    if not analysis.findings:
        report.ContentTemplateSequence = [documents.template("2000")]
    if context.predecessor:
        report.PredecessorDocumentsSequence = [_predecessor(context.predecessor)]
    if context.prior is not None:
        prior_record.write(report, analysis)
    return finish(report, analysis, context, KIND)


def _measurements(
    analysis: Analysis, context: ReportContext, images: list[Dataset], captures: Sequence[ResultObject]
) -> Dataset:
    groups = [
        group
        for finding in wording.by_probability(analysis.findings)
        for group in (_bidirectional(finding, analysis), _planar(finding, analysis))
    ]
    items = [
        *(references.reference(item, secondary_capture.KIND) for item in captures),
        *references.prior_reference(analysis),
    ]
    return roots.measurement_report(analysis, context.station, images, groups, items)


def _bidirectional(finding: Finding, analysis: Analysis) -> MeasurementsAndQualitativeEvaluations:
    """Return the group of a node: its axes as drawings, and its measurements."""
    node = finding.node
    reference = _reference(analysis, finding)
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(finding, analysis, f"{OHIF_BIDIRECTIONAL}:"),
        finding_type=codes.LYMPH_NODE,
        finding_sites=[_site(finding)],
        algorithm_id=documents.algorithm(analysis),
        measurements=[
            # OHIF takes the position of the measurement from the first numeric item, so the axes come first.
            _axis(codes.LONG_AXIS, node.long_axis, reference, analysis),
            _axis(codes.SHORT_AXIS, node.short_axis, reference, analysis),
            *measurements.node_measurements(finding, analysis),
        ],
        qualitative_evaluations=measurements.evaluations(finding, analysis),
        source_images=[
            SourceImageForMeasurementGroup(reference.sop_class_uid, reference.sop_instance_uid, _frames(reference)),
        ],
    )
    # OHIF shows this item as the title of the row and beside the measurement.
    group[0].ContentSequence.append(
        TextContentItem(name=codes.COMMENT, value=_title(finding, analysis), relationship_type=CONTAINS)
    )
    if len(analysis.findings) == 1:
        # With exactly one region in the report, the rules of PixelMed treat every group as planar and require its region.
        group[0].ContentSequence.append(_region(finding, analysis))
    return group


def _tracking(finding: Finding, analysis: Analysis, tool: str = "") -> TrackingIdentifier:
    uid = tracking_uid(analysis, finding.node)
    return TrackingIdentifier(uid=uid, identifier=f"{tool}{tracking_identifier(uid)}")


def _title(finding: Finding, analysis: Analysis) -> str:
    change = comparison_text.title(finding, analysis)
    return wording.verdict(finding, analysis) if change is None else f"{wording.verdict(finding, analysis)}, {change}"


def _planar(finding: Finding, analysis: Analysis) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    """Return the planar group of a node: its outline, and the measurements within it."""
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(finding, analysis),
        referenced_region=_region(finding, analysis),
        geometric_purpose=codes.BOUNDED_BY,
        finding_type=codes.LYMPH_NODE,
        finding_sites=[_site(finding)],
        measurements=measurements.slice_measurements(finding, _volume(analysis)),
    )


def _region(finding: Finding, analysis: Analysis) -> ImageRegion:
    """Return the closed outline of a node."""
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
    """Return the points, clipped to the image, as SCOORD requires (PS3.3 C.18.6.1.2)."""
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
            found[reference.sop_instance_uid] = source_image(analysis, reference)
    return list(found.values())


def _negative(analysis: Analysis, context: ReportContext, image: Dataset, captures: Sequence[ResultObject]) -> Dataset:
    """Return a text report about one image: OHIF closes the image view on a TID 1500 report without measurements."""
    root, findings = roots.text_root(analysis, context.station)
    findings.ContentSequence.append(references.source_reference(image))
    for item in captures:
        findings.ContentSequence.append(references.reference(item, secondary_capture.KIND))
    findings.ContentSequence.extend(references.prior_reference(analysis))
    return root


def _predecessor(identity: tuple[str, str, str, str]) -> Dataset:
    """Return an item of the Predecessor Documents Sequence (PS3.3 C.17.2)."""
    sop_class, sop_instance, series, study = identity
    instance, of_series, of_study = Dataset(), Dataset(), Dataset()
    instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID = sop_class, sop_instance
    of_series.SeriesInstanceUID, of_series.ReferencedSOPSequence = series, [instance]
    of_study.StudyInstanceUID, of_study.ReferencedSeriesSequence = study, [of_series]
    return of_study
