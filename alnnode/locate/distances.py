"""Distances to the border of a mask, in grid steps: exact, and faster than the general distance transform."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from alnnode.locate.grid import FloatVolume, Mask

    Squares = npt.NDArray[np.uint8]

FAR = 255  # largest uint8: a squared distance beyond every allowed radius
LARGEST_RADIUS = 15.0  # its square is less than `FAR`


def depth_inside(mask: Mask) -> FloatVolume:
    """Return the distance of each voxel of the mask to the nearest voxel outside it, in grid steps; 0 outside.

    The mask must not fill the volume. Squared distances are integers, so that the root is correctly rounded. Only the voxels of the mask are
    visited: soft tissue fills a small part of its box.
    """
    points = np.flatnonzero(mask)
    depth = np.zeros(mask.shape, dtype=np.float32)
    depth.reshape(-1)[points] = np.sqrt(squared_depths(mask, points).astype(np.float32))
    return depth


def squared_depths(mask: Mask, points: npt.NDArray[np.intp]) -> npt.NDArray[np.int32]:
    """Return the squared distance of each voxel of the mask to the nearest voxel outside it; ``points`` are its flat indices."""
    squares = np.zeros(mask.shape, dtype=np.int32)
    flat = squares.reshape(-1)
    flat[points] = sum(size * size for size in mask.shape)
    for axis in reversed(range(mask.ndim)):
        flat[points] = _lowered(squares, points, axis)
    least: npt.NDArray[np.int32] = flat[points]
    return least


def _lowered(squares: npt.NDArray[np.int32], points: npt.NDArray[np.intp], axis: int) -> npt.NDArray[np.int32]:
    """Return, for each point, the minimum along one axis of the squared distance plus the squared step to it; ``points`` are flat indices."""
    size, stride = squares.shape[axis], int(np.prod(squares.shape[axis + 1 :]))
    flat = squares.reshape(-1)
    least = flat[points]
    active = np.flatnonzero(least > 1)
    here = points[active]
    before = here // stride % size
    after = size - 1 - before
    for step in range(1, size):
        # Beyond the border of the volume the last voxel is taken: it is nearer than the step says, so that it cannot lower the minimum.
        back, ahead = flat[here - np.minimum(step, before) * stride], flat[here + np.minimum(step, after) * stride]
        least[active] = now = np.minimum(least[active], np.minimum(back, ahead) + np.int32(step * step))
        still = np.flatnonzero(now > (step + 1) ** 2)
        if not still.size:
            break
        active, here, before, after = active[still], here[still], before[still], after[still]
    return least


def mask_box(mask: Mask, steps: int) -> tuple[slice, ...]:
    """Return the box of a non-empty mask with ``steps`` grid points more on all sides, within the grid."""
    used = [np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis))) for axis in range(mask.ndim)]
    return tuple(
        slice(max(0, int(u[0]) - steps), min(size, int(u[-1]) + 1 + steps)) for u, size in zip(used, mask.shape, strict=True)
    )


def padded_box(mask: Mask, offset: Sequence[int], steps: int, shape: tuple[int, ...]) -> tuple[tuple[slice, ...], Mask]:
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


def grown(mask: Mask) -> Mask:
    """Return the dilation by one voxel across each face."""
    found = mask.copy()
    for low, high in halves(mask.ndim):
        found[low] |= mask[high]
        found[high] |= mask[low]
    return found


def shrunk(mask: Mask) -> Mask:
    """Return the erosion by one voxel across each face; positions beyond the border of the volume are outside the mask."""
    found = np.zeros_like(mask)
    inner = (slice(1, -1),) * mask.ndim
    found[inner] = mask[inner]
    for low, high in halves(mask.ndim):
        found[low] &= mask[high]
        found[high] &= mask[low]
    return found


def halves(dimensions: int) -> list[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Return, for each axis, the index of all voxels but the last, and of all but the first."""
    every = (slice(None),) * dimensions
    cut = [(every[:axis], every[axis + 1 :]) for axis in range(dimensions)]
    return [((*before, slice(None, -1), *after), (*before, slice(1, None), *after)) for before, after in cut]


def _propagate(squares: Squares, axis: int, reach: int) -> Squares:
    """Return, along one axis, the minimum over all voxels within ``reach`` of their squared distance plus the squared step to them."""
    least, further = squares.copy(), np.empty_like(squares)
    size = squares.shape[axis]
    for step in range(1, min(reach, size - 1) + 1):
        # Saturating addition: a distance of FAR stays FAR.
        np.minimum(squares, FAR - step * step, out=further)
        further += np.uint8(step * step)
        for to, source in ((slice(step, None), slice(None, -step)), (slice(None, -step), slice(step, None))):
            into = tuple(to if a == axis else slice(None) for a in range(squares.ndim))
            out = tuple(source if a == axis else slice(None) for a in range(squares.ndim))
            np.minimum(least[into], further[out], out=least[into])
    return least
