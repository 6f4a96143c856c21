"""Refinement of a candidate: from the 1 mm grid to a mask in the pixels of the source."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from alnnode.locate.search_grid import GRID_MM

if TYPE_CHECKING:
    from alnnode.locate.candidates import Candidate
    from alnnode.locate.grid import Mask
    from alnnode.records import Volume

HALF_WAY_HU = -20.0  # the border of a node (40 to 60) to fat (-100) lies where the blurred edge is half way


def source_mask(volume: Volume, candidate: Candidate) -> tuple[Mask, tuple[int, int, int]]:
    """Return the candidate's voxels in source order, and the offset (k, j, i) of that sub-volume.

    The border to fat is determined again in the pixels of the source; the border to other soft tissue is that of the candidate.
    """
    grid = candidate.grid
    frame = grid.frame
    canonical = frame.canonical(volume.voxels)
    ratio = [d / GRID_MM for d in frame.spacing]
    start, stop = [], []
    for axis in range(3):
        low = grid.start[axis] + (candidate.offset[axis] - 1.5) / ratio[axis]
        high = grid.start[axis] + (candidate.offset[axis] + candidate.mask.shape[axis] + 0.5) / ratio[axis]
        start.append(max(0, int(np.floor(low))))
        stop.append(min(canonical.shape[axis], int(np.ceil(high)) + 1))
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    inner, reach = _neighbourhood(candidate)
    # The first source voxel of the box in grid coordinates of the padded neighbourhood.
    first = [(a - s) * r - (o - PAD) for a, s, r, o in zip(start, grid.start, ratio, candidate.offset, strict=True)]
    shape = tuple(b - a for a, b in zip(start, stop, strict=True))
    sampled = [
        ndimage.affine_transform(m.astype(np.float32), np.array(ratio), offset=first, output_shape=shape, order=1)
        for m in (inner, reach)
    ]
    sigma = [0.35 * GRID_MM / d for d in frame.spacing]
    smooth = ndimage.gaussian_filter(canonical[box].astype(np.float32).clip(-200, 300), sigma)
    mask = (sampled[0] > 0.5) | ((sampled[1] > 0.5) & (smooth > HALF_WAY_HU))
    mask = _largest(mask)
    first_voxel = (start[0], start[1], start[2])
    last_voxel = (stop[0], stop[1], stop[2])
    offset = frame.source_box(first_voxel, last_voxel, canonical.shape)
    return np.ascontiguousarray(frame.source(mask)), offset


PAD = 2


def _neighbourhood(candidate: Candidate) -> tuple[Mask, Mask]:
    """Return the certain part of the node, and the area that its border may extend to (both padded by `PAD` grid points)."""
    grid = candidate.grid
    mask = np.pad(candidate.mask, PAD)
    index = [
        np.clip(np.arange(o - PAD, o - PAD + n), 0, size - 1)
        for o, n, size in zip(candidate.offset, mask.shape, grid.smooth.shape, strict=True)
    ]
    soft = grid.smooth[np.ix_(*index)] > candidate.threshold
    inner = ndimage.binary_erosion(mask)
    # The node must not extend into neighbouring soft tissue.
    foreign = ndimage.binary_dilation(soft & ~mask) & ~mask
    reach = mask | (ndimage.binary_dilation(mask) & ~foreign & ~soft)
    return inner, reach


def _largest(mask: Mask) -> Mask:
    labels, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    if count < 2:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest: Mask = labels == int(sizes.argmax())
    return largest
