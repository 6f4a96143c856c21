"""How well a reading of soft tissue fits what the network sees: the score of a candidate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from alnnode.locate.axilla_extent import axillary
from alnnode.locate.distances import around

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from alnnode.locate.candidates import Candidate
    from alnnode.records import FloatArray

RING_STEPS = 2  # grid steps around a reading in which what the network sees counts against it


def scores(candidates: Sequence[Candidate], depth: npt.NDArray[np.float32]) -> FloatArray:
    """Score of each candidate of one axilla, shape (n,), 0 to 1: what the network sees, by whether an axillary node can lie there.

    Args:
        candidates: readings of one axilla.
        depth: the network's map of it (`detector.Maps`).
    """
    return np.array([agreement(c.mask, c.offset, depth) * _in_axilla(c) for c in candidates], dtype=np.float32)


def _in_axilla(candidate: Candidate) -> float:
    ramps, (z, y, _) = candidate.grid.ramps, candidate.centre
    return float(axillary(ramps[0] @ (1, z), ramps[1] @ (1, y)))


def agreement(mask: npt.NDArray[np.bool_], offset: tuple[int, int, int], depth: npt.NDArray[np.float32]) -> float:
    """Soft intersection over union (Jaccard) of the depth inside a mask with the depth that the network sees there and around it.

    A reading that holds half of a node, or a node and a vessel, scores low. So does the union of two nodes that touch: it is deepest where the
    network sees the valley between them.
    """
    box, own = around(mask, offset, RING_STEPS, depth.shape)
    inside = ndimage.distance_transform_edt(np.pad(own, 1))[1:-1, 1:-1, 1:-1]
    near = ndimage.distance_transform_edt(~own) <= RING_STEPS
    mine, seen = (inside / inside.max())[near], depth[box][near]
    return float(np.minimum(mine, seen).sum() / np.maximum(mine, seen).sum())
