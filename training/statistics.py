"""Figures with their intervals. Nodes of one patient are not independent: AUROC is resampled by patient."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import stats
from sklearn.metrics import roc_auc_score

from alnnode.records import Crop, Interval

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    Scores = npt.NDArray[np.float64]
    Labels = npt.NDArray[np.bool_]

RESAMPLES = 2000


def auroc(labels: Labels, scores: Scores, patients: npt.NDArray[np.str_], seed: int = 0) -> Interval:
    """Return the AUROC with the percentile interval of a bootstrap over patients (Rutter, Acad Radiol 2000)."""
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(patients == name) for name in np.unique(patients)]
    found = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([groups[g] for g in rng.integers(0, len(groups), len(groups))])
        if 0 < labels[rows].sum() < len(rows):
            found.append(roc_auc_score(labels[rows], scores[rows]))
    low, high = np.quantile(found, [0.025, 0.975])
    return Interval(float(roc_auc_score(labels, scores)), float(low), float(high))


def proportion(hits: int, of: int) -> Interval:
    """Return a proportion with its Wilson interval (Wilson, JASA 1927)."""
    interval = stats.binomtest(hits, of).proportion_ci(method="wilson")
    return Interval(hits / of, float(interval.low), float(interval.high))


def threshold_for(labels: Labels, scores: Scores, sensitivity: float) -> float:
    """Return the highest threshold, rounded down to 0.01, at which at least so many of the positives are found."""
    positives = np.sort(scores[labels])
    allowed_misses = int(np.floor((1 - sensitivity) * len(positives)))
    return float(np.clip(np.floor(positives[allowed_misses] * 100) / 100, 0.01, 0.99))


def temperature_for(labels: Labels, logits: Scores) -> float:
    """Return the temperature that minimises the log loss of the members' mean probability (Guo et al., ICML 2017).

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


def mean_probability(logits: Scores, temperature: float) -> Scores:
    """Return the ensemble's probability (N,) from member logits (members, N)."""
    return np.asarray((1 / (1 + np.exp(-logits / temperature))).mean(axis=0), dtype=np.float64)


def expected_calibration_error(labels: Labels, scores: Scores, bins: int = 10) -> float:
    """Return the ECE over equal-width bins."""
    place = np.minimum((scores * bins).astype(int), bins - 1)
    total = sum(
        abs(labels[place == b].mean() - scores[place == b].mean()) * (place == b).sum()
        for b in range(bins)
        if (place == b).any()
    )
    return float(total / len(labels))


def brier(labels: Labels, scores: Scores) -> float:
    """Return the Brier score."""
    return float(np.mean((scores - labels) ** 2))


def _log_loss(labels: Labels, scores: Scores) -> float:
    clipped = np.clip(scores, 1e-6, 1 - 1e-6)
    return float(-np.mean(np.where(labels, np.log(clipped), np.log(1 - clipped))))
