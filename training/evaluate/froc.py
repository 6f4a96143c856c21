"""Free-response figures of a detector: sensitivity against false positives per volume, resampled by patient.

Chakraborty, Statistics in Medicine 2013, on the paradigm; the bands and false-positive rates are those that detection papers on
axillary nodes give.
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
LEAST_MM = 5.0  # short axis of a node that counts
RATES = (1.0, 2.0, 5.0, 8.0)  # false positives per volume
BANDS = ((0.0, 5.0), (5.0, 10.0), (10.0, 15.0), (15.0, np.inf))  # short axis, mm


@dataclass(frozen=True, slots=True)
class Mark:
    """What the detector marked: ``number`` is that of the true node that it hits first, None when it hits none."""

    patient: int
    score: float
    number: int | None
    ignored: bool = False  # it hits a node that does not count
    probability: float = 0.0


@dataclass(frozen=True, slots=True)
class Target:
    """A true node and the best mark on it; the measures are None when no mark hits it.

    Attributes:
        score: of the best mark, 0 when there is none.
        dice: of both masks; ``distance_mm`` between their centres; ``short_axis_error_mm`` signed, found less true.
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
    level_is_right: bool | None = None  # None also when no level was told
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class Examined:
    """All marks and targets of a number of volumes."""

    volumes: int
    marks: tuple[Mark, ...]
    targets: tuple[Target, ...]
    touching: tuple[tuple[int, int, int], ...] = ()  # patient, and the numbers of two nodes that touch

    def counted(self) -> list[Target]:
        """Nodes that are large enough to count."""
        return [target for target in self.targets if target.short_axis_mm >= LEAST_MM]

    def wrong(self) -> list[Mark]:
        """False positives: marks on nothing, and second marks on a node."""
        return [mark for mark in self.marks if mark.number is None and not mark.ignored]


def join(parts: Sequence[Examined]) -> Examined:
    """Several volumes as one."""
    return Examined(
        sum(part.volumes for part in parts),
        tuple(mark for part in parts for mark in part.marks),
        tuple(target for part in parts for target in part.targets),
        tuple(pair for part in parts for pair in part.touching),
    )


def told_apart(examined: Examined, threshold: float) -> tuple[int, int]:
    """Of the pairs of nodes that touch: how many were both found, each with an overlap (intersection over union) of a half; and all."""
    fits = {
        (target.patient, target.number)
        for target in examined.targets
        if target.score >= threshold and (target.dice or 0.0) >= 2 / 3
    }
    apart = [(patient, one) in fits and (patient, other) in fits for patient, one, other in examined.touching]
    return sum(apart), len(apart)


def sensitivity_at_rate(examined: Examined, rate: float, seed: int = 0) -> Interval:
    """Sensitivity (short axis >= `LEAST_MM`) at the lowest threshold with at most ``rate`` false positives per volume.

    The interval is the percentile one of a bootstrap over volumes, each of which chooses its threshold anew.
    """

    def of(hits: Floats, wrong: Floats, weights: Floats) -> float:
        per_volume = weights @ wrong / weights.sum()
        fits = np.flatnonzero(per_volume <= rate)
        at = fits[0] if fits.size else -1
        return float((weights @ hits)[at])

    return _bootstrap(examined, of, seed)


def sensitivity_at(examined: Examined, threshold: float, seed: int = 0) -> Interval:
    """Sensitivity (short axis >= `LEAST_MM`) at a threshold, with a bootstrap interval over volumes."""
    at = int(np.searchsorted(_thresholds(), threshold - 1e-9))
    return _bootstrap(examined, lambda hits, _wrong, weights: float((weights @ hits)[at]), seed)


def false_positives(examined: Examined, threshold: float) -> float:
    """False positives per volume at a threshold."""
    return sum(mark.score >= threshold for mark in examined.wrong()) / examined.volumes


def operating_threshold(examined: Examined, rate: float) -> float:
    """The lowest threshold (in steps of 0.01) with at most ``rate`` false positives per volume."""
    for threshold in _thresholds():
        if false_positives(examined, float(threshold)) <= rate:
            return round(float(threshold), 2)
    return round(float(_thresholds()[-1]), 2)


def _thresholds() -> Floats:
    return np.round(np.arange(0.05, 1.0, 0.01), 2)


def _bootstrap(examined: Examined, of: Callable[[Floats, Floats, Floats], float], seed: int) -> Interval:
    thresholds = _thresholds()
    hits, wrong, totals = (np.zeros((examined.volumes, len(thresholds))) for _ in range(3))
    patients = {target.patient for target in examined.targets} | {mark.patient for mark in examined.marks}
    place = {patient: n for n, patient in enumerate(sorted(patients))}
    for target in examined.counted():
        totals[place[target.patient]] += 1
        hits[place[target.patient]] += target.score >= thresholds
    for mark in examined.wrong():
        wrong[place[mark.patient]] += mark.score >= thresholds
    rng = np.random.default_rng(seed)
    found = []
    for n in range(RESAMPLES + 1):
        # The first is the sample itself.
        drawn = rng.integers(0, examined.volumes, examined.volumes) if n else np.arange(examined.volumes)
        weights = np.bincount(drawn, minlength=examined.volumes).astype(np.float64)
        found.append(of(hits / max(1.0, float(weights @ totals[:, 0])), wrong, weights))
    low, high = np.quantile(found[1:], [0.025, 0.975])
    return Interval(found[0], float(low), float(high))
