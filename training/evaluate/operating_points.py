"""Figures at an operating point and of calibration, with their intervals; `training.evaluate.auroc` has those of ranking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats
from sklearn.metrics import average_precision_score

from alnnode.records import Crop, Interval
from training.evaluate import auroc

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    Scores = npt.NDArray[np.floating[Any]]
    Labels = npt.NDArray[np.bool_]
    Patients = npt.NDArray[np.str_]

SMALLEST_SUBGROUP = 5  # nodes of either class, and patients; an AUROC of fewer says nothing


@dataclass(frozen=True, slots=True)
class Point:
    """What a threshold gives; intervals are Wilson's with the patients' design effect."""

    threshold: float
    sensitivity: Interval
    specificity: Interval
    accuracy: Interval


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin of a reliability diagram: mean probability, share of positives with its interval, how many."""

    predicted: float
    observed: Interval
    nodes: int


@dataclass(frozen=True, slots=True)
class Subgroup:
    """The AUROC within one part of the nodes; None where either class has too few."""

    name: str
    nodes: int
    malignant: int
    auroc: Interval | None


def proportion(hits: int, of: int) -> Interval:
    """Return a proportion with its Wilson interval (Wilson, JASA 1927)."""
    interval = stats.binomtest(hits, of).proportion_ci(method="wilson")
    return Interval(hits / of, float(interval.low), float(interval.high))


def clustered_proportion(hits: Labels, patients: Patients) -> Interval:
    """Return the share of hits with the Wilson interval of as many nodes as they are worth (Rao & Scott, Biometrics 1992).

    Nodes of one patient are right or wrong together; the design effect, never taken below 1, says how much less they tell. Where all
    are hits, or none, it cannot be estimated: they are worth no more than their patients.
    """
    count, rate = len(hits), float(hits.mean())
    _, cluster = np.unique(patients, return_inverse=True)
    residual = np.bincount(cluster, hits - rate)
    groups = len(residual)
    plain = rate * (1 - rate) / count
    clustered = groups / max(groups - 1, 1) * float((residual**2).sum()) / count**2
    worth = count / max(clustered / plain, 1.0) if plain > 0 else float(groups)
    z2 = auroc.Z**2
    middle = (rate + z2 / (2 * worth)) / (1 + z2 / worth)
    reach = auroc.Z / (1 + z2 / worth) * float(np.sqrt(rate * (1 - rate) / worth + z2 / (4 * worth**2)))
    return Interval(rate, max(middle - reach, 0.0), min(middle + reach, 1.0))


def at(labels: Labels, scores: Scores, patients: Patients, threshold: float) -> Point:
    """Return what calling everything at or above the threshold positive gives."""
    called = scores >= threshold
    return Point(
        threshold,
        clustered_proportion(called[labels], patients[labels]),
        clustered_proportion(~called[~labels], patients[~labels]),
        clustered_proportion(called == labels, patients),
    )


def youden(labels: Labels, scores: Scores) -> float:
    """Return the threshold with the greatest sensitivity + specificity (Youden, Cancer 1950); the highest of equals.

    It lies halfway to the next lower score: other nodes are not to fall on the edge of the ones it was chosen on.
    """
    candidates = np.unique(scores)[::-1]
    positives, negatives = np.sort(scores[labels]), np.sort(scores[~labels])
    found = 1 - np.searchsorted(positives, candidates, "left") / len(positives)
    spared = np.searchsorted(negatives, candidates, "left") / len(negatives)
    best = int(np.argmax(found + spared))
    return float(candidates[best : best + 2].mean())


def threshold_for(labels: Labels, scores: Scores, sensitivity: float) -> float:
    """Return the highest threshold, rounded down to 0.01 (below that, to 0.0001), at which at least so many of the positives are found."""
    positives = np.sort(scores[labels])
    allowed_misses = int(np.floor((1 - sensitivity) * len(positives) + 1e-9))  # 1 - 0.98 is a little less than 0.02
    lowest = float(positives[allowed_misses])
    steps = 100 if lowest >= 0.01 else 10_000
    return float(np.clip(np.floor(lowest * steps) / steps, 0.0001, 0.99))


