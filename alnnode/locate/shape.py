"""Shape of a candidate: cheap figures that tell blobs from tubes and plates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import ConvexHull, QhullError
from skimage.draw import polygon2mask

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.locate.grid import FloatVolume, Mask


@dataclass(frozen=True, slots=True)
class Shape:
    """What the scorer is told besides the patch.

    Attributes:
        volume_mm3: of the mask.
        elongation: longest by middle principal extent (a tube has much, a plate and a ball little).
        flatness: middle by shortest principal extent.
        fat_contact: part of the surface that borders on fat, 0 to 1.
        fill: volume by volume of the ellipsoid with the same principal extents, about 1 for nodes.
        mean_hu: mean attenuation.
        thickness_mm: shortest axis of that ellipsoid.
    """

    volume_mm3: float
    elongation: float
    flatness: float
    fat_contact: float
    fill: float
    mean_hu: float
    thickness_mm: float

    def features(self) -> npt.NDArray[np.float32]:
        """Scaled to about -1..1 for a network, shape (7,)."""
        return np.array(
            [
                np.log10(self.volume_mm3) - 2.5,
                np.log2(self.elongation) - 0.7,
                np.log2(self.flatness) - 0.7,
                2 * self.fat_contact - 1,
                2 * self.fill - 1.5,
                (self.mean_hu - 20) / 60,
                self.thickness_mm / 10 - 0.7,
            ],
            dtype=np.float32,
        )


def describe(hu: FloatVolume, mask: Mask, offset: tuple[int, int, int], fat_contact: float, grid_mm: float) -> Shape:
    """Describe a mask (cut to its box at ``offset``) on a grid of HU."""
    points = np.argwhere(mask).astype(np.float64)
    points -= points.mean(axis=0)
    # A twelfth of a squared step: the extent of a voxel itself; keeps single-slice masks finite.
    variances = np.linalg.eigvalsh(points.T @ points / len(points) + np.eye(3) / 12)
    extents = np.sqrt(variances[::-1])
    box = tuple(slice(o, o + n) for o, n in zip(offset, mask.shape, strict=True))
    # A solid ellipsoid of semi-axis a has the variance a^2 / 5 along it.
    semi_axes = extents * np.sqrt(5)
    return Shape(
        volume_mm3=len(points) * grid_mm**3,
        elongation=float(extents[0] / extents[1]),
        flatness=float(extents[1] / extents[2]),
        fat_contact=fat_contact,
        fill=len(points) / float(4 / 3 * np.pi * np.prod(semi_axes)),
        mean_hu=float(hu[box][mask].mean()),
        thickness_mm=2 * grid_mm * float(semi_axes[2]),
    )


def fat_contacts(labels: npt.NDArray[np.int32], soft: Mask, count: int) -> npt.NDArray[np.float64]:
    """Part of the surface of every label (voxel faces) that borders on something other than soft tissue, shape (count,)."""
    faces, free = np.zeros(count), np.zeros(count)
    for axis in range(3):
        before = tuple(slice(0, -1 if a == axis else None) for a in range(3))
        after = tuple(slice(1 if a == axis else 0, None) for a in range(3))
        low, high, soft_low, soft_high = labels[before], labels[after], soft[before], soft[after]
        edge = low != high
        for own, other_soft in ((low[edge], soft_high[edge]), (high[edge], soft_low[edge])):
            faces += np.bincount(own, minlength=count)
            free += np.bincount(own, weights=~other_soft, minlength=count)
    contact: npt.NDArray[np.float64] = free / np.maximum(faces, 1)
    return contact


def filled_notch(mask: Mask) -> Mask:
    """Slice-wise convex hull: a reniform cortex becomes the whole node with its hilum."""
    return np.stack([_hull(plane) if plane.any() else plane for plane in mask])


def _hull(plane: Mask) -> Mask:
    """Convex hull of a slice; what is too small for one stays as it is."""
    rows, columns = np.nonzero(plane)
    if rows.size < 4 or rows.min() == rows.max() or columns.min() == columns.max():
        return plane
    try:
        corners = ConvexHull(np.column_stack([rows, columns])).vertices
    except QhullError:  # all on one oblique line
        return plane
    hull: Mask = polygon2mask(plane.shape, np.column_stack([rows, columns])[corners])
    return hull | plane
