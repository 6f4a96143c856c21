"""Morphology of single slices with round structuring elements ("brushes"): exact, and several times faster than distance transforms.

A pixel belongs to the dilation when, in any row of the brush, the gap to the mask along that row is at most the half width of the brush.
"""

from __future__ import annotations

from math import hypot, nextafter
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.locate.grid import Mask

    Gaps = npt.NDArray[np.uint8]
    Spacing = tuple[float, float]  # (row, column) mm
    Brush = tuple[int, ...]  # half width of each row, from the middle row outwards; -1: none

FAR = 255  # larger gaps are limited to this width


def round_brush(radius: float, spacing: Spacing) -> Brush:
    """Return the brush of the pixels at most ``radius`` mm from its centre."""
    dy, dx = spacing
    widths = []
    for row in range(int(radius / dy) + 1):
        width = int(radius / dx) + 1
        while width >= 0 and hypot(row * dy, width * dx) > radius:
            width -= 1
        widths.append(width)
    return tuple(widths)


def below(radius: float, spacing: Spacing) -> Brush:
    """Return the brush of the pixels less than ``radius`` mm from its centre."""
    return round_brush(nextafter(radius, 0.0), spacing)


def disk_brush(radius: float) -> Brush:
    """Return the brush of the pixels with y * y + x * x <= r * r + 0.5, where r is ``radius`` in pixels, rounded, at least 1."""
    r = max(1, round(radius))
    return tuple(int((r * r + 0.5 - row * row) ** 0.5) for row in range(r + 1))


def gaps(mask: Mask) -> Gaps:
    """Return the distance in columns to the nearest pixel of the mask in the same row, at most `FAR`."""
    turned = mask.T.copy()  # NumPy accumulates faster along the first axis
    columns = len(turned)
    at = np.arange(columns, dtype=np.int16)[:, None]
    before, after = np.where(turned, at, np.int16(-FAR)), np.where(turned, at, np.int16(columns + FAR))
    np.maximum.accumulate(before, axis=0, out=before)
    np.minimum.accumulate(after[::-1], axis=0, out=after[::-1])
    return np.ascontiguousarray(np.minimum(np.minimum(at - before, after - at), np.int16(FAR)).astype(np.uint8).T)


def near(gap: Gaps, brush: Brush) -> Mask:
    """Return the dilation of the mask whose gaps are given."""
    found: Mask = gap <= brush[0]
    for row, width in enumerate(brush[1 : len(gap)], start=1):
        if width >= 0:
            touched = gap <= width
            found[row:] |= touched[:-row]
            found[:-row] |= touched[row:]
    return found


def opened(mask: Mask, brush: Brush) -> Mask:
    """Return the opening of the mask; pixels outside the image do not belong to the mask."""
    box = _box(mask)
    if box is None:
        return mask
    pad = max(len(brush), brush[0])
    inner = ~near(gaps(np.pad(~mask[box], pad, constant_values=True)), brush)[pad:-pad, pad:-pad]
    found = np.zeros_like(mask)
    found[box] = near(gaps(inner), brush)
    return found


def closed(mask: Mask, brush: Brush) -> Mask:
    """Return the closing of the mask; pixels outside the image do not belong to the mask."""
    box = _box(mask)
    if box is None:
        return mask
    pad = len(brush) + 1, max(brush) + 1
    wide = near(gaps(np.pad(mask[box], ((pad[0], pad[0]), (pad[1], pad[1])))), brush)
    filled = np.zeros_like(mask)
    filled[box] = ~near(gaps(~wide), brush)[pad[0] : -pad[0], pad[1] : -pad[1]]
    return filled


def _box(mask: Mask) -> tuple[slice, slice] | None:
    """Return the rows and columns that the mask occupies; None for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return None if rows.size == 0 else (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))


def without_holes(mask: Mask) -> Mask:
    """Return the mask with its holes filled."""
    labels, count = ndimage.label(~mask)
    outside = np.zeros(count + 1, dtype=bool)
    for border in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        outside[border] = True
    outside[0] = False
    filled: Mask = ~outside[labels]
    return filled
