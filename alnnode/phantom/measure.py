"""Measurement of the diameters of a mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt


def diameters(mask: npt.NDArray[np.bool_], spacing: float) -> tuple[float, float]:
    """Return the longest diameter of a mask (rows, columns) and its extent at right angles to it, mm.

    Extents are measured from pixel edge to pixel edge.
    """
    rows, columns = np.nonzero(mask)
    angles = np.deg2rad(np.arange(0, 180, 4))
    along = columns[:, None] * np.cos(angles) + rows[:, None] * np.sin(angles)
    extents = (along.max(axis=0) - along.min(axis=0) + 1) * spacing
    longest = int(np.argmax(extents))
    return float(extents[longest]), float(extents[(longest + len(angles) // 2) % len(angles)])
