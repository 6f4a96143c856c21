"""Regions of a crop around a node: the node, its margin, the fat around it, and the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.records import CropGeometry

REGIONS: Final = ("node", "margin", "around", "elsewhere")
MARGIN_MM: Final = 2.0  # on either side of the outline
AROUND_MM: Final = 8.0  # beyond the margin: the perinodal fat


def mask_on_crop(mask: npt.NDArray[np.bool_], geometry: CropGeometry) -> npt.NDArray[np.bool_]:
    """Return the mask (S, S) on the crop from a mask of the slice (rows, columns)."""
    steps = np.arange(geometry.size)
    rows = np.rint(geometry.top + steps * geometry.step_row).astype(int)
    columns = np.rint(geometry.left + steps * geometry.step_column).astype(int)
    inside = ((rows >= 0) & (rows < mask.shape[0]))[:, None] & ((columns >= 0) & (columns < mask.shape[1]))[None, :]
    sampled = mask[np.clip(rows, 0, mask.shape[0] - 1)[:, None], np.clip(columns, 0, mask.shape[1] - 1)[None, :]]
    shown = np.asarray(sampled & inside)
    return shown.T if geometry.transposed else shown


def region_of_pixels(node: npt.NDArray[np.bool_], pixel_mm: float) -> npt.NDArray[np.intp]:
    """Return the index in `REGIONS` of each pixel of a crop; ``node`` is the mask of the node on the crop."""
    outside = ndimage.distance_transform_edt(~node) * pixel_mm
    inside = ndimage.distance_transform_edt(node) * pixel_mm
    return np.select(
        [inside > MARGIN_MM, np.maximum(inside, outside) <= MARGIN_MM, outside <= MARGIN_MM + AROUND_MM], [0, 1, 2], 3
    )
