"""Outlines of a node on its slices, as closed polygons."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial.distance import cdist
from skimage.measure import approximate_polygon, find_contours

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alnnode.records import Node

Outline = npt.NDArray[np.float64]  # (points, 2): row and column in voxel coordinates, the first point not repeated
COLLINEAR = 0.01  # pixels: a point that is nearer to the line between its neighbours is left out
LEAST_PIXELS = 3  # smaller parts on a slice are strays at the surface of the node, which planning systems cannot use


def outlines(node: Node) -> Iterator[tuple[int, Outline]]:
    """Yield the slice index k and an outline for every part of the node on every slice, from the feet to the head.

    An outline runs midway between the pixel centres of the node and their neighbours. Parts of one or two pixels on a slice have none,
    unless the node has no larger part. Only the outline on the measured slice is known of a node without a mask.
    """
    if node.mask is None:
        yield node.slice_index, np.array([(row - 0.5, column - 0.5) for column, row in node.contour])
        return
    for k, part in _outlined(node.mask, node.box.k0):
        yield k, _outline(part) + np.array([node.box.j0, node.box.i0])


def outlined_slices(node: Node) -> set[int]:
    """Return the slice indices k for which `outlines` yields an outline."""
    return {node.slice_index} if node.mask is None else {k for k, _ in _outlined(node.mask, node.box.k0)}


def _outlined(mask: npt.NDArray[np.bool_], first: int) -> list[tuple[int, npt.NDArray[np.bool_]]]:
    """Return the parts that have an outline, with their slice indices; ``first`` is that of the first plane."""
    parts = [(k, part) for k, plane in enumerate(mask, start=first) for part in _parts(plane)]
    return [(k, part) for k, part in parts if np.count_nonzero(part) >= LEAST_PIXELS] or parts


def _parts(plane: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.bool_]]:
    """Return the connected parts of a node on a slice; pixels that touch only at a corner are not connected."""
    labels, count = ndimage.label(plane)
    return [labels == number for number in range(1, count + 1)]


def _outline(part: npt.NDArray[np.bool_]) -> Outline:
    """Return the outline of a connected part. Its holes are joined to it by channels without width (PS3.3 C.8.8.6.3)."""
    rings = [
        approximate_polygon(ring, COLLINEAR)[:-1] - 1.0  # the last point repeats the first
        for ring in find_contours(np.pad(part, 1).astype(np.float64), 0.5, positive_orientation="high")
    ]
    rings.sort(key=lambda ring: float(np.ptp(ring, axis=0).prod()), reverse=True)  # the outer ring has the largest extent
    outline: Outline = rings[0]
    for hole in rings[1:]:
        at, start = np.unravel_index(int(cdist(outline, hole).argmin()), (len(outline), len(hole)))
        loop = np.roll(hole, -int(start), axis=0)
        outline = np.vstack([outline[: at + 1], loop, loop[:1], outline[at:]])
    return outline