def average_precision(labels: Labels, scores: Scores, patients: Patients, seed: int = 0, resamples: int = 500) -> Interval:
    """Return the area under precision and recall with the percentile interval of a bootstrap over patients."""
    _, cluster = np.unique(patients, return_inverse=True)
    count = int(cluster.max()) + 1
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(resamples):
        weights = rng.multinomial(count, np.full(count, 1 / count))[cluster]
        if weights[labels].any():
            found.append(average_precision_score(labels, scores, sample_weight=weights))
    low, high = np.quantile(found, [0.025, 0.975])
    return Interval(float(average_precision_score(labels, scores)), float(low), float(high))


def temperature_for(labels: Labels, logits: Scores) -> float:
    """Return the temperature that minimises the log loss of the members' mean probability (Guo et al., ICML 2017).

    The loss is that to Platt's targets (`soft_targets`): a few nodes that are ranked without a fault give no certainty.

    Args:
        labels: (N,).
        logits: (members, N).
    """
    candidates = np.round(np.geomspace(0.25, 8, 121), 4)
    losses = [_log_loss(labels, mean_probability(logits, t)) for t in candidates]
    return float(candidates[int(np.argmin(losses))])


def stack(scores: Mapping[Crop, Scores]) -> Scores:
    """Return the members' logits as (members, N), in the order of `Crop`."""
    return np.stack([scores[crop] for crop in Crop])


def mean_probability(logits: Scores, temperature: float) -> npt.NDArray[np.float64]:
    """Return the ensemble's probability (N,) from member logits (members, N)."""
    return np.asarray((1 / (1 + np.exp(-logits / temperature))).mean(axis=0), dtype=np.float64)


def reliability(labels: Labels, scores: Scores, bins: int = 10) -> list[Bin]:
    """Return the bins of equal width that hold any node."""
    place = np.minimum((scores * bins).astype(int), bins - 1)
    return [
        Bin(
            float(scores[place == b].mean()),
            proportion(int(labels[place == b].sum()), int((place == b).sum())),
            int((place == b).sum()),
        )
        for b in range(bins)
        if (place == b).any()
    ]


def expected_calibration_error(labels: Labels, scores: Scores, bins: int = 10) -> float:
    """Return the ECE over equal-width bins (Naeini et al., AAAI 2015)."""
    return float(sum(abs(b.observed.value - b.predicted) * b.nodes for b in reliability(labels, scores, bins)) / len(labels))


def brier(labels: Labels, scores: Scores) -> float:
    """Return the Brier score."""
    return float(np.mean((scores - labels) ** 2))


def subgroups(labels: Labels, scores: Scores, patients: Patients, groups: Mapping[str, npt.NDArray[np.str_]]) -> list[Subgroup]:
    """Return the AUROC within each value of each attribute."""
    found = []
    for attribute, values in groups.items():
        for value in np.unique(values):
            rows = values == value
            positive = int(labels[rows].sum())
            enough = min(positive, int(rows.sum()) - positive, len(np.unique(patients[rows]))) >= SMALLEST_SUBGROUP
            area = auroc.interval(labels[rows], scores[rows], patients[rows]) if enough else None
            found.append(Subgroup(f"{attribute}: {value}", int(rows.sum()), positive, area))
    return found


def soft_targets(labels: Labels) -> npt.NDArray[np.float64]:
    """Return what labels are worth as probabilities: not 0 and 1 but (n + 1) / (n + 2) of n of a class (Platt 1999)."""
    positives = int(labels.sum())
    return np.where(labels, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2))


def _log_loss(labels: Labels, scores: Scores) -> float:
    clipped = np.clip(scores, 1e-6, 1 - 1e-6)
    target = soft_targets(labels)
    return float(-np.mean(target * np.log(clipped) + (1 - target) * np.log(1 - clipped)))
