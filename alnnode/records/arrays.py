"""Array types for type checkers; at run time this package does not import numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    FloatArray = npt.NDArray[np.float32]
    HounsfieldArray = npt.NDArray[np.int16]
    AffineMatrix = npt.NDArray[np.float64]
