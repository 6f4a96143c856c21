"""Distances to the border of a mask, in grid steps: exact, and faster than the general distance transform."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.locate.grid import FloatVolume, Mask

    Squares = npt.NDArray[np.uint8]

FAR = 255  # largest uint8: a squared distance beyond every allowed radius
LARGEST_RADIUS = 15.0  # its square is less than `FAR`


def depth_inside(mask: Mask) -> FloatVolume:
    """Return the distance of each voxel of the mask to the nearest voxel outside it, in grid steps; 0 outside.

    The mask must not fill the volume. Squared distances are integers, so that the root is correctly rounded.
    """
    nearest = ndimage.distance_transform_edt(mask, return_distances=False, return_indices=True)
    squares = np.zeros(mask.shape, dtype=np.int32)
    for axis in range(mask.ndim):
        line = np.arange(mask.shape[axis], dtype=np.int32).reshape([-1 if a == axis else 1 for a in range(mask.ndim)])
        way = nearest[axis] - line
        squares += way * way
    depth: FloatVolume = np.sqrt(squares.astype(np.float32))
    return depth


def padded_box(mask: Mask, offset: tuple[int, int, int], steps: int, shape: tuple[int, ...]) -> tuple[tuple[slice, ...], Mask]:
    """Return the box of a mask with ``steps`` grid points more on all sides, within ``shape``, and the mask in that box.

    Args:
        mask: cut to its own box.
        offset: grid point of its first element.
        steps: grid points added.
        shape: of the grid.
    """
    box = tuple(
        slice(max(0, o - steps), min(size, o + n + steps)) for o, n, size in zip(offset, mask.shape, shape, strict=True)
    )
    placed = np.zeros(tuple(b.stop - b.start for b in box), dtype=bool)
    placed[tuple(slice(o - b.start, o - b.start + n) for o, n, b in zip(offset, mask.shape, box, strict=True))] = mask
    return box, placed


def dilate(mask: Mask, radius: float) -> Mask:
    """Return the dilation by a ball: the voxels at most ``radius`` grid steps from the mask.

    Raises:
        ValueError: the radius is larger than `LARGEST_RADIUS`.
    """
    if radius > LARGEST_RADIUS:
        raise ValueError(f"the radius is {radius} grid steps; at most {LARGEST_RADIUS} is allowed")
    squares = np.where(mask, np.uint8(0), np.uint8(FAR))
    for axis in range(mask.ndim):
        squares = _propagate(squares, axis, int(radius))
    near: Mask = squares <= int(radius * radius)
    return near


def erode(mask: Mask, radius: float) -> Mask:
    """Return the erosion by a ball: the voxels of the mask more than ``radius`` grid steps from all voxels outside the mask.

    Positions beyond the border of the volume do not count as outside.
    """
    return ~dilate(~mask, radius)


def _propagate(squares: Squares, axis: int, reach: int) -> Squares:
    """Return, along one axis, the minimum over all voxels within ``reach`` of their squared distance plus the squared step to them."""
    least = squares.copy()
    size = squares.shape[axis]
    for step in range(1, min(reach, size - 1) + 1):
        # Saturating addition: a distance of FAR stays FAR.
        further = np.minimum(squares, FAR - step * step) + np.uint8(step * step)
        for to, source in ((slice(step, None), slice(None, -step)), (slice(None, -step), slice(step, None))):
            into = tuple(to if a == axis else slice(None) for a in range(squares.ndim))
            out = tuple(source if a == axis else slice(None) for a in range(squares.ndim))
            np.minimum(least[into], further[out], out=least[into])
    return least
