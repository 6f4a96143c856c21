"""Operating points: sensitivity, specificity and accuracy at a threshold with intervals, and how a threshold is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from alnnode.records import Interval
from training.evaluate import roc

if TYPE_CHECKING:
    import numpy.typing as npt

    Scores = npt.NDArray[np.floating[Any]]
    Labels = npt.NDArray[np.bool_]
    Patients = npt.NDArray[np.str_]

RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Sensitivity, specificity and accuracy at a threshold; intervals are Wilson's with the design effect of patients."""

    threshold: float
    sensitivity: Interval
    specificity: Interval
    accuracy: Interval


def wilson_interval(hits: int, count: int) -> Interval:
    """Return the proportion ``hits`` / ``count`` with its Wilson interval (Wilson, JASA 1927)."""
    interval = stats.binomtest(hits, count).proportion_ci(method="wilson")
    return Interval(hits / count, float(interval.low), float(interval.high))


def clustered_proportion(hits: Labels, patients: Patients) -> Interval:
    """Return the share of hits with the Wilson interval of the effective sample size (Rao & Scott, Biometrics 1992).

    Predictions for nodes of one patient are correlated. The design effect, at least 1, reduces the number of nodes to the effective
    sample size. When all predictions are hits, or none is, the design effect cannot be estimated; the number of patients is used.
    """
    count, rate = len(hits), float(hits.mean())
    _, cluster = np.unique(patients, return_inverse=True)
    residual = np.bincount(cluster, hits - rate)
    groups = len(residual)
    plain = rate * (1 - rate) / count
    clustered = groups / max(groups - 1, 1) * float((residual**2).sum()) / count**2
    effective = count / max(clustered / plain, 1.0) if plain > 0 else float(groups)
    z2 = roc.Z**2
    middle = (rate + z2 / (2 * effective)) / (1 + z2 / effective)
    reach = roc.Z / (1 + z2 / effective) * float(np.sqrt(rate * (1 - rate) / effective + z2 / (4 * effective**2)))
    return Interval(rate, max(middle - reach, 0.0), min(middle + reach, 1.0))


def operating_point_at(labels: Labels, scores: Scores, patients: Patients, threshold: float) -> OperatingPoint:
    """Return the operating point when every score at or above the threshold is called positive."""
    called = scores >= threshold
    return OperatingPoint(
        threshold,
        clustered_proportion(called[labels], patients[labels]),
        clustered_proportion(~called[~labels], patients[~labels]),
        clustered_proportion(called == labels, patients),
    )


def youden_threshold(labels: Labels, scores: Scores) -> float:
    """Return the threshold with the greatest sensitivity + specificity (Youden, Cancer 1950); the highest of equals.

    The threshold lies halfway to the next lower score, because other nodes may score slightly below the nodes it was chosen on.
    """
    candidates = np.unique(scores)[::-1]
    positives, negatives = np.sort(scores[labels]), np.sort(scores[~labels])
    sensitivity = 1 - np.searchsorted(positives, candidates, "left") / len(positives)
    specificity = np.searchsorted(negatives, candidates, "left") / len(negatives)
    best = int(np.argmax(sensitivity + specificity))
    return float(candidates[best : best + 2].mean())


def threshold_for_sensitivity(labels: Labels, scores: Scores, sensitivity: float) -> float:
    """Return the highest threshold with at least this sensitivity, rounded down to 0.01 (below 0.01: to 0.0001)."""
    positives = np.sort(scores[labels])
    allowed_misses = int(np.floor((1 - sensitivity) * len(positives) + 1e-9))  # 1 - 0.98 is slightly less than 0.02
    lowest = float(positives[allowed_misses])
    steps = 100 if lowest >= 0.01 else 10_000
    return float(np.clip(np.floor(lowest * steps) / steps, 0.0001, 0.99))


def specificity_range(
    labels: Labels, scores: Scores, patients: Patients, sensitivity: float, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % range of the specificity at a threshold that aims at a sensitivity, over bootstrap samples of the patients.

    A threshold is chosen on each sample; the specificity is that of the threshold on all nodes, so the range does not contain the sampling
    of the benign nodes.
    """
    found = []
    for weights in roc.resample_patients(patients, RESAMPLES, seed):
        rows = np.repeat(np.arange(len(labels)), weights)
        if labels[rows].any():
            threshold = threshold_for_sensitivity(labels[rows], scores[rows], sensitivity)
            found.append(float((scores[~labels] < threshold).mean()))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def specificity_at_sensitivity(labels: Labels, scores: Scores, sensitivity: float) -> float:
    """Return the specificity at the highest threshold with at least this sensitivity on the same nodes: a point of the ROC curve."""
    positives = np.sort(scores[labels])
    allowed_misses = int(np.floor((1 - sensitivity) * len(positives) + 1e-9))
    return float((scores[~labels] < positives[allowed_misses]).mean())
