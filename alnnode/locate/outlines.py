"""Candidates that the network outlines itself, for nodes that soft tissue alone does not separate: touching, fatty or among strands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scipy import ndimage

from alnnode.locate.candidates import MIN_VOLUME_MM3, Candidate, surrounds_metal
from alnnode.locate.distances import padded_box
from alnnode.locate.partitions import SOFT_HU
from alnnode.locate.search_grid import GRID_MM
from alnnode.locate.touching import depth_basins

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alnnode.locate.detector import DetectorMaps
    from alnnode.locate.search_grid import SearchGrid

NODE_PROBABILITY = 0.5
FILTER_STEPS = 2  # grid steps around a connected region that the smoothing of the depth reads
# Share of its score that an outline has against a reading of soft tissue. An outline always agrees with the map from which it was made, and
# its border is less exact.
OUTLINE_SHARE = 0.7


def outline_candidates(grid: SearchGrid, maps: DetectorMaps) -> list[Candidate]:
    """Return the basins of the network's depth where "node" is probable, one for each maximum that a valley separates from others.

    Outlines at the border of the images and around metal are left out, as for `alnnode.locate.candidates`.
    """
    return [
        candidate
        for candidate in _outlines(grid, maps)
        if candidate.volume_mm3 >= MIN_VOLUME_MM3 and not surrounds_metal(grid.hu, candidate.mask, candidate.offset)
    ]


def _outlines(grid: SearchGrid, maps: DetectorMaps) -> Iterator[Candidate]:
    labels, _ = ndimage.label(maps.node > NODE_PROBABILITY)
    for number, inner in enumerate(ndimage.find_objects(labels), start=1):
        region = labels[inner] == number
        if region.sum() * GRID_MM**3 < MIN_VOLUME_MM3:
            continue
        box, probable = padded_box(region, [s.start for s in inner], FILTER_STEPS, grid.hu.shape)
        basins = depth_basins(probable, maps.depth[box])
        for basin, part in enumerate(ndimage.find_objects(basins), start=1):
            mask = basins[part] == basin
            z, y, x = (b.start + s.start for b, s in zip(box, part, strict=True))
            here = tuple(slice(o, o + n) for o, n in zip((z, y, x), mask.shape, strict=True))
            if not grid.edge[here][mask].any():
                yield Candidate(grid, mask, (z, y, x), SOFT_HU)
