"""Windowing (PS3.3 C.11.2.1.2, linear function)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.records import FloatArray


def apply(hu: npt.ArrayLike, center: float, width: float) -> FloatArray:
    """Map HU to grey.

    Args:
        hu: attenuation in HU, any shape.
        center: window centre, HU.
        width: window width, HU; at least 1.

    Returns:
        float32 of the same shape, 0 (black) to 1 (white).

    Raises:
        ValueError: the width is below 1.
    """
    if not width >= 1:
        raise ValueError(f"a window width is at least 1 HU, not {width}")
    values = np.asarray(hu, dtype=np.float32) - np.float32(center - 0.5)
    if width == 1:  # a step: the ramp of the formula has no length
        return (values > 0).astype(np.float32)
    grey: FloatArray = np.clip(values / np.float32(width - 1) + np.float32(0.5), 0.0, 1.0, dtype=np.float32)
    return grey
