"""Morphology of single slices by round brushes: exact, and several times quicker than distance transforms or brushes moved pixel by pixel.

A pixel is near a mask when, in some row, the gap to the mask along the row is no wider than the brush there.
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
    Brush = tuple[int, ...]  # half width by row, from the middle row on; -1 where there is none

FAR = 255  # gaps of this width or more are not told apart


def round_brush(radius: float, spacing: Spacing) -> Brush:
    """Return the brush that holds the pixels not further than ``radius`` mm from its middle."""
    dy, dx = spacing
    widths = []
    for row in range(int(radius / dy) + 1):
        width = int(radius / dx) + 1
        while width >= 0 and hypot(row * dy, width * dx) > radius:
            width -= 1
        widths.append(width)
    return tuple(widths)


def below(radius: float, spacing: Spacing) -> Brush:
    """Return the brush that holds the pixels nearer than ``radius`` mm to its middle."""
    return round_brush(nextafter(radius, 0.0), spacing)


def disk_brush(radius: float) -> Brush:
    """Return the brush of at least one pixel that holds y * y + x * x <= r * r + 0.5, r being ``radius`` pixels, rounded."""
    r = max(1, round(radius))
    return tuple(int((r * r + 0.5 - row * row) ** 0.5) for row in range(r + 1))


def gaps(mask: Mask) -> Gaps:
    """Return how many columns off the nearest pixel of the mask in the same row lies, at most `FAR`."""
    turned = mask.T.copy()  # along the slow axis NumPy accumulates whole lines at once
    columns = len(turned)
    at = np.arange(columns, dtype=np.int16)[:, None]
    before, after = np.where(turned, at, np.int16(-FAR)), np.where(turned, at, np.int16(columns + FAR))
    np.maximum.accumulate(before, axis=0, out=before)
    np.minimum.accumulate(after[::-1], axis=0, out=after[::-1])
    return np.ascontiguousarray(np.minimum(np.minimum(at - before, after - at), np.int16(FAR)).astype(np.uint8).T)


def near(gap: Gaps, brush: Brush) -> Mask:
    """Return the pixels within a brush of the mask of which these are the gaps: its dilation."""
    found: Mask = gap <= brush[0]
    for row, width in enumerate(brush[1 : len(gap)], start=1):
        if width >= 0:
            touched = gap <= width
            found[row:] |= touched[:-row]
            found[:-row] |= touched[row:]
    return found


def opened(mask: Mask, brush: Brush) -> Mask:
    """Return what of the mask a brush reaches that stays within it; outside the image there is nothing of the mask."""
    pad = max(len(brush), brush[0])
    inner = ~near(gaps(np.pad(~mask, pad, constant_values=True)), brush)[pad:-pad, pad:-pad]
    return near(gaps(inner), brush)


def closed(mask: Mask, brush: Brush) -> Mask:
    """Return the mask and what a brush cannot reach that stays outside it; outside the image there is nothing of the mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return mask
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    pad = len(brush) + 1, max(brush) + 1
    wide = near(gaps(np.pad(mask[box], ((pad[0], pad[0]), (pad[1], pad[1])))), brush)
    filled = np.zeros_like(mask)
    filled[box] = ~near(gaps(~wide), brush)[pad[0] : -pad[0], pad[1] : -pad[1]]
    return filled


def without_holes(mask: Mask) -> Mask:
    """Return the mask and all that it encloses in the slice."""
    labels, count = ndimage.label(~mask)
    outside = np.zeros(count + 1, dtype=bool)
    for border in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        outside[border] = True
    outside[0] = False
    filled: Mask = ~outside[labels]
    return filled
