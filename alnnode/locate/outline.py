"""The network's own outlines as candidates: nodes whose soft tissue no threshold separates from a muscle, a vessel or each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.segmentation import watershed

from alnnode.locate.candidates import Candidate
from alnnode.locate.refine import HALF_WAY_HU

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alnnode.locate.candidates import SearchGrid
    from alnnode.locate.detector import Maps

LEVELS = (0.25, 0.5)  # probability of "node" inside an outline
CORE = 0.1  # depth of a core
APART_STEPS = 2  # grid steps between two cores
MIN_POINTS = 15  # grid points of an outline
ROOM_STEPS = 4  # around what is outlined


def outlines(grid: SearchGrid, maps: Maps) -> Iterator[Candidate]:
    """Take the probability of "node" apart between the cores that the depth shows (watershed), at each of `LEVELS`."""
    labels, _ = ndimage.label(maps.node > LEVELS[0])
    for number, inner in enumerate(ndimage.find_objects(labels), start=1):
        box = tuple(slice(max(0, s.start - ROOM_STEPS), s.stop + ROOM_STEPS) for s in inner)
        own = labels[box] == number
        if own.sum() < MIN_POINTS:
            continue
        depth = ndimage.gaussian_filter(maps.depth[box], 0.7)
        for level in LEVELS:
            inside = own & (maps.node[box] > level)
            cores = peak_local_max(
                depth, min_distance=APART_STEPS, threshold_abs=CORE, exclude_border=False, labels=inside.astype(int)
            )
            if not len(cores):
                continue
            markers = np.zeros(inside.shape, dtype=np.int32)
            markers[tuple(cores.T)] = np.arange(1, len(cores) + 1)
            parts = watershed(-depth, markers, mask=inside)
            for label, part in enumerate(ndimage.find_objects(parts), start=1):
                if part is None:
                    continue
                mask = parts[part] == label
                offset = tuple(b.start + p.start for b, p in zip(box, part, strict=True))
                if mask.sum() >= MIN_POINTS:
                    yield Candidate(grid, mask, (offset[0], offset[1], offset[2]), HALF_WAY_HU)
