"""The attenuation of the blood in heart and great vessels, which shows whether and when contrast medium was given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.locate.chest import Chest
    from alnnode.locate.grid import Coarse

_MIDDLE_MM: Final = 45.0
# Shares of the depth of the chest. They exclude sternum and vertebrae, whose marrow is as bright as blood with contrast.
_DEEP: Final = (0.12, 0.60)
_SOFT_HU: Final = (0.0, 600.0)
_LEAST: Final = 500  # voxels of the coarse grid


def mediastinal_tissue(coarse: Coarse, chest: Chest) -> npt.NDArray[np.floating[Any]]:
    """Return the HU of the soft tissue between the lungs, most of which is blood; empty when the images show too little of it.

    Args:
        coarse: the canonical volume on the coarse grid.
        chest: its chest.
    """
    rows = np.flatnonzero(chest.thorax.any(axis=(0, 2)))
    if not rows.size:
        return np.empty(0, np.float32)
    across = np.abs(np.arange(coarse.hu.shape[2]) - chest.midline) * coarse.spacing[2] < _MIDDLE_MM
    deep = (np.arange(coarse.hu.shape[1]) - rows[0]) / max(1, int(rows[-1] - rows[0]))
    between = ndimage.binary_erosion(chest.thorax, np.ones((1, 5, 5)))
    between &= across[None, None, :] & ((deep > _DEEP[0]) & (deep < _DEEP[1]))[None, :, None]
    values = coarse.hu[between]
    tissue = values[(values > _SOFT_HU[0]) & (values < _SOFT_HU[1])]
    enough: npt.NDArray[np.floating[Any]] = tissue if tissue.size >= _LEAST else tissue[:0]
    return enough


def blood_pool_hu(coarse: Coarse, chest: Chest) -> float | None:
    """Return the median attenuation (HU) of the blood between the lungs; None when the images show too little of it."""
    tissue = mediastinal_tissue(coarse, chest)
    return float(np.median(tissue)) if tissue.size else None
