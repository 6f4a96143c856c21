"""The mask and the short axis of a node from its outline or its box on one slice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from skimage.draw import polygon2mask

from alnnode.locate.measure import short_axis_mm
from training.clinical.node_table import edges

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.records import Box, Volume
    from training.clinical.node_table import Contour, NodeRow


def bounds(contour: Contour) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom: the outer edges of the pixels that an outline touches."""
    columns, rows = zip(*contour, strict=True)
    (i0, i1), (j0, j1) = edges(min(columns), max(columns)), edges(min(rows), max(rows))
    return i0, j0, i1, j1


def mask_of(row: NodeRow, box: Box, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the mask (rows, columns) of the node on the slice: the inside of its outline, or the ellipse in its box."""
    if row.contour:
        # In image coordinates, the first pixel centre is at 0.5.
        return np.asarray(polygon2mask(shape, [(y - 0.5, x - 0.5) for x, y in row.contour]))
    j, i = np.mgrid[: shape[0], : shape[1]]
    middle, half = ((box.j0 + box.j1 - 1) / 2, (box.i0 + box.i1 - 1) / 2), ((box.j1 - box.j0) / 2, (box.i1 - box.i0) / 2)
    return np.asarray(((j - middle[0]) / half[0]) ** 2 + ((i - middle[1]) / half[1]) ** 2 <= 1)


def short_axis(row: NodeRow, volume: Volume, box: Box) -> float:
    """Return the short axis in mm: the measured value, that of the outline, or the shorter side of the box."""
    if row.short_axis_mm is not None:
        return row.short_axis_mm
    if row.contour:
        mask = mask_of(row, box, (volume.voxels.shape[1], volume.voxels.shape[2]))
        if mask.sum() > 3:
            return short_axis_mm(mask[None], volume.spacing)
    return min((box.j1 - box.j0) * volume.spacing[1], (box.i1 - box.i0) * volume.spacing[2])
