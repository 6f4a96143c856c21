"""What the planar group of a node holds beside its outline: figures (TID 300) and evaluations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from highdicom.sr import Measurement, QualitativeEvaluation

from alnnode.comparison import SHORT_AXIS_CHANGE_ERROR_MM, growth, growth_mm
from alnnode.records import Crop, NodeSource
from alnnode.report import changes, codes, words

if TYPE_CHECKING:
    from alnnode.records import Analysis, Finding


def measurements(finding: Finding, analysis: Analysis) -> list[Measurement]:
    """Return probabilities, attenuation, volume, hilum and cortex where they are known, and what changed since an earlier report."""
    node, prediction = finding.node, finding.prediction
    measured = [
        probability(finding, analysis),
        *(Measurement(codes.MEMBER_PROBABILITY[crop], words.percent(prediction.members[crop]), codes.PERCENT) for crop in Crop),
        Measurement(codes.ATTENUATION, round(node.attenuation.mean, 1), codes.HOUNSFIELD, derivation=codes.MEAN),
        Measurement(codes.ATTENUATION, round(node.attenuation.maximum, 1), codes.HOUNSFIELD, derivation=codes.MAXIMUM),
        Measurement(
            codes.ATTENUATION, round(node.attenuation.deviation, 1), codes.HOUNSFIELD, derivation=codes.STANDARD_DEVIATION
        ),
        Measurement(codes.VOLUME, round(node.volume_mm3, 1), codes.CUBIC_MILLIMETRE),
    ]
    if node.hilum_fraction is not None and node.cortex_mm is not None:
        measured.append(Measurement(codes.FAT_FRACTION, round(100 * node.hilum_fraction, 1), codes.PERCENT))
        measured.append(Measurement(codes.CORTICAL_THICKNESS, node.cortex_mm, codes.MILLIMETRE))
    if node.source is NodeSource.ALGORITHM:
        measured.append(Measurement(codes.DETECTOR_SCORE, words.percent(node.score), codes.PERCENT))
    return measured + _changes(finding, analysis)


def probability(finding: Finding, analysis: Analysis) -> Measurement:
    """Return the ensemble's probability, in whole per cent; of a demonstration model under a name that says so."""
    name = codes.PROBABILITY_OF_DEMONSTRATION if analysis.model.demonstration else codes.PROBABILITY_OF_CANCER
    value = words.percent(finding.prediction.probability, analysis.model.operating_point.threshold)
    return Measurement(name, value, codes.PERCENT)


def _changes(finding: Finding, analysis: Analysis) -> list[Measurement]:
    found = changes.of(finding, analysis)
    if found is None or found[1].earlier is None:
        return []
    comparison, earlier = found[0], found[1].earlier
    measured = [
        Measurement(codes.INTERVAL, comparison.days, codes.DAY),
        Measurement(codes.PRIOR_SHORT_AXIS, earlier.short_axis_mm, codes.MILLIMETRE),
        Measurement(codes.SHORT_AXIS_CHANGE, growth_mm(finding.node.short_axis.length_mm, earlier), codes.MILLIMETRE),
        # TID 310 would have it below the change; PixelMed's edition of the rules takes that for an error.
        Measurement(codes.SHORT_AXIS_CHANGE_ERROR, SHORT_AXIS_CHANGE_ERROR_MM, codes.MILLIMETRE),
    ]
    if (relative := changes.growth_percent(finding, earlier)) is not None:
        measured.append(Measurement(codes.SHORT_AXIS_CHANGE_RELATIVE, relative, codes.PERCENT))
    if comparison.same_model:
        measured.append(Measurement(codes.PROBABILITY_CHANGE, changes.risk_points(finding, earlier), codes.PERCENT))
    return measured


def evaluations(finding: Finding, analysis: Analysis) -> list[QualitativeEvaluation]:
    """Return assessment, who located the node, its level and how it stands to an earlier report, as far as they are known."""
    node = finding.node
    suspicious = finding.suspicious(analysis.model.operating_point)
    said = [
        QualitativeEvaluation(codes.ASSESSMENT, codes.SUSPICIOUS if suspicious else codes.NOT_SUSPICIOUS),
        QualitativeEvaluation(codes.LOCATED_BY, codes.LOCATOR[node.source]),
    ]
    if node.level is not None:
        said.append(QualitativeEvaluation(codes.LEVEL, codes.LEVELS[node.level]))
    if (found := changes.of(finding, analysis)) is not None:
        said.append(QualitativeEvaluation(codes.CHANGE, codes.CHANGES[found[1].change]))
        if (earlier := found[1].earlier) is not None:
            said.append(QualitativeEvaluation(codes.GROWTH, codes.GROWTHS[growth(node.short_axis.length_mm, earlier)]))
    return said
