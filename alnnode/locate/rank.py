"""How well a reading of soft tissue fits what the network sees: the score of a candidate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from alnnode.locate.candidates import Candidate
    from alnnode.locate.detector import Maps
    from alnnode.records import FloatArray

RING_STEPS = 3  # grid steps around a reading that count against it where the network sees node there
# Where the axilla ends towards the feet, dm below the lung apex: in front lies the breast, further back the axilla reaches lower.
# Two readers drew its lower edge 0.86 to 1.34 dm below the apex in nine patients.
LOWER_END_DM = (1.0, 1.3)
FRONT, BACK = 0.25, 0.45  # depth in the chest to which these belong
SOFT_DM = 0.05


def scores(candidates: Sequence[Candidate], maps: Maps) -> FloatArray:
    """Score of each candidate of one axilla, shape (n,), 0 to 1: what the network sees, by whether an axillary node can lie there."""
    return np.array([agreement(c.mask, c.offset, maps.node) * _in_axilla(c) for c in candidates], dtype=np.float32)


def _in_axilla(candidate: Candidate) -> float:
    ramps, (z, y, _) = candidate.grid.ramps, candidate.centre
    return axillary(float(ramps[0] @ (1, z)), float(ramps[1] @ (1, y)))


def axillary(below_apex_dm: float, depth: float) -> float:
    """How likely a place is still axilla, not breast or chest wall below it, 0 to 1.

    Args:
        below_apex_dm: of the place below the lung apex.
        depth: from the front (0) to the back (1) of the chest.
    """
    end = np.interp(depth, (FRONT, BACK), LOWER_END_DM)
    return float(1 / (1 + np.exp((below_apex_dm - end) / SOFT_DM)))


def agreement(mask: npt.NDArray[np.bool_], offset: tuple[int, int, int], node: npt.NDArray[np.float32]) -> float:
    """Soft intersection over union (Jaccard) of a mask with the probability of "node" in it and in the ring around it.

    A reading that holds half of a node, a node and a vessel, or two nodes of which the network sees one, scores low; of the readings
    of one place, the one that the network outlines itself scores highest.
    """
    box = tuple(slice(max(0, o - RING_STEPS), o + n + RING_STEPS) for o, n in zip(offset, mask.shape, strict=True))
    part = node[box]
    own = np.zeros(part.shape, dtype=bool)
    own[tuple(slice(o - b.start, o - b.start + n) for o, n, b in zip(offset, mask.shape, box, strict=True))] = mask
    ring = ndimage.binary_dilation(own, iterations=RING_STEPS) & ~own
    return float(part[own].sum() / (own.sum() + part[ring].sum()))
