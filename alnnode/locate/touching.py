"""Touching nodes: a located candidate that covers several of them is divided where the network's depth has a valley.

The suppression prefers the union of touching nodes to its members, because the surface of a member continues into its neighbour
(`alnnode.locate.ranking.clearance`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import watershed

from alnnode.locate.search_grid import GRID_MM

if TYPE_CHECKING:
    from alnnode.locate.candidates import Candidate
    from alnnode.locate.detector import DetectorMaps
    from alnnode.locate.grid import FloatVolume, Mask
    from alnnode.locate.partitions import Labels

LEAST_UNION_MM3 = 600.0  # smaller candidates are not divided
LEAST_PART_MM3 = 80.0
VALLEY = 0.85  # highest depth of a valley, as a share of the lower of the two maxima that it separates
LEAST_PROBABILITY = 0.3  # of "node", the mean over a part
SMOOTHING_STEPS = 0.5
LEAST_DEPTH = 1e-3  # for the logarithm
EVERY_NEIGHBOUR = ndimage.generate_binary_structure(3, 3)


def divided(candidate: Candidate, maps: DetectorMaps) -> list[Candidate]:
    """Return one candidate for each of the touching nodes that a candidate covers; the candidate itself where it is one node.

    Args:
        candidate: of one axilla.
        maps: of that axilla.
    """
    if candidate.volume_mm3 < LEAST_UNION_MM3:
        return [candidate]
    box = tuple(slice(o, o + n) for o, n in zip(candidate.offset, candidate.mask.shape, strict=True))
    labels = depth_basins(candidate.mask, maps.depth[box], LEAST_PART_MM3)
    parts = [labels == number for number in range(1, int(labels.max()) + 1)]
    if len(parts) < 2 or any(maps.node[box][part].mean() < LEAST_PROBABILITY for part in parts):
        return [candidate]
    return [_part(candidate, part) for part in parts]


def depth_basins(mask: Mask, depth: FloatVolume, least_mm3: float = 0.0) -> Labels:
    """Return the watershed basins of the depth in a mask, one for each maximum that a valley separates from all deeper maxima.

    Args:
        mask: where to divide.
        depth: of the network, in the same box.
        least_mm3: smaller basins are joined to their neighbours.
    """
    inside = np.pad(mask, 1)
    smooth = ndimage.gaussian_filter(np.pad(depth, 1), SMOOTHING_STEPS, truncate=4.0)
    # A ratio of depths is a difference of their logarithms; maxima that remain after a reconstruction from below by that difference are
    # separated by such valleys (h-maxima, Soille, Morphological Image Analysis).
    height = np.log(np.where(inside, np.maximum(smooth, LEAST_DEPTH), LEAST_DEPTH).astype(np.float64))
    maxima = local_maxima(reconstruction(height + np.log(VALLEY), height)) & inside
    markers = ndimage.label(maxima, EVERY_NEIGHBOUR)[0]
    labels: Labels = watershed(-height, markers, mask=inside)
    sizes = np.bincount(labels.ravel()) * GRID_MM**3
    small = np.flatnonzero(sizes < least_mm3)
    if small.size:
        markers[np.isin(markers, small)] = 0
        markers = ndimage.label(markers > 0, EVERY_NEIGHBOUR)[0]
        labels = watershed(-height, markers, mask=inside)
    return labels[1:-1, 1:-1, 1:-1]


def _part(candidate: Candidate, part: Mask) -> Candidate:
    """Return the candidate with a part of its mask, cut to its box."""
    (box,) = ndimage.find_objects(part.astype(np.uint8))
    z, y, x = (o + s.start for o, s in zip(candidate.offset, box, strict=True))
    return replace(candidate, mask=np.ascontiguousarray(part[box]), offset=(z, y, x))
