"""Measurements (TID 300) and qualitative evaluations in the groups of a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from highdicom.sr import Measurement, QualitativeEvaluation
from skimage.draw import polygon2mask

from alnnode.follow_up.growth import classify_growth, growth_mm
from alnnode.records import Attenuation, Crop, NodeSource
from alnnode.records.comparison import SHORT_AXIS_CHANGE_ERROR_MM
from alnnode.report import codes, comparison_text, wording

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.records import Analysis, Finding, Node, Volume


def node_measurements(finding: Finding, analysis: Analysis) -> list[Measurement]:
    """Return the probabilities of a node, the confidence of the detector, and the changes since the prior report."""
    node, prediction = finding.node, finding.prediction
    measured = [
        probability(finding, analysis),
        *(
            Measurement(codes.MEMBER_PROBABILITY[crop], wording.percent(prediction.members[crop]), codes.PERCENT)
            for crop in Crop
        ),
    ]
    if node.source is NodeSource.ALGORITHM:
        measured.append(Measurement(codes.DETECTOR_SCORE, wording.percent(node.score), codes.PERCENT))
    return measured + _changes(finding, analysis)


def volume_measurements(node: Node) -> list[Measurement]:
    """Return the measurements of all voxels of a node: attenuation, volume, fatty hilum and cortex."""
    measured = [
        *_attenuation(node.attenuation),
        Measurement(codes.VOLUME, round(node.volume_mm3, 1), codes.CUBIC_MILLIMETRE),
    ]
    if node.hilum_fraction is not None and node.cortex_mm is not None:
        measured.append(Measurement(codes.FAT_FRACTION, round(100 * node.hilum_fraction, 1), codes.PERCENT))
        measured.append(Measurement(codes.CORTICAL_THICKNESS, node.cortex_mm, codes.MILLIMETRE))
    return measured


def slice_measurements(finding: Finding, volume: Volume) -> list[Measurement]:
    """Return the attenuation within the outline on its slice; nothing when no pixel centre lies within the outline."""
    inside = volume.voxels[finding.node.slice_index][planar_mask(finding.node, volume)]
    if not inside.size:
        return []
    return _attenuation(Attenuation(float(inside.mean()), float(inside.max()), float(inside.std())))


def planar_mask(node: Node, volume: Volume) -> npt.NDArray[np.bool_]:
    """Return the node's pixels on the slice of its outline, shape (rows, columns)."""
    raster = volume.voxels.shape[1:]
    if node.mask is None:
        drawn: npt.NDArray[np.bool_] = polygon2mask(raster, [(row - 0.5, column - 0.5) for column, row in node.contour])
        return drawn
    pixels, box = np.zeros(raster, bool), node.box
    pixels[box.j0 : box.j1, box.i0 : box.i1] = node.mask[node.slice_index - box.k0]
    return pixels


def _attenuation(found: Attenuation) -> list[Measurement]:
    values = ((found.mean, codes.MEAN), (found.maximum, codes.MAXIMUM), (found.deviation, codes.STANDARD_DEVIATION))
    return [Measurement(codes.ATTENUATION, round(value, 1) + 0.0, codes.HOUNSFIELD, derivation=how) for value, how in values]


def probability(finding: Finding, analysis: Analysis) -> Measurement:
    """Return the probability of the ensemble in whole per cent; that of a demonstration model has a concept name of its own."""
    name = codes.PROBABILITY_OF_DEMONSTRATION if analysis.model.demonstration else codes.PROBABILITY_OF_CANCER
    value = wording.percent(finding.prediction.probability, analysis.model.operating_point.threshold)
    return Measurement(name, value, codes.PERCENT)


def _changes(finding: Finding, analysis: Analysis) -> list[Measurement]:
    found = comparison_text.change_of(finding, analysis)
    if found is None or found[1].prior_node is None:
        return []
    comparison, prior_node = found[0], found[1].prior_node
    measured = [
        Measurement(codes.INTERVAL, comparison.days, codes.DAY),
        Measurement(codes.PRIOR_SHORT_AXIS, prior_node.short_axis_mm, codes.MILLIMETRE),
        Measurement(codes.SHORT_AXIS_CHANGE, growth_mm(finding.node.short_axis.length_mm, prior_node), codes.MILLIMETRE),
        # TID 310 places it below the change; the rules of PixelMed report that as an error.
        Measurement(codes.SHORT_AXIS_CHANGE_ERROR, SHORT_AXIS_CHANGE_ERROR_MM, codes.MILLIMETRE),
    ]
    if (relative := comparison_text.growth_percent(finding, prior_node)) is not None:
        measured.append(Measurement(codes.SHORT_AXIS_CHANGE_RELATIVE, relative, codes.PERCENT))
    if comparison.same_model:
        measured.append(Measurement(codes.PROBABILITY_CHANGE, comparison_text.risk_points(finding, prior_node), codes.PERCENT))
    return measured


def evaluations(finding: Finding, analysis: Analysis) -> list[QualitativeEvaluation]:
    """Return the assessment, who located the node, and, when known, its level and its change since the prior report."""
    node = finding.node
    suspicious = finding.suspicious(analysis.model.operating_point)
    said = [
        QualitativeEvaluation(codes.ASSESSMENT, codes.SUSPICIOUS if suspicious else codes.NOT_SUSPICIOUS),
        QualitativeEvaluation(codes.LOCATED_BY, codes.LOCATOR[node.source]),
    ]
    if node.level is not None:
        said.append(QualitativeEvaluation(codes.LEVEL, codes.LEVELS[node.level]))
    if (found := comparison_text.change_of(finding, analysis)) is not None:
        said.append(QualitativeEvaluation(codes.CHANGE, codes.CHANGES[found[1].change]))
        if (prior_node := found[1].prior_node) is not None:
            said.append(
                QualitativeEvaluation(codes.GROWTH, codes.GROWTHS[classify_growth(node.short_axis.length_mm, prior_node)])
            )
    return said
