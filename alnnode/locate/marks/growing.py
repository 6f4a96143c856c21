"""The voxels of a node from a mark that is not a mask. These rules are our own; docs/detection.md states them.

* An outline, ellipse or circle is the cross-section of the node as drawn. Axes: the ellipse with these diameters.
* A rectangle or a single diameter: the soft tissue in the inscribed ellipse, or in the circle with this diameter.
* A point: the soft tissue around it, at most `POINT_MM` away, without tissue that is connected by a thin bridge.
* In neighbouring slices the node continues where soft tissue lies in the drawn cross-section, which shrinks like that of a ball.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from alnnode.locate.candidate_shape import filled_notch
from alnnode.locate.marks.placing import outline_of, plane_mask
from alnnode.locate.refine import HALF_WAY_HU
from alnnode.records import MarkShape

if TYPE_CHECKING:
    from alnnode.locate.grid import FloatVolume, Mask
    from alnnode.locate.marks.placing import Placed
    from alnnode.records import Volume

POINT_MM = 12.0  # largest distance of the node's voxels from its point
NEAR_MM = 4.0  # largest distance of a point from soft tissue
BRIDGE_MM = 1.5  # half the width of a bridge to tissue that is not part of the node
LEAST_SOFT = 0.3  # least share of soft tissue in a cross-section of the node
LEAST_FILLED = 0.5  # least share of soft tissue in a drawn shape; with less (a wide fatty hilum) the shape itself is used


def grow(volume: Volume, placed: Placed) -> tuple[Mask, int]:
    """Return the node of a graphic on one slice: its mask (slices, rows, columns), and the index of its first slice."""
    if placed.shape is MarkShape.POINT:
        return _around(volume, placed)
    drawn = plane_mask(volume, outline_of(volume, placed))
    if placed.shape in {MarkShape.BOX, MarkShape.LINE}:
        drawn = _soft_part(_smooth(volume, placed.slice_index), drawn)
    return _extended(volume, drawn, placed.slice_index)


def _smooth(volume: Volume, k: int) -> FloatVolume:
    """Return a slice, smoothed as in `alnnode.locate.refine`."""
    sigma = [0.35 / d for d in volume.spacing[1:]]
    smooth: FloatVolume = ndimage.gaussian_filter(volume.voxels[k].astype(np.float32).clip(-200, 300), sigma)
    return smooth


def _soft_part(smooth: FloatVolume, drawn: Mask) -> Mask:
    """Return the largest component of soft tissue in a shape, with its notch or hole (a fatty hilum) filled."""
    soft = drawn & (smooth > HALF_WAY_HU)
    labels, count = ndimage.label(soft)
    if count == 0:
        return drawn
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    piece: Mask = filled_notch((labels == int(sizes.argmax()))[None])[0] & drawn
    return piece if piece.sum() >= LEAST_FILLED * drawn.sum() else drawn


def _extended(volume: Volume, drawn: Mask, k: int) -> tuple[Mask, int]:
    """Return a cross-section extended into the neighbouring slices, and the index of its first slice."""
    depth = ndimage.distance_transform_edt(np.pad(drawn, 1), volume.spacing[1:])[1:-1, 1:-1]
    radius = float(depth.max())
    planes = {k: drawn}
    for step in (-1, 1):
        n = 1
        while n * volume.spacing[0] < radius and 0 <= k + n * step < len(volume.voxels):
            # The cross-section of a ball at this height; the drawn shape replaces its equator.
            inset = radius - np.sqrt(radius**2 - (n * volume.spacing[0]) ** 2)
            shape = drawn & (depth > inset)
            piece = _soft_part(_smooth(volume, k + n * step), shape)
            soft = piece & (_smooth(volume, k + n * step) > HALF_WAY_HU)
            if soft.sum() < max(1.0, LEAST_SOFT * shape.sum()) or not (piece & planes[k + (n - 1) * step]).any():
                break
            planes[k + n * step] = piece
            n += 1
    first = min(planes)
    return np.stack([planes[n] for n in range(first, max(planes) + 1)]), first


def _around(volume: Volume, placed: Placed) -> tuple[Mask, int]:
    """Return the soft tissue around a point; a ball of `NEAR_MM` when there is none."""
    j, i = placed.points[0]
    spacing = volume.spacing
    reach = [int(np.ceil(POINT_MM / d)) + 1 for d in spacing]
    centre = (placed.slice_index, round(float(j)), round(float(i)))
    low = [max(0, c - r) for c, r in zip(centre, reach, strict=True)]
    high = [min(n, c + r + 1) for c, r, n in zip(centre, reach, volume.voxels.shape, strict=True)]
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    axes = np.ogrid[box]
    distance = np.sqrt(sum(((a - c) * d) ** 2 for a, c, d in zip(axes, (placed.slice_index, j, i), spacing, strict=True)))
    smooth = ndimage.gaussian_filter(volume.voxels[box].astype(np.float32).clip(-200, 300), [0.35 / d for d in spacing])
    node = _seeded((smooth > HALF_WAY_HU) & (distance <= POINT_MM), distance, spacing)
    mask = np.zeros((high[0] - low[0], *volume.voxels.shape[1:]), dtype=bool)
    mask[(slice(None), *box[1:])] = node if node.any() else distance <= max(NEAR_MM, spacing[0] / 2)
    return mask, low[0]


def _seeded(soft: Mask, distance: FloatVolume, spacing: tuple[float, float, float]) -> Mask:
    """Return the component of soft tissue nearest to the point, separated at its bridges when it has a core."""
    depth = ndimage.distance_transform_edt(np.pad(soft, 1), spacing)[1:-1, 1:-1, 1:-1]
    core = depth > BRIDGE_MM
    for seeds, reach in ((core, BRIDGE_MM), (soft, 0.0)):
        labels, _ = ndimage.label(seeds)
        near = np.where(seeds, distance, np.inf)
        nearest = np.unravel_index(int(near.argmin()), near.shape)
        if near[nearest] <= NEAR_MM:
            piece = labels == labels[nearest]
            grown: Mask = soft & (ndimage.distance_transform_edt(~piece, spacing) <= reach)
            return grown
    return np.zeros_like(soft)
