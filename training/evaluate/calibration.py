"""Calibration of probabilities: temperature scaling, reliability bins, expected calibration error, Brier score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from training.evaluate.operating_points import wilson_interval
from training.networks.inference import mean_probability

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.records import Interval

    Scores = npt.NDArray[np.floating[Any]]
    Labels = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """One bin of a reliability diagram: mean probability, observed share of positives with its interval, number of nodes."""

    predicted: float
    observed: Interval
    nodes: int


def fit_temperature(labels: Labels, logits: Scores) -> float:
    """Return the temperature that minimises the log loss of the members' mean probability (Guo et al., ICML 2017).

    The targets are those of `platt_targets`, so that a small validation set without ranking errors does not give certainty.

    Args:
        labels: (N,).
        logits: (members, N).
    """
    candidates = np.round(np.geomspace(0.25, 8, 121), 4)
    losses = [_log_loss(labels, mean_probability(logits, t)) for t in candidates]
    return float(candidates[int(np.argmin(losses))])


def platt_targets(labels: Labels) -> npt.NDArray[np.float64]:
    """Return the labels as probabilities: (n + 1) / (n + 2) and 1 / (n + 2) for n nodes of a class, not 1 and 0 (Platt 1999)."""
    positives = int(labels.sum())
    return np.where(labels, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2))


def reliability_bins(labels: Labels, scores: Scores, bins: int = 10) -> list[ReliabilityBin]:
    """Return the bins of equal width that contain at least one node."""
    place = np.minimum((scores * bins).astype(int), bins - 1)
    return [
        ReliabilityBin(
            float(scores[place == b].mean()),
            wilson_interval(int(labels[place == b].sum()), int((place == b).sum())),
            int((place == b).sum()),
        )
        for b in range(bins)
        if (place == b).any()
    ]


def expected_calibration_error(labels: Labels, scores: Scores, bins: int = 10) -> float:
    """Return the ECE over equal-width bins (Naeini et al., AAAI 2015)."""
    found = reliability_bins(labels, scores, bins)
    return float(sum(abs(b.observed.value - b.predicted) * b.nodes for b in found) / len(labels))


def brier_score(labels: Labels, scores: Scores) -> float:
    """Return the Brier score."""
    return float(np.mean((scores - labels) ** 2))


def _log_loss(labels: Labels, scores: Scores) -> float:
    clipped = np.clip(scores, 1e-6, 1 - 1e-6)
    target = platt_targets(labels)
    return float(-np.mean(target * np.log(clipped) + (1 - target) * np.log(1 - clipped)))
