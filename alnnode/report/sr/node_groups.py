"""The measurement groups of a node, which share one tracking UID: axes (TID 1501/300), outline (TID 1410), whole node (TID 1411)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
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
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)

from alnnode.errors import ReportError
from alnnode.report import codes, comparison_text, wording
from alnnode.report.outlines import outlined_slices, outlines
from alnnode.report.sr import documents, measurements
from alnnode.report.uids import tracking_identifier, tracking_uid

if TYPE_CHECKING:
    from pydicom.sr.coding import Code

    from alnnode.records import Analysis, Axis, Finding, SliceRef, Volume

Points = npt.NDArray[np.float64]  # (points, 2): column and row, in image coordinates
OHIF_BIDIRECTIONAL = "Cornerstone3DTools@^0.1.0:Bidirectional"

NodeGroup = (
    MeasurementsAndQualitativeEvaluations
    | PlanarROIMeasurementsAndQualitativeEvaluations
    | VolumetricROIMeasurementsAndQualitativeEvaluations
)


def node_groups(finding: Finding, analysis: Analysis) -> list[NodeGroup]:
    """Return the groups of a node. The axes come first: OHIF merges groups of one tracking UID and restores the first drawing."""
    return [_axes(finding, analysis), _planar(finding, analysis), _volumetric(finding, analysis)]


def referenced_slices(analysis: Analysis) -> list[SliceRef]:
    """Return the slices that the groups refer to, in the order of the volume."""
    nodes = [finding.node for finding in analysis.findings]
    wanted = {k for node in nodes for k in (node.slice_index, *outlined_slices(node))}
    return [_volume(analysis).slices[k] for k in sorted(wanted)]


def _axes(finding: Finding, analysis: Analysis) -> MeasurementsAndQualitativeEvaluations:
    """Return the group with the axes of a node as drawings, its probabilities and its assessment."""
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
        TextContentItem(name=codes.COMMENT, value=_title(finding, analysis), relationship_type=RelationshipTypeValues.CONTAINS)
    )
    return group


def _tracking(finding: Finding, analysis: Analysis, tool: str = "") -> TrackingIdentifier:
    uid = tracking_uid(analysis, finding.node)
    return TrackingIdentifier(uid=uid, identifier=f"{tool}{tracking_identifier(uid)}")


def _title(finding: Finding, analysis: Analysis) -> str:
    change = comparison_text.title(finding, analysis)
    return wording.verdict(finding, analysis) if change is None else f"{wording.verdict(finding, analysis)}, {change}"


def _planar(finding: Finding, analysis: Analysis) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    """Return the planar group of a node: its outline on the measured slice, and the measurements within it."""
    outline = np.array(finding.node.contour, dtype=np.float64)
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(finding, analysis),
        referenced_region=_region(outline, _reference(analysis, finding), analysis),
        geometric_purpose=codes.BOUNDED_BY,
        finding_type=codes.LYMPH_NODE,
        finding_sites=[_site(finding)],
        measurements=measurements.slice_measurements(finding, _volume(analysis)),
    )


def _volumetric(finding: Finding, analysis: Analysis) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    """Return the volumetric group of a node: its outlines slice by slice, and the measurements of all its voxels.

    The regions are outlines and not a segment, because OHIF shows nothing of a report with a group without coordinates.
    """
    slices = _volume(analysis).slices
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(finding, analysis),
        referenced_regions=[_region(outline[:, ::-1] + 0.5, slices[k], analysis) for k, outline in outlines(finding.node)],
        geometric_purpose=codes.BOUNDED_BY,
        finding_type=codes.LYMPH_NODE,
        finding_sites=[_site(finding)],
        measurements=measurements.volume_measurements(finding.node),
    )


def _region(outline: Points, reference: SliceRef, analysis: Analysis) -> ImageRegion:
    """Return an outline (column, row), whose first point is not repeated, as a closed line."""
    source = SourceImageForRegion(reference.sop_class_uid, reference.sop_instance_uid, _frames(reference))
    return ImageRegion("POLYLINE", _inside(np.vstack([outline, outline[:1]]), analysis), source)


def _axis(name: Code, axis: Axis, reference: SliceRef, analysis: Analysis) -> Measurement:
    ends = _inside(np.array([axis.start, axis.end], dtype=np.float64), analysis)
    source = SourceImageForRegion(reference.sop_class_uid, reference.sop_instance_uid, _frames(reference))
    line = CoordinatesForMeasurement("POLYLINE", ends, source)
    return Measurement(name, round(axis.length_mm, 1), codes.MILLIMETRE, referenced_coordinates=[line])


def _inside(points: Points, analysis: Analysis) -> Points:
    """Return the points, clipped to the image, as SCOORD requires (PS3.3 C.18.6.1.2)."""
    rows, columns = _volume(analysis).voxels.shape[1:]
    clipped: Points = np.clip(points, 0.0, [float(columns), float(rows)])
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
