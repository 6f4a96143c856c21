"""Free-response ROC (FROC) of a detector: sensitivity against false positives per volume, with bootstrap intervals over volumes.

The paradigm is Chakraborty's (Statistics in Medicine 2013). The size bands and false-positive rates are those of publications on the
detection of axillary nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alnnode.records import Interval

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

RESAMPLES = 2000
MIN_SHORT_AXIS_MM = 5.0  # smaller nodes do not count
FALSE_POSITIVE_RATES = (1.0, 2.0, 5.0, 8.0)  # false positives per volume
SIZE_BANDS = ((0.0, 5.0), (5.0, 10.0), (10.0, 15.0), (15.0, np.inf))  # short axis, mm


@dataclass(frozen=True, slots=True)
class Mark:
    """One mark of the detector.

    Attributes:
        number: of the true node that it hits; None for a false positive, and for a further mark on a node.
        ignored: the mark hits a node that does not count, so it is neither a hit nor a false positive.
        probability: of metastasis, from the classifiers.
    """

    patient: int
    score: float
    number: int | None
    ignored: bool = False
    probability: float = 0.0


@dataclass(frozen=True, slots=True)
class Target:
    """A true node and the mark with the highest score on it; the measurements are None when no mark hits it.

    Attributes:
        score: of that mark; 0 when no mark hits the node.
        dice: of both masks.
        distance_mm: between the centres of both masks.
        short_axis_error_mm: measured minus true short axis.
        level_is_right: None also when one of both levels is not known.
    """

    patient: int
    number: int
    short_axis_mm: float
    malignant: bool
    thickness_mm: float
    position: str
    score: float = 0.0
    dice: float | None = None
    distance_mm: float | None = None
    short_axis_error_mm: float | None = None
    side_is_right: bool | None = None
    level_is_right: bool | None = None
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class DetectionResult:
    """All marks and targets of a number of volumes.

    Attributes:
        touching: patient, and the numbers of two nodes that touch.
    """

    volumes: int
    marks: tuple[Mark, ...]
    targets: tuple[Target, ...]
    touching: tuple[tuple[int, int, int], ...] = ()

    def counted_targets(self) -> list[Target]:
        """Return the nodes that are large enough to count."""
        return [target for target in self.targets if target.short_axis_mm >= MIN_SHORT_AXIS_MM]

    def false_positive_marks(self) -> list[Mark]:
        """Return the false positives: marks that hit no node, and further marks on a node."""
        return [mark for mark in self.marks if mark.number is None and not mark.ignored]


def join_results(parts: Sequence[DetectionResult]) -> DetectionResult:
    """Return one result of several volumes."""
    return DetectionResult(
        sum(part.volumes for part in parts),
        tuple(mark for part in parts for mark in part.marks),
        tuple(target for part in parts for target in part.targets),
        tuple(pair for part in parts for pair in part.touching),
    )


def touching_pairs_separated(result: DetectionResult, threshold: float) -> tuple[int, int]:
    """Return the number of touching pairs whose nodes were both found with an intersection over union of at least 1/2, and of all pairs."""
    found = {
        (target.patient, target.number)
        for target in result.targets
        if target.score >= threshold and (target.dice or 0.0) >= 2 / 3
    }
    separated = [(patient, one) in found and (patient, other) in found for patient, one, other in result.touching]
    return sum(separated), len(separated)


def sensitivity_at_rate(result: DetectionResult, rate: float, seed: int = 0) -> Interval:
    """Return the sensitivity (short axis >= `MIN_SHORT_AXIS_MM`) at the lowest threshold with at most ``rate`` false positives per volume.

    The interval is the percentile interval of a bootstrap over volumes; each resample determines its own threshold.
    """

    def sensitivity(hits: Floats, wrong: Floats, weights: Floats) -> float:
        per_volume = weights @ wrong / weights.sum()
        fits = np.flatnonzero(per_volume <= rate)
        at = fits[0] if fits.size else -1
        return float((weights @ hits)[at])

    return _bootstrap(result, sensitivity, seed)


def sensitivity_at_threshold(result: DetectionResult, threshold: float, seed: int = 0) -> Interval:
    """Return the sensitivity (short axis >= `MIN_SHORT_AXIS_MM`) at a threshold, with a bootstrap interval over volumes."""
    at = int(np.searchsorted(_thresholds(), threshold - 1e-9))
    return _bootstrap(result, lambda hits, _wrong, weights: float((weights @ hits)[at]), seed)


def false_positives_per_volume(result: DetectionResult, threshold: float) -> float:
    """Return the false positives per volume at a threshold."""
    return sum(mark.score >= threshold for mark in result.false_positive_marks()) / result.volumes


def operating_threshold(result: DetectionResult, rate: float) -> float:
    """Return the lowest threshold (in steps of 0.01) with at most ``rate`` false positives per volume."""
    for threshold in _thresholds():
        if false_positives_per_volume(result, float(threshold)) <= rate:
            return round(float(threshold), 2)
    return round(float(_thresholds()[-1]), 2)


def _thresholds() -> Floats:
    return np.round(np.arange(0.05, 1.0, 0.01), 2)


def _bootstrap(result: DetectionResult, statistic: Callable[[Floats, Floats, Floats], float], seed: int) -> Interval:
    thresholds = _thresholds()
    hits, wrong, totals = (np.zeros((result.volumes, len(thresholds))) for _ in range(3))
    patients = {target.patient for target in result.targets} | {mark.patient for mark in result.marks}
    place = {patient: n for n, patient in enumerate(sorted(patients))}
    for target in result.counted_targets():
        totals[place[target.patient]] += 1
        hits[place[target.patient]] += target.score >= thresholds
    for mark in result.false_positive_marks():
        wrong[place[mark.patient]] += mark.score >= thresholds
    rng = np.random.default_rng(seed)
    found = []
    for n in range(RESAMPLES + 1):
        # The first entry is the sample itself.
        drawn = rng.integers(0, result.volumes, result.volumes) if n else np.arange(result.volumes)
        weights = np.bincount(drawn, minlength=result.volumes).astype(np.float64)
        found.append(statistic(hits / max(1.0, float(weights @ totals[:, 0])), wrong, weights))
    low, high = np.quantile(found[1:], [0.025, 0.975])
    return Interval(found[0], float(low), float(high))
