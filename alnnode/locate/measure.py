"""Measurements of one node from its mask: contour, axes, attenuation, volume, hilum and cortex.

The axes are measured as readers measure them (RECIST 1.1, Eisenhauer 2009): on the axial slice with the largest cross-section, the
long axis is the greatest diameter, and the short axis is the greatest chord perpendicular to it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import cdist
from skimage.measure import approximate_polygon, find_contours

from alnnode.locate.hilum import find_hilum
from alnnode.records import Attenuation, Axis, Box, Node, Side

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.locate.grid import Mask
    from alnnode.records import Volume

    Points = npt.NDArray[np.float64]

MAX_CONTOUR_POINTS = 64


def node_from_mask(volume: Volume, mask: Mask, offset: tuple[int, int, int], side: Side, number: int) -> Node:
    """Measure a node on its largest cross-section; otherwise as `measure_node`."""
    return replace(measure_node(volume, mask, offset), side=side, number=number)


def measure_node(volume: Volume, mask: Mask, offset: tuple[int, int, int], drawn: int | None = None) -> Node:
    """Measure a node. The caller sets its number, side, score, source and level.

    Args:
        volume: the series.
        mask: the node's voxels, shape (slices, rows, columns) of a sub-volume in source order.
        offset: (k, j, i) of the sub-volume's first voxel.
        drawn: slice on which a reader drew its cross-section, and on which it is measured; None: the largest cross-section.

    Raises:
        ValueError: the mask is empty or reaches beyond the volume.
    """
    box = _box(mask, offset, volume.voxels.shape)
    k = int(np.argmax(mask.sum(axis=(1, 2)))) if drawn is None else drawn - offset[0]
    outline = _outline(mask[k]) + np.array([offset[1], offset[2]])
    long_axis, short_axis = _axes(outline, volume.spacing[1:])
    sub = volume.voxels[tuple(slice(o, o + n) for o, n in zip(offset, mask.shape, strict=True))]
    values = sub[mask].astype(np.float64)
    voxel_mm3 = abs(float(np.linalg.det(volume.affine[:3, :3])))
    hilum = find_hilum(sub, mask, volume.spacing)
    return Node(
        number=0,
        box=box,
        side=Side.RIGHT,
        slice_index=offset[0] + k,
        contour=tuple((x, y) for x, y in _image(_simplified(outline))),
        long_axis=long_axis,
        short_axis=short_axis,
        attenuation=Attenuation(float(values.mean()), float(values.max()), float(values.std())),
        volume_mm3=float(mask.sum()) * voxel_mm3,
        hilum_fraction=None if hilum is None else hilum.fraction,
        cortex_mm=None if hilum is None else hilum.cortex_mm,
        mask=mask[tuple(slice(low - o, high - o) for low, high, o in zip(box.low, box.high, offset, strict=True))].copy(),
    )


def axes_mm(mask: Mask, spacing: tuple[float, float, float]) -> tuple[float, float]:
    """Return the long and the short axis, mm, of a mask (slices, rows, columns) on its largest cross-section; spacing in mm."""
    k = int(np.argmax(mask.sum(axis=(1, 2))))
    long_axis, short_axis = _axes(_outline(mask[k]), spacing[1:])
    return long_axis.length_mm, short_axis.length_mm


def short_axis_mm(mask: Mask, spacing: tuple[float, float, float]) -> float:
    """Return the short axis, mm, of a mask on its largest cross-section."""
    return axes_mm(mask, spacing)[1]


def _box(mask: Mask, offset: tuple[int, int, int], shape: tuple[int, ...]) -> Box:
    if not mask.any():
        raise ValueError("the mask of a node is empty")
    low, high = [], []
    for axis in range(3):
        used = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        low.append(int(used[0]) + offset[axis])
        high.append(int(used[-1]) + 1 + offset[axis])
    if min(low) < 0 or any(h > n for h, n in zip(high, shape, strict=True)):
        raise ValueError("the mask of a node reaches beyond the volume")
    return Box(*low, *high)


def _outline(plane: Mask) -> Points:
    """Return the outer contour (row, column) in voxel coordinates of the largest component of a slice of the mask."""
    labels, count = ndimage.label(plane, structure=np.ones((3, 3)))
    if count > 1:
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        plane = labels == int(sizes.argmax())
    contours = find_contours(np.pad(plane, 1).astype(np.float64), 0.5, positive_orientation="high")
    outline: Points = max(contours, key=len)[:-1] - 1.0  # the last point repeats the first
    return outline


def _simplified(outline: Points) -> Points:
    """Return the outline with at most `MAX_CONTOUR_POINTS` points (Douglas-Peucker)."""
    tolerance = 0.25
    closed = np.vstack([outline, outline[:1]])
    simple = closed
    while len(simple) - 1 > MAX_CONTOUR_POINTS or simple is closed:
        reduced = approximate_polygon(closed, tolerance)
        if len(reduced) < 4:  # a triangle is the smallest closed outline
            break
        simple = reduced
        tolerance *= 1.5
    points: Points = simple[:-1]
    return points


def _image(points: Points) -> list[tuple[float, float]]:
    """Return image coordinates (column, row) of voxel coordinates (row, column) (PS3.3 C.18.6.1.2)."""
    return [(round(float(column) + 0.5, 3), round(float(row) + 0.5, 3)) for row, column in points]


def _axes(outline: Points, spacing: tuple[float, ...]) -> tuple[Axis, Axis]:
    """Return the long and the short axis of an outline (row, column); spacing (row, column) in mm."""
    scale = np.array(spacing)
    points = outline * scale
    hull = points[ConvexHull(points).vertices]
    distances = cdist(hull, hull)
    a, b = np.unravel_index(int(distances.argmax()), distances.shape)
    start, end = hull[a], hull[b]
    along = (end - start) / distances[a, b]
    across = np.array([-along[1], along[0]])
    low, high = _widest_chord(hull - start, along, across)
    long_axis = _axis(start / scale, end / scale, float(distances[a, b]))
    short_axis = _axis((low + start) / scale, (high + start) / scale, float(np.linalg.norm(high - low)))
    return long_axis, short_axis


def _widest_chord(hull: Points, along: Points, across: Points) -> tuple[Points, Points]:
    """Return the ends of the longest chord of a convex polygon in the direction ``across``.

    The width as a function of the position along the axis is concave and piecewise linear, so its maximum is at a vertex.
    """
    u, v = hull @ along, hull @ across
    upper, lower = (v >= 0) | (u == u.min()) | (u == u.max()), (v <= 0) | (u == u.min()) | (u == u.max())
    stations = np.unique(u)
    tops = np.interp(stations, *_sorted(u[upper], v[upper], np.maximum))
    bottoms = np.interp(stations, *_sorted(u[lower], v[lower], np.minimum))
    widest = int(np.argmax(tops - bottoms))
    base = stations[widest] * along
    return base + bottoms[widest] * across, base + tops[widest] * across


def _sorted(u: Points, v: Points, pick: np.ufunc) -> tuple[Points, Points]:
    """Sort by ``u``; of equal ``u`` keep the outermost ``v``."""
    stations, inverse = np.unique(u, return_inverse=True)
    values = np.full(stations.shape, -np.inf if pick is np.maximum else np.inf)
    pick.at(values, inverse, v)
    return stations, values


def _axis(start: Points, end: Points, length: float) -> Axis:
    (first, second) = _image(np.vstack([start, end]))
    # Texts round to 0.1 mm: a value that is rounded to 0.01 mm before can end on the other side of the half.
    return Axis(first, second, round(length, 4))
