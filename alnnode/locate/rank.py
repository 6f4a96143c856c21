"""How well a reading of soft tissue fits what the network sees: the score of a candidate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from alnnode.locate.extent import axillary
from alnnode.locate.reach import around

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from alnnode.locate.candidates import Candidate
    from alnnode.records import FloatArray

RING_STEPS = 3  # grid steps around a reading that count against it where the network sees node there


def scores(candidates: Sequence[Candidate], node: npt.NDArray[np.float32]) -> FloatArray:
    """Score of each candidate of one axilla, shape (n,), 0 to 1: what the network sees, by whether an axillary node can lie there.

    Args:
        candidates: readings of one axilla.
        node: the network's map of it (`Detector.look`).
    """
    return np.array([agreement(c.mask, c.offset, node) * _in_axilla(c) for c in candidates], dtype=np.float32)


def _in_axilla(candidate: Candidate) -> float:
    ramps, (z, y, _) = candidate.grid.ramps, candidate.centre
    return float(axillary(ramps[0] @ (1, z), ramps[1] @ (1, y)))


def agreement(mask: npt.NDArray[np.bool_], offset: tuple[int, int, int], node: npt.NDArray[np.float32]) -> float:
    """Soft intersection over union (Jaccard) of a mask with the probability of "node" in it and in the ring around it.

    A reading that holds half of a node, a node and a vessel, or two nodes of which the network sees one, scores low; of the readings
    of one place, the one that the network outlines itself scores highest.
    """
    box, own = around(mask, offset, RING_STEPS, node.shape)
    part = node[box]
    ring = ndimage.binary_dilation(own, iterations=RING_STEPS) & ~own
    return float(part[own].sum() / (own.sum() + part[ring].sum()))
