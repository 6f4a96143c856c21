"""How the rows and columns of a slice lie to the patient: the one place that tells it, for crops, the search and the captures."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# Of two directions that lean equally to the left, rounding must not choose: halfway, the slice counts as upright.
ALIKE = 1e-6


class InPlane(NamedTuple):
    """How a slice is turned into an upright one: the patient's front up, the patient's right on the left (PS3.3 C.7.6.2.1.1: +x left, +y back).

    Attributes:
        transposed: the patient lies on the side: source rows run along x, and columns along y.
        flip_y: from the front to the back runs against the source axis that carries it.
        flip_x: from the right to the left likewise.
    """

    transposed: bool
    flip_y: bool
    flip_x: bool


def in_plane(affine: npt.NDArray[np.float64]) -> InPlane:
    """Read it off the affine of a volume.

    Only the larger component of each direction is asked for its sign: that of one that is 0 but for rounding would turn the slice by 180 degrees.
    """
    rows, columns = affine[:3, 1], affine[:3, 2]
    leans = abs(rows[0]) / _length(rows), abs(columns[0]) / _length(columns)
    transposed = bool(leans[0] > leans[1] + ALIKE)
    along_x, along_y = (rows, columns) if transposed else (columns, rows)
    return InPlane(transposed, bool(along_y[1] < 0), bool(along_x[0] < 0))


def _length(direction: npt.NDArray[np.float64]) -> float:
    return float((direction @ direction) ** 0.5)
