"""The fatty hilum of a node: how much of the node it is, and how thick the cortex around it.

A thick cortex and a hilum that is pushed out are what readers look for in axillary nodes (Ecanow, RadioGraphics 2013); both need a hilum
that the resolution of the series shows. Where none can be told, nothing is said: a node without visible fat may still have some.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.locate.grid import Mask

SMOOTHING_MM = 0.6  # against noise; a cortex of 1 mm survives it
RIM_MM = 1.0  # under the surface partial volume looks like fat
FAT_HU = -100.0
LEAST_MM3 = 15.0  # smaller dips in attenuation are noise: no false hilum in 38 phantom nodes without one
CORTEX_QUANTILE = 0.25  # of the distances from the surface: thin where the hilum opens, thick at the poles


@dataclass(frozen=True, slots=True)
class Hilum:
    """Fat inside a node: part of the node's volume, 0 to 1, and thickness of the cortex beside it, mm."""

    fraction: float
    cortex_mm: float


def find_hilum(hu: npt.NDArray[np.int16], mask: Mask, spacing: tuple[float, float, float]) -> Hilum | None:
    """Find the largest piece of fat inside a node; None where there is none of at least `LEAST_MM3`.

    Args:
        hu: sub-volume (slices, rows, columns).
        mask: the node's voxels with its hilum, of the same shape.
        spacing: (slice, row, column) mm.
    """
    smooth = ndimage.gaussian_filter(hu.astype(np.float32).clip(-200, 300), [SMOOTHING_MM / d for d in spacing])
    cortex_hu = np.percentile(smooth[mask], 80)
    depth = ndimage.distance_transform_edt(np.pad(mask, 1), spacing)[1:-1, 1:-1, 1:-1]
    labels, count = ndimage.label(mask & (depth > RIM_MM) & (smooth < (cortex_hu + FAT_HU) / 2))
    if count == 0:
        return None
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    fat = labels == int(sizes.argmax())
    if sizes.max() * np.prod(spacing) < LEAST_MM3:
        return None
    surface = mask & ~ndimage.binary_erosion(np.pad(mask, 1))[1:-1, 1:-1, 1:-1]
    to_fat = ndimage.distance_transform_edt(~fat, spacing)[surface]
    return Hilum(round(float(fat.sum() / mask.sum()), 3), round(float(np.quantile(to_fat, CORTEX_QUANTILE)), 1))
