"""Orientation of the rows and columns of a slice to the patient, for crops, the search and the captures."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.records import Volume

    Step = tuple[float, float]  # (row, column) of a slice, voxels

# Two directions whose components along the patient's left differ by less than this count as equal; then the slice is not transposed.
ALIKE = 1e-6
LETTERS = ("RL", "AP", "FH")  # of the negative and the positive direction of x, y and z (PS3.3 C.7.6.1.1.1)


class InPlane(NamedTuple):
    """How a slice is turned so that the patient's front is up and the patient's right on the left (PS3.3 C.7.6.2.1.1: +x left, +y back).

    Attributes:
        transposed: source rows run along x, and columns along y: the patient lies on the side.
        flip_y: the source axis along y runs from the back to the front.
        flip_x: the source axis along x runs from the left to the right.
    """

    transposed: bool
    flip_y: bool
    flip_x: bool


def in_plane(affine: npt.NDArray[np.float64]) -> InPlane:
    """Return the orientation of the slices of a volume from its affine.

    Only the larger component of each direction decides about its sign: the sign of a component that is 0 but for rounding would turn the
    slice by 180 degrees.
    """
    rows, columns = affine[:3, 1], affine[:3, 2]
    leans = abs(rows[0]) / _length(rows), abs(columns[0]) / _length(columns)
    transposed = bool(leans[0] > leans[1] + ALIKE)
    along_x, along_y = (rows, columns) if transposed else (columns, rows)
    return InPlane(transposed, bool(along_y[1] < 0), bool(along_x[0] < 0))


def upright_steps(volume: Volume, pitch_mm: float) -> tuple[Step, Step]:
    """Return the steps of ``pitch_mm`` in a slice to the patient's back and to the patient's left, as (row, column) in voxels."""
    turned = in_plane(volume.affine)
    down, right = -pitch_mm if turned.flip_y else pitch_mm, -pitch_mm if turned.flip_x else pitch_mm
    if turned.transposed:
        return (0.0, down / volume.spacing[2]), (right / volume.spacing[1], 0.0)
    return (down / volume.spacing[1], 0.0), (0.0, right / volume.spacing[2])


def direction_letter(direction: npt.NDArray[np.float64]) -> str:
    """Return the letter of Patient Orientation (PS3.3 C.7.6.1.1.1) for the main component of a direction in patient coordinates."""
    axis = int(np.argmax(np.abs(direction)))
    return LETTERS[axis][int(direction[axis] > 0)]


def _length(direction: npt.NDArray[np.float64]) -> float:
    return float((direction @ direction) ** 0.5)
