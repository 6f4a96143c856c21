"""AUROC and average precision of nodes that are clustered by patient: intervals, paired tests, bootstrap over patients.

Nodes of one patient are correlated, so an interval that counts nodes as independent is too narrow. The variance is Obuchowski's
(Biometrics 1997;53:567). With one node for each patient it equals DeLong's (Biometrics 1988;44:837).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats
from sklearn.metrics import average_precision_score

from alnnode.records import Interval

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    Scores = npt.NDArray[np.floating[Any]]
    Labels = npt.NDArray[np.bool_]
    Patients = npt.NDArray[np.str_]

RESAMPLES = 2000
PRECISION_RESAMPLES = 500
Z = float(stats.norm.ppf(0.975))


@dataclass(frozen=True, slots=True)
class AurocComparison:
    """Two AUROCs on the same nodes.

    Attributes:
        difference: the first minus the second, with its 95 % interval (clustered DeLong).
        p: two-sided p value of no difference (clustered DeLong).
        p_bootstrap: the same from a bootstrap over patients.
    """

    difference: Interval
    p: float
    p_bootstrap: float


def auroc(labels: Labels, scores: Scores, patients: Patients) -> Interval:
    """Return the AUROC with its interval on the logit scale, which stays within 0 and 1 (Pepe 2003, 5.2.4)."""
    (area,), covariance = delong_covariance(labels, [scores], patients)
    error = float(np.sqrt(max(covariance[0, 0], 0.0)))
    if not 0 < area < 1:  # the estimated variance is 0 without a misranked pair: the rule of three gives the limit instead
        slack = 3 / min(labels.sum(), (~labels).sum())
        return Interval(float(area), float(max(area - slack, 0)), float(min(area + slack, 1)))
    middle, reach = np.log(area / (1 - area)), Z * error / (area * (1 - area))
    low, high = 1 / (1 + np.exp(-(middle - reach))), 1 / (1 + np.exp(-(middle + reach)))
    return Interval(float(area), float(low), float(high))


def compare_aurocs(labels: Labels, one: Scores, other: Scores, patients: Patients, seed: int = 0) -> AurocComparison:
    """Return the difference between the AUROCs of two scores of the same nodes."""
    areas, covariance = delong_covariance(labels, [one, other], patients)
    difference = float(areas[0] - areas[1])
    error = float(np.sqrt(max(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1], 0.0)))
    p = float(2 * stats.norm.sf(abs(difference) / error)) if error else float(difference == 0)
    drawn = np.subtract(*(bootstrap_aurocs(labels, scores, patients, seed) for scores in (one, other)))
    tail = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return AurocComparison(
        Interval(difference, difference - Z * error, difference + Z * error),
        p,
        float(min(2 * (tail + 1) / (len(drawn) + 1), 1)),
    )


def delong_covariance(
    labels: Labels, scores: list[Scores], patients: Patients
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the AUROCs (K,) of K scores of the same nodes and their covariance (K, K), clustered by patient.

    Raises:
        ValueError: all labels are of one class.
    """
    m, n = int(labels.sum()), int((~labels).sum())
    if not m or not n:
        raise ValueError("an AUROC needs both classes")
    _, cluster = np.unique(patients, return_inverse=True)
    count = int(cluster.max()) + 1
    positives, negatives = cluster[labels], cluster[~labels]
    per_positive, per_negative = np.bincount(positives, minlength=count), np.bincount(negatives, minlength=count)
    areas, x, y = [], [], []
    for score in scores:
        wins = pairwise_wins(labels, score)
        area = float(wins.mean())
        areas.append(area)
        # The sum over each patient's nodes minus its expected value under the mean AUROC.
        x.append(np.bincount(positives, wins.mean(1), count) - per_positive * area)
        y.append(np.bincount(negatives, wins.mean(0), count) - per_negative * area)
    a, b = np.array(x) / m, np.array(y) / n
    with_positive, with_negative = int((per_positive > 0).sum()), int((per_negative > 0).sum())
    covariance = a @ a.T * _unbias(with_positive) + b @ b.T * _unbias(with_negative) + (a @ b.T + b @ a.T) * _unbias(count)
    return np.array(areas), covariance


def pairwise_wins(labels: Labels, scores: Scores) -> npt.NDArray[np.float64]:
    """Return (positives, negatives): 1 where the positive node has the higher score, 1/2 where both scores are equal, else 0."""
    high, low = scores[labels][:, None], scores[~labels][None, :]
    return np.asarray((high > low) + 0.5 * (high == low), np.float64)


def bootstrap_aurocs(labels: Labels, scores: Scores, patients: Patients, seed: int = 0) -> npt.NDArray[np.float64]:
    """Return the AUROC of each resample of the patients; the same seed draws the same patients, so that models can be paired."""
    _, cluster = np.unique(patients, return_inverse=True)
    count = int(cluster.max()) + 1
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), RESAMPLES).astype(np.float32)
    positive, negative = weights[:, cluster[labels]], weights[:, cluster[~labels]]
    total = positive.sum(1) * negative.sum(1)
    both = total > 0
    won = ((positive[both] @ pairwise_wins(labels, scores).astype(np.float32)) * negative[both]).sum(1, dtype=np.float64)
    return np.asarray(won / total[both], np.float64)


def resample_patients(patients: Patients, resamples: int, seed: int = 0) -> Iterator[npt.NDArray[np.int64]]:
    """Yield for each resample of the patients how often it holds each node, (N,)."""
    _, cluster = np.unique(patients, return_inverse=True)
    count = int(cluster.max()) + 1
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        yield rng.multinomial(count, np.full(count, 1 / count))[cluster]


def average_precision(labels: Labels, scores: Scores, patients: Patients, seed: int = 0) -> Interval:
    """Return the area under the precision-recall curve with the percentile interval of a bootstrap over patients."""
    found = [
        average_precision_score(labels, scores, sample_weight=weights)
        for weights in resample_patients(patients, PRECISION_RESAMPLES, seed)
        if weights[labels].any()
    ]
    low, high = np.quantile(found, [0.025, 0.975])
    return Interval(float(average_precision_score(labels, scores)), float(low), float(high))


def _unbias(clusters: int) -> float:
    return clusters / (clusters - 1) if clusters > 1 else 1.0
