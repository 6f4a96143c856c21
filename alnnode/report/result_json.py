"""An `Analysis` as JSON data for ``result.json``. Of the patient it holds only the UIDs of study and series."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alnnode.follow_up.growth import classify_growth, growth_mm
from alnnode.records.comparison import SHORT_AXIS_CHANGE_ERROR_MM
from alnnode.report import answer, wording
from alnnode.report.uids import tracking_uid

if TYPE_CHECKING:
    from alnnode.records import Analysis, Axis, Finding, Interval, ModelIdentity, Volume
    from alnnode.records.comparison import Comparison, NodeChange

SCHEMA = 2


def as_dict(analysis: Analysis) -> dict[str, Any]:
    """Return the analysis as JSON-ready data.

    ``text`` is the answer as the reports give it. Boxes are half-open; ``box_voxels`` are indices of the volume (slice, row, column),
    from 0 at the feet, ``box_mm`` patient coordinates (LPS); probabilities are 0 to 1; lengths mm; attenuation HU.
    """
    header = analysis.header
    return {
        "schema": SCHEMA,
        "notice": analysis.model.banner,
        "text": answer.lines(analysis),
        "study_instance_uid": str(header.get("StudyInstanceUID", "")),
        "series_instance_uid": str(header.get("SeriesInstanceUID", "")),
        "not_analysed": analysis.not_analysed,
        "model": _model(analysis.model),
        "geometry": None if analysis.volume is None else _geometry(analysis.volume),
        "coverage": [
            {"side": c.side.value, "covered": c.covered, "shown": c.shown, "remark": c.remark} for c in analysis.coverage
        ],
        "remarks": list(analysis.remarks),
        "more_found": analysis.more_found,
        "comparison": None if analysis.comparison is None else _comparison(analysis.comparison),
        "nodes": [_node(finding, analysis) for finding in analysis.findings],
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    prior = comparison.prior
    return {
        "prior_report": None if prior is None else prior.sop_instance_uid,
        "days": comparison.days,
        "short_axis_change_error_mm": SHORT_AXIS_CHANGE_ERROR_MM,
        "trouble": comparison.trouble,
        "incomplete": comparison.incomplete,
        "no_longer_found": [node.tracking_uid for node in comparison.no_longer_found],
        "not_compared": [node.tracking_uid for node in comparison.not_compared],
    }


def _change(change: NodeChange, short_axis_mm: float) -> dict[str, Any]:
    prior_node = change.prior_node
    return {
        "kind": change.change.value,
        "tracking_uid": None if prior_node is None else prior_node.tracking_uid,
        "prior_number": None if prior_node is None else prior_node.number,
        "prior_short_axis_mm": None if prior_node is None else prior_node.short_axis_mm,
        "short_axis_change_mm": None if prior_node is None else growth_mm(short_axis_mm, prior_node),
        "short_axis": None if prior_node is None else classify_growth(short_axis_mm, prior_node).value,
        "prior_probability": None if prior_node is None else prior_node.probability,
    }


def _model(model: ModelIdentity) -> dict[str, Any]:
    point = model.operating_point
    return {
        "name": model.name,
        "version": model.version,
        "digest": model.digest,
        "demonstration": model.demonstration,
        "validated_on": model.validated_on or None,
        "training_data": model.training_data,
        "operating_point": {
            "threshold": point.threshold,
            "sensitivity": _interval(point.sensitivity),
            "specificity": _interval(point.specificity),
            "data_set": point.data_set,
        },
    }


def _interval(figure: Interval | None) -> list[float] | None:
    return None if figure is None else [figure.value, figure.low, figure.high]


def _geometry(volume: Volume) -> dict[str, Any]:
    return {
        "shape": list(volume.voxels.shape),
        "spacing_mm": [round(float(s), 4) for s in volume.spacing],
        "slice_thickness_mm": volume.slice_thickness,
        "notes": list(volume.notes),
    }


def _node(finding: Finding, analysis: Analysis) -> dict[str, Any]:
    node, box, volume = finding.node, finding.node.box, analysis.volume
    if volume is None:
        raise ValueError("findings without a volume")
    corners = [
        volume.patient_point(k - 0.5, j - 0.5, i - 0.5)
        for k in (box.k0, box.k1)
        for j in (box.j0, box.j1)
        for i in (box.i0, box.i1)
    ]
    reference = volume.slices[node.slice_index]
    return {
        "number": node.number,
        "side": node.side.value,
        "level": None if node.level is None else node.level.value,
        "source": node.source.value,
        "tracking_uid": tracking_uid(analysis, node),
        "detector_score": round(node.score, 4),
        "box_voxels": [[box.k0, box.j0, box.i0], [box.k1, box.j1, box.i1]],
        "box_mm": [[round(pick(c[a] for c in corners), 2) for a in range(3)] for pick in (min, max)],
        "slice": {
            "name": wording.slice_name(volume, node.slice_index),
            "sop_instance_uid": reference.sop_instance_uid,
            "frame_number": reference.frame_number,
        },
        "long_axis": _axis(node.long_axis),
        "short_axis": _axis(node.short_axis),
        "attenuation_hu": {
            "mean": round(node.attenuation.mean, 1) + 0.0,  # never -0.0
            "maximum": round(node.attenuation.maximum, 1),
            "deviation": round(node.attenuation.deviation, 1),
        },
        "volume_mm3": round(node.volume_mm3, 1),
        "hilum_fraction": node.hilum_fraction,
        "cortex_mm": node.cortex_mm,
        "probability": finding.prediction.probability,
        "members": {crop.value: value for crop, value in finding.prediction.members.items()},
        "empty_grad_cam": [heatmap.crop.value for heatmap in finding.heatmaps if heatmap.empty],
        "suspicious": finding.suspicious(analysis.model.operating_point),
        "change": None
        if analysis.comparison is None or not analysis.comparison.nodes
        else _change(analysis.comparison.nodes[node.number], node.short_axis.length_mm),
    }


def _axis(axis: Axis) -> dict[str, Any]:
    return {"mm": round(axis.length_mm, 2), "start": list(axis.start), "end": list(axis.end)}
