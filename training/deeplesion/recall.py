"""Recall at a rate of false positives, with intervals by bootstrap over patients: sub-volumes of one patient are not independent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from alnnode.records import Interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from training.deeplesion.matching import Counted

    Floats = npt.NDArray[np.float64]

RATES: Final = (1.0, 2.0, 4.0, 8.0)  # false positives per sub-volume
RESAMPLES: Final = 2000
BATCH: Final = 100  # resamples that are computed at once
NEAR: Final = 1e-9  # a mean that differs from the rate only by rounding is not above it


@dataclass(frozen=True, slots=True)
class Curve:
    """The free-response curve of several patients.

    Attributes:
        thresholds: (T,) scores from the highest down; the first is above all scores.
        hits: (patients, T) lesions that are hit by a node of at least the threshold.
        false: (patients, T) false positives.
        lesions: (patients,) number of lesions that count.
        subvolumes: (patients,) number of sub-volumes.
    """

    thresholds: Floats
    hits: Floats
    false: Floats
    lesions: Floats
    subvolumes: Floats


def curve(counted: Sequence[Counted]) -> Curve:
    """Count at every score that occurs."""
    scores = {score for one in counted for score in (*one.targets, *one.false) if score > 0}
    thresholds = np.array([2.0, *sorted(scores, reverse=True)])
    places = {patient: n for n, patient in enumerate(sorted({one.patient for one in counted}))}
    hits, false = np.zeros((2, len(places), len(thresholds)))
    lesions, subvolumes = np.zeros((2, len(places)))
    for one in counted:
        place = places[one.patient]
        hits[place] += _at_least(one.targets, thresholds)
        false[place] += _at_least(one.false, thresholds)
        lesions[place] += len(one.targets)
        subvolumes[place] += 1
    return Curve(thresholds, hits, false, lesions, subvolumes)


def recalls(found: Curve, rates: Sequence[float] = RATES, seed: int = 0) -> list[Interval]:
    """Return for each rate the highest recall with at most that rate of false positives per sub-volume.

    The interval is the 95 % percentile one of a bootstrap over patients; each resample chooses its own threshold.
    """
    patients = len(found.lesions)
    value = _recalls(found, np.ones((1, patients)), rates)[0]
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(RESAMPLES // BATCH):
        chosen = rng.integers(0, patients, (BATCH, patients))
        weights = np.stack([np.bincount(row, minlength=patients) for row in chosen]).astype(np.float64)
        drawn.append(_recalls(found, weights, rates))
    low, high = np.quantile(np.concatenate(drawn), [0.025, 0.975], axis=0)
    return [Interval(float(v), float(a), float(b)) for v, a, b in zip(value, low, high, strict=True)]


def threshold_at(found: Curve, rate: float) -> float:
    """Return the lowest score that a node needs so that at most ``rate`` false positives per sub-volume are left; 2 where no score does."""
    fits = found.false.sum(axis=0) / found.subvolumes.sum() <= rate + NEAR
    return float(found.thresholds[int(fits.sum()) - 1])


def most_false(found: Curve) -> float:
    """Return the false positives per sub-volume at the lowest score: where the curve ends."""
    return float(found.false[:, -1].sum() / found.subvolumes.sum())


def _recalls(found: Curve, weights: Floats, rates: Sequence[float]) -> Floats:
    """Recall by resample (a row of ``weights``, over patients) and rate."""
    false = weights @ found.false / (weights @ found.subvolumes)[:, None]
    share = weights @ found.hits / (weights @ found.lesions)[:, None]
    # Both grow along the thresholds, so the last threshold that fits is the best one.
    places = [np.count_nonzero(false <= rate + NEAR, axis=1) - 1 for rate in rates]
    return np.stack([np.take_along_axis(share, place[:, None], axis=1)[:, 0] for place in places], axis=1)


def _at_least(scores: Sequence[float], thresholds: Floats) -> Floats:
    ordered = np.sort(np.array(scores, dtype=np.float64))
    return (len(ordered) - np.searchsorted(ordered, thresholds, side="left")).astype(np.float64)
