"""Decision curves: the net benefit of acting on a model, beside acting on every node and on none (Vickers & Elkin, Med Decis Making 2006)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Scores = npt.NDArray[np.floating[Any]]
    Labels = npt.NDArray[np.bool_]

THRESHOLDS: Final = np.round(np.linspace(0.02, 0.80, 40), 4)


def net_benefit(labels: Labels, probability: Scores, thresholds: Scores = THRESHOLDS) -> npt.NDArray[np.float64]:
    """Return the net benefit of calling a node positive from each threshold probability on, in true positives per node.

    A false positive costs p / (1 - p) true positives, where p is the threshold: the probability at which a reader is undecided.

    Args:
        labels: (N,).
        probability: (N,) calibrated probabilities.
        thresholds: (T,) between 0 and 1.
    """
    called = probability[None, :] >= thresholds[:, None]
    true, false = (called & labels).mean(axis=1), (called & ~labels).mean(axis=1)
    benefit: npt.NDArray[np.float64] = true - false * thresholds / (1 - thresholds)
    return benefit


def net_benefit_of_all(labels: Labels, thresholds: Scores = THRESHOLDS) -> npt.NDArray[np.float64]:
    """Return the net benefit of calling every node positive; that of calling none is 0."""
    return net_benefit(labels, np.ones(len(labels)), thresholds)
