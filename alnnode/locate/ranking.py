"""Score of a candidate: how well it fits the maps of the network, and whether it is a part of larger soft tissue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from alnnode.locate.axilla_extent import axillary
from alnnode.locate.distances import dilate, padded_box, squared_depths
from alnnode.locate.partitions import SOFT_HU

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from alnnode.locate.candidates import Candidate
    from alnnode.records import FloatArray

RING_STEPS = 2  # grid steps around a candidate in which depth on the map lowers its score
BESIDE_STEPS = 1.5  # the neighbours that share a face or an edge


def candidate_scores(candidates: Sequence[Candidate], depth: npt.NDArray[np.float32]) -> FloatArray:
    """Return the scores of candidates, shape (n,), 0 to 1.

    The score is the agreement with the map, times the share of the surface that is clear of other soft tissue, times the likelihood of an
    axillary position.

    Args:
        candidates: of one axilla.
        depth: the map of that axilla (`detector.DetectorMaps`).
    """
    return np.array([agreement(c.mask, c.offset, depth) * clearance(c) * _in_axilla(c) for c in candidates], dtype=np.float32)


def _in_axilla(candidate: Candidate) -> float:
    ramps, (z, y, _) = candidate.grid.ramps, candidate.centre
    return float(axillary(ramps[0] @ (1, z), ramps[1] @ (1, y)))


def agreement(mask: npt.NDArray[np.bool_], offset: tuple[int, int, int], depth: npt.NDArray[np.float32]) -> float:
    """Return the soft intersection over union (Jaccard) of the depth inside a mask and the depth on the map in and around it.

    A candidate that covers half of a node, or a node and a vessel, scores low. So does the union of two touching nodes: it is deepest
    at the valley that the map has between them.
    """
    box, own = padded_box(mask, offset, RING_STEPS, depth.shape)
    # The border of the grid is outside the mask.
    padded = np.pad(own, 1)
    inside = np.zeros(own.shape)
    inside[own] = np.sqrt(squared_depths(padded, np.flatnonzero(padded)).astype(np.float64))
    near = dilate(own, RING_STEPS)
    mine, seen = (inside / inside.max())[near], depth[box][near]
    return float(np.minimum(mine, seen).sum() / np.maximum(mine, seen).sum())


def clearance(candidate: Candidate) -> float:
    """Return the share of the points beside a candidate that are not soft tissue, 0 to 1.

    A piece of a vessel, a muscle or the breast gland continues beyond its own border; a node lies in fat. The threshold is always
    `SOFT_HU`, not that of the candidate: a piece that was cut out of denser tissue at a high threshold is surrounded by soft tissue.
    """
    smooth = candidate.grid.smooth
    box, own = padded_box(candidate.mask, candidate.offset, 1, smooth.shape)
    beside = dilate(own, BESIDE_STEPS) & ~own
    return float((smooth[box][beside] <= SOFT_HU).mean())
