"""Distances of one grid step to a mask's border: exact, and quicker than the general transform where less is asked of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.locate.grid import FloatVolume, Mask

    Squares = npt.NDArray[np.uint8]

FAR = 255  # of uint8: a squared distance beyond every radius asked for
LARGEST_RADIUS = 15.0  # its square is less than `FAR`


def depth_of(mask: Mask) -> FloatVolume:
    """Distance of every voxel of the mask to the nearest one outside it, grid steps; 0 outside.

    The mask must leave something out. Squares are added as integers, so that the root is the correctly rounded one.
    """
    nearest = ndimage.distance_transform_edt(mask, return_distances=False, return_indices=True)
    squares = np.zeros(mask.shape, dtype=np.int32)
    for axis in range(mask.ndim):
        line = np.arange(mask.shape[axis], dtype=np.int32).reshape([-1 if a == axis else 1 for a in range(mask.ndim)])
        way = nearest[axis] - line
        squares += way * way
    depth: FloatVolume = np.sqrt(squares.astype(np.float32))
    return depth


def around(mask: Mask, offset: tuple[int, int, int], steps: int, shape: tuple[int, ...]) -> tuple[tuple[slice, ...], Mask]:
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


def within(mask: Mask, radius: float) -> Mask:
    """Voxels not further than ``radius`` grid steps from the mask: a dilation by a ball.

    Raises:
        ValueError: the radius is larger than `LARGEST_RADIUS`.
    """
    if radius > LARGEST_RADIUS:
        raise ValueError(f"a radius of at most {LARGEST_RADIUS} grid steps, not {radius}")
    squares = np.where(mask, np.uint8(0), np.uint8(FAR))
    for axis in range(mask.ndim):
        squares = _passed(squares, axis, int(radius))
    near: Mask = squares <= int(radius * radius)
    return near


def thicker(mask: Mask, radius: float) -> Mask:
    """Voxels of the mask further than ``radius`` from all outside it: an erosion by a ball. The volume's own border is not outside."""
    return ~within(~mask, radius)


def _passed(squares: Squares, axis: int, reach: int) -> Squares:
    """The least, along one axis, of what is there and the square of the way to it."""
    least = squares.copy()
    size = squares.shape[axis]
    for step in range(1, min(reach, size - 1) + 1):
        # Saturating: what is far stays far.
        further = np.minimum(squares, FAR - step * step) + np.uint8(step * step)
        for to, source in ((slice(step, None), slice(None, -step)), (slice(None, -step), slice(step, None))):
            into = tuple(to if a == axis else slice(None) for a in range(squares.ndim))
            out = tuple(source if a == axis else slice(None) for a in range(squares.ndim))
            np.minimum(least[into], further[out], out=least[into])
    return least
