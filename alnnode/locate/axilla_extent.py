"""Lower end of the axilla."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

# dm below the lung apex, in front (breast) and further back, where the axilla extends lower. Two readers drew its lower edge 0.86 to 1.34
# dm below the apex in nine patients.
LOWER_END_DM = (1.0, 1.3)
FRONT, BACK = 0.25, 0.45  # depths in the chest of these two values
SOFT_DM = 0.05
LEAST = 0.02  # positions with a lower likelihood are not searched


def axillary(below_apex_dm: npt.ArrayLike, depth: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return the likelihood, 0 to 1, that positions are axilla, not breast or chest wall below it; the arguments broadcast.

    Args:
        below_apex_dm: distance below the lung apex, dm.
        depth: from the front (0) to the back (1) of the chest.
    """
    end = np.interp(np.asarray(depth, dtype=np.float64), (FRONT, BACK), LOWER_END_DM)
    likely: npt.NDArray[Any] = 1 / (1 + np.exp((np.asarray(below_apex_dm) - end) / SOFT_DM))
    return likely
