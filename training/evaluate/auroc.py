"""AUROC of nodes that share patients: DeLong intervals and tests with clusters, and bootstrap by patient.

Two nodes of one patient are more alike than two of two patients, so an interval that counts nodes is too narrow. The variance here is
Obuchowski's (Biometrics 1997;53:567), which is DeLong's (Biometrics 1988;44:837) where each patient has one node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from alnnode.records import Interval

if TYPE_CHECKING:
    import numpy.typing as npt

    Scores = npt.NDArray[np.floating[Any]]
    Labels = npt.NDArray[np.bool_]
    Patients = npt.NDArray[np.str_]

RESAMPLES = 2000
Z = float(stats.norm.ppf(0.975))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two AUROCs on the same nodes.

    Attributes:
        difference: the first less the second, with its 95 % interval (clustered DeLong).
        p: two-sided, of no difference (clustered DeLong).
        p_bootstrap: likewise, from resampling patients.
    """

    difference: Interval
    p: float
    p_bootstrap: float


def interval(labels: Labels, scores: Scores, patients: Patients) -> Interval:
    """Return the AUROC with its interval on the logit scale, so that it stays within 0 and 1 (Pepe 2003, 5.2.4)."""
    (area,), covariance = covariances(labels, [scores], patients)
    error = float(np.sqrt(max(covariance[0, 0], 0.0)))
    if not 0 < area < 1:  # the variance is 0 where nothing is out of order: one more pair would be (rule of three)
        slack = 3 / min(labels.sum(), (~labels).sum())
        return Interval(float(area), float(max(area - slack, 0)), float(min(area + slack, 1)))
    middle, reach = np.log(area / (1 - area)), Z * error / (area * (1 - area))
    low, high = 1 / (1 + np.exp(-(middle - reach))), 1 / (1 + np.exp(-(middle + reach)))
    return Interval(float(area), float(low), float(high))


def compare(labels: Labels, one: Scores, other: Scores, patients: Patients, seed: int = 0) -> Comparison:
    """Return how two scores of the same nodes differ."""
    areas, covariance = covariances(labels, [one, other], patients)
    difference = float(areas[0] - areas[1])
    error = float(np.sqrt(max(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1], 0.0)))
    p = float(2 * stats.norm.sf(abs(difference) / error)) if error else float(difference == 0)
    drawn = np.subtract(*(bootstrap(labels, scores, patients, seed) for scores in (one, other)))
    tail = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return Comparison(
        Interval(difference, difference - Z * error, difference + Z * error),
        p,
        float(min(2 * (tail + 1) / (len(drawn) + 1), 1)),
    )


def covariances(
    labels: Labels, scores: list[Scores], patients: Patients
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the AUROCs (K,) of K scores of the same nodes and their covariance (K, K), clustered by patient."""
    m, n = int(labels.sum()), int((~labels).sum())
    if not m or not n:
        raise ValueError("an AUROC needs both classes")
    _, cluster = np.unique(patients, return_inverse=True)
    count = int(cluster.max()) + 1
    positives, negatives = cluster[labels], cluster[~labels]
    per_positive, per_negative = np.bincount(positives, minlength=count), np.bincount(negatives, minlength=count)
    areas, x, y = [], [], []
    for score in scores:
        wins = order(labels, score)
        area = float(wins.mean())
        areas.append(area)
        # What each patient's nodes add, less what they would add if all were average.
        x.append(np.bincount(positives, wins.mean(1), count) - per_positive * area)
        y.append(np.bincount(negatives, wins.mean(0), count) - per_negative * area)
    a, b = np.array(x) / m, np.array(y) / n
    with_positive, with_negative = int((per_positive > 0).sum()), int((per_negative > 0).sum())
    covariance = a @ a.T * _unbias(with_positive) + b @ b.T * _unbias(with_negative) + (a @ b.T + b @ a.T) * _unbias(count)
    return np.array(areas), covariance


def order(labels: Labels, scores: Scores) -> npt.NDArray[np.float64]:
    """Return (positives, negatives): 1 where the positive has the higher score, 1/2 where both are equal."""
    high, low = scores[labels][:, None], scores[~labels][None, :]
    return np.asarray((high > low) + 0.5 * (high == low), np.float64)


def bootstrap(labels: Labels, scores: Scores, patients: Patients, seed: int = 0) -> npt.NDArray[np.float64]:
    """Return the AUROC of each resample of the patients; the same seed gives the same patients, so that models can be paired."""
    _, cluster = np.unique(patients, return_inverse=True)
    count = int(cluster.max()) + 1
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), RESAMPLES).astype(np.float32)
    positive, negative = weights[:, cluster[labels]], weights[:, cluster[~labels]]
    total = positive.sum(1) * negative.sum(1)
    both = total > 0
    won = ((positive[both] @ order(labels, scores).astype(np.float32)) * negative[both]).sum(1, dtype=np.float64)
    return np.asarray(won / total[both], np.float64)


def _unbias(clusters: int) -> float:
    return clusters / (clusters - 1) if clusters > 1 else 1.0
