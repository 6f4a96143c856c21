"""Rules for drawing phantom nodes into a real CT, shared by `training.data.ct_implants` and `training.detection.axilla_implants`.

A node is drawn over the *smoothed* CT and the difference is added to the CT itself, so that the scanner's own noise stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.records import FloatArray

SMOOTH_MM = 0.8
FAT_HU = (-160.0, -45.0)


def smooth_ct(hu: npt.NDArray[np.float32], spacing: tuple[float, float, float]) -> FloatArray:
    """Return the CT (z, y, x) over which nodes are drawn; ``spacing`` (z, y, x) in mm."""
    return np.asarray(ndimage.gaussian_filter(hu, [SMOOTH_MM / mm for mm in spacing], truncate=2.5))


def fat_mask(smooth: FloatArray) -> npt.NDArray[np.bool_]:
    """Return where the smoothed CT shows fat."""
    return np.asarray((smooth > FAT_HU[0]) & (smooth < FAT_HU[1]))


def node_mask(cover: FloatArray) -> npt.NDArray[np.bool_]:
    """Return the voxels that belong to a drawn node, from the share of each voxel that the node covers (0 to 1)."""
    # A node thinner than a slice covers no voxel by half.
    return np.asarray(cover > min(0.5, 0.6 * float(cover.max())))
