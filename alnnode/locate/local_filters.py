"""Filters that are computed only near a mask: a search region fills a small part of its box."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from alnnode.locate.distances import halves

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.locate.grid import FloatVolume, Mask

TRUNCATE = 2.5  # standard deviations
SLAB = 16  # slices that share one box


def gaussian_near(values: FloatVolume, sigma: float, mask: Mask, elsewhere: float) -> FloatVolume:
    """Return the volume filtered by a Gaussian, at the voxels of a mask and within the reach of the filter around them.

    Args:
        values: (z, y, x).
        sigma: grid steps.
        mask: on the same grid.
        elsewhere: value of the other voxels.
    """
    reach = int(TRUNCATE * sigma + 0.5)
    filtered = np.full(values.shape, elsewhere, dtype=np.float32)
    for start in range(0, len(values), SLAB):
        stop = min(start + SLAB, len(values))
        seen = slice(max(0, start - reach), stop + reach)
        box = _plane_box(mask[seen], reach)
        if box is None:
            continue
        # The slices and pixels around the slab and the box keep the border of the part, where SciPy reflects, away from the result.
        wide = tuple(slice(max(0, s.start - reach), s.stop + reach) for s in box)
        part = ndimage.gaussian_filter1d(values[(seen, *wide)], sigma, axis=0, truncate=TRUNCATE)
        part = part[start - seen.start : stop - seen.start]
        for axis in (1, 2):
            part = ndimage.gaussian_filter1d(part, sigma, axis=axis, truncate=TRUNCATE)
        inner = tuple(slice(s.start - w.start, s.stop - w.start) for s, w in zip(box, wide, strict=True))
        filtered[(slice(start, stop), *box)] = part[(slice(None), *inner)]
    return filtered


def _plane_box(mask: Mask, margin: int) -> tuple[slice, slice] | None:
    """Return the rows and columns that a mask occupies in any slice, with a margin, within the slice; None for an empty mask."""
    rows, columns = (np.flatnonzero(mask.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    if not rows.size:
        return None
    _, height, width = mask.shape
    return (
        slice(max(0, int(rows[0]) - margin), min(height, int(rows[-1]) + 1 + margin)),
        slice(max(0, int(columns[0]) - margin), min(width, int(columns[-1]) + 1 + margin)),
    )


def peaks(values: FloatVolume, least: float, steps: int) -> npt.NDArray[np.intp]:
    """Return the voxels (n, 3) above ``least`` that no voxel within ``steps`` of them along each axis exceeds, in descending order.

    Of equal ones nearer than ``steps`` the first counts.
    """
    above = values > least
    for low, high in halves(values.ndim):
        above[low] &= values[low] >= values[high]
        above[high] &= values[high] >= values[low]
    highest = [
        place
        for place in np.argwhere(above)
        if values[tuple(place)] == values[tuple(slice(max(0, c - steps), c + steps + 1) for c in place)].max()
    ]
    highest.sort(key=lambda place: -float(values[tuple(place)]))
    kept = np.empty((len(highest), 3), dtype=np.intp)
    count = 0
    for place in highest:
        if not (np.abs(kept[:count] - place).max(axis=1, initial=0) < steps).any():
            kept[count] = place
            count += 1
    return kept[:count]
