"""VOI LUT functions: windowing (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.records import FloatArray


class VoiLutFunction(StrEnum):
    """VOI LUT Function, as PS3.18 section 8.3.5.1.4 spells it."""

    LINEAR = "linear"
    LINEAR_EXACT = "linear-exact"
    SIGMOID = "sigmoid"


def apply_window(
    values: npt.ArrayLike, centre: float, width: float, function: VoiLutFunction = VoiLutFunction.LINEAR
) -> FloatArray:
    """Map rescaled values to grey levels.

    Args:
        values: of any shape; HU for CT.
        centre: Window Center, in units of the values.
        width: Window Width; at least 1 for LINEAR, above 0 otherwise.
        function: the VOI LUT Function.

    Returns:
        float32 of the same shape, 0 (black) to 1 (white).

    Raises:
        ValueError: the width is too small.
    """
    if function is VoiLutFunction.LINEAR and not width >= 1:
        raise ValueError(f"the window width is {width}; it must be at least 1")
    if not width > 0:
        raise ValueError(f"the window width is {width}; it must be above 0")
    array = np.asarray(values, dtype=np.float32)
    if function is VoiLutFunction.SIGMOID:
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (array - centre) / width, -60, 60))), np.float32)
    if function is VoiLutFunction.LINEAR_EXACT:
        return np.asarray(np.clip((array - (centre - width / 2)) / width, 0, 1), np.float32)
    from_centre = array - np.float32(centre - 0.5)
    if width == 1:  # The formula divides by width - 1; its limit is a step.
        return (from_centre > 0).astype(np.float32)
    grey: FloatArray = np.clip(from_centre / np.float32(width - 1) + np.float32(0.5), 0.0, 1.0, dtype=np.float32)
    return grey
