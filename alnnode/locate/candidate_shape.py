"""Shape of a candidate: fast measures that distinguish blobs from tubes and plates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import ConvexHull, QhullError
from skimage.draw import polygon2mask

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.locate.grid import Mask


@dataclass(frozen=True, slots=True)
class CandidateShape:
    """How much a mask differs from a ball.

    Attributes:
        elongation: longest divided by middle principal extent: high for a tube, low for a plate and a ball.
        flatness: middle divided by shortest principal extent.
        fill: volume divided by that of the ellipsoid with the same principal extents: about 1 for nodes.
    """

    elongation: float
    flatness: float
    fill: float


def candidate_shape(mask: Mask) -> CandidateShape:
    """Return the shape of a mask on an isotropic grid."""
    points = np.argwhere(mask).astype(np.float64)
    points -= points.mean(axis=0)
    # A twelfth of a squared step is the variance of a voxel itself; it keeps the extents of single-slice masks above 0.
    variances = np.linalg.eigvalsh(points.T @ points / len(points) + np.eye(3) / 12)
    extents = np.sqrt(variances[::-1])
    # The variance of a solid ellipsoid along its semi-axis a is a^2 / 5.
    semi_axes = extents * np.sqrt(5)
    return CandidateShape(
        elongation=float(extents[0] / extents[1]),
        flatness=float(extents[1] / extents[2]),
        fill=len(points) / float(4 / 3 * np.pi * np.prod(semi_axes)),
    )


def fat_contacts(
    labels: npt.NDArray[np.int32], soft: Mask, points: npt.NDArray[np.intp], count: int
) -> npt.NDArray[np.float64]:
    """Return, for each label, the share of its surface (voxel faces) that does not border on soft tissue, shape (count,).

    Args:
        labels: parts of the soft tissue.
        soft: all of it.
        points: flat indices of all voxels of the labels in question; the other labels get 0.
        count: of labels, with 0.
    """
    faces, free = np.zeros(count), np.zeros(count)
    flat, tissue = labels.reshape(-1), soft.reshape(-1)
    own = flat[points]
    for axis, size in enumerate(labels.shape):
        stride = int(np.prod(labels.shape[axis + 1 :]))
        at = points // stride % size
        for step, last in ((-stride, 0), (stride, size - 1)):
            within = np.flatnonzero(at != last)
            beside = points[within] + step
            border = flat[beside] != own[within]
            label = own[within[border]]
            faces += np.bincount(label, minlength=count)
            free += np.bincount(label[~tissue[beside[border]]], minlength=count)
    contact: npt.NDArray[np.float64] = free / np.maximum(faces, 1)
    return contact


def filled_notch(mask: Mask) -> Mask:
    """Return the convex hull of each slice: a kidney-shaped cortex becomes the whole node with its hilum."""
    return np.stack([_hull(plane) if plane.any() else plane for plane in mask])


def around(mask: Mask) -> Mask:
    """Return the smallest octagon of each slice that holds its mask, and so its convex hull: many times faster to compute than the hull."""
    z, y, x = np.nonzero(mask)
    held = np.zeros_like(mask)
    if not z.size:
        return held
    used, firsts = np.unique(z, return_index=True)
    rows, columns = np.ogrid[: mask.shape[1], : mask.shape[2]]
    held[used] = True
    for points, grid in ((y, rows), (x, columns), (y + x, rows + columns), (y - x, rows - columns)):
        low, high = np.minimum.reduceat(points, firsts), np.maximum.reduceat(points, firsts)
        held[used] &= (grid >= low[:, None, None]) & (grid <= high[:, None, None])
    return held


def _hull(plane: Mask) -> Mask:
    """Return the convex hull of a slice; a mask with fewer than four points stays unchanged."""
    rows, columns = np.nonzero(plane)
    if rows.size < 4 or rows.min() == rows.max() or columns.min() == columns.max():
        return plane
    try:
        corners = ConvexHull(np.column_stack([rows, columns])).vertices
    except QhullError:  # all points lie on one oblique line
        return plane
    hull: Mask = polygon2mask(plane.shape, np.column_stack([rows, columns])[corners])
    return hull | plane
