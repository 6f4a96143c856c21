"""Windowing (PS3.3 C.11.2.1.2, linear function)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.records import FloatArray


def apply(hu: npt.ArrayLike, center: float, width: float) -> FloatArray:
    """Return HU mapped to 0..1, float32; ``width`` > 1."""
    scaled = (np.asarray(hu, dtype=np.float32) - (center - 0.5)) / (width - 1) + 0.5
    return np.clip(scaled, 0.0, 1.0, dtype=np.float32)
