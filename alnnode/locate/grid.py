"""Canonical views of a volume: rows run to the back and columns to the patient's left, whatever the orientation of the source.

The anatomy is searched in this frame, so that prone, decubitus and mirrored series need no code of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from alnnode.imaging.orientation import in_plane

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.records import HounsfieldArray, Volume

    FloatVolume = npt.NDArray[np.float32]
    Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Frame:
    """How the rows and columns of the source are mapped to canonical ones (y to the back, x to the left).

    Attributes:
        transposed: source rows run along x (decubitus).
        flip_y: canonical y is opposite to its source axis; ``flip_x`` likewise.
        spacing: (z, y, x) mm of the canonical grid.
    """

    transposed: bool
    flip_y: bool
    flip_x: bool
    spacing: tuple[float, float, float]

    @classmethod
    def of(cls, volume: Volume) -> Frame:
        """Return the frame of a volume, from its affine."""
        turned = in_plane(volume.affine)
        dz, dj, di = volume.spacing
        return cls(*turned, (dz, di, dj) if turned.transposed else (dz, dj, di))

    def canonical(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a view of a source-ordered array (k, j, i) in canonical order (z, y, x), without a copy."""
        view = array.transpose(0, 2, 1) if self.transposed else array
        return view[:, :: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]

    def source(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a view of a canonical array in source order: the inverse of `canonical`."""
        view = array[:, :: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]
        return view.transpose(0, 2, 1) if self.transposed else view

    def canonical_position(self, position: tuple[float, float, float], shape: tuple[int, ...]) -> tuple[float, float, float]:
        """Return the canonical (z, y, x) of a source voxel position (k, j, i); ``shape`` is that of the source volume."""
        k, j, i = position
        _, rows, columns = shape
        y, x = (i, j) if self.transposed else (j, i)
        deep, wide = (columns, rows) if self.transposed else (rows, columns)
        return k, deep - 1 - y if self.flip_y else y, wide - 1 - x if self.flip_x else x

    def source_positions(self, canonical: npt.NDArray[np.float64], shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Return the source voxel positions (k, j, i) of canonical ones (z, y, x), both of shape (n, 3): inverts `canonical_position`."""
        _, rows, columns = shape
        deep, wide = (columns, rows) if self.transposed else (rows, columns)
        z, y, x = canonical.T
        y = deep - 1 - y if self.flip_y else y
        x = wide - 1 - x if self.flip_x else x
        j, i = (x, y) if self.transposed else (y, x)
        return np.column_stack([z, j, i])

    def source_box(
        self, start: tuple[int, int, int], stop: tuple[int, int, int], shape: tuple[int, int, int]
    ) -> tuple[int, int, int]:
        """Return the offset (k, j, i) in the source of the canonical box ``start <= (z, y, x) < stop``.

        Args:
            start: first canonical voxel.
            stop: one past the last.
            shape: of the whole canonical volume.
        """
        y = shape[1] - stop[1] if self.flip_y else start[1]
        x = shape[2] - stop[2] if self.flip_x else start[2]
        return (start[0], x, y) if self.transposed else (start[0], y, x)


@dataclass(frozen=True, slots=True)
class Coarse:
    """A block-averaged copy of a volume, for the search of the anatomy.

    ``hu[z, y, x]`` covers the canonical voxels ``[z*step[0] …, y*step[1] …, x*step[2] …]``; ``spacing`` in mm.
    """

    hu: FloatVolume
    step: tuple[int, int, int]
    spacing: tuple[float, float, float]


def coarsen(hu: HounsfieldArray, spacing: tuple[float, float, float], target_mm: float = 2.0) -> Coarse:
    """Return a volume averaged in plane to about ``target_mm``, and of every n-th slice (about 1.25 x ``target_mm``).

    Values are clipped to -1000..1000 HU before averaging, so that padding and metal do not affect their neighbours.
    """
    nz = max(1, round(1.25 * target_mm / spacing[0]))
    ny = max(1, round(target_mm / spacing[1]))
    nx = max(1, round(target_mm / spacing[2]))
    planes = []
    rows, columns = hu.shape[1] // ny * ny, hu.shape[2] // nx * nx
    for z in range(0, hu.shape[0], nz):
        plane = np.clip(hu[z, :rows, :columns], -1000, 1000).astype(np.float32)
        # Sums of integers are exact in any order, and NumPy adds whole rows several times faster than it averages blocks.
        lines = sum((plane[n::ny] for n in range(1, ny)), plane[::ny])
        planes.append(sum((lines[:, n::nx] for n in range(1, nx)), lines[:, ::nx]) / np.float32(ny * nx))
    step = (nz, ny, nx)
    return Coarse(np.stack(planes), step, (spacing[0] * nz, spacing[1] * ny, spacing[2] * nx))


def resample(array: npt.NDArray[Any], spacing: tuple[float, float, float], target_mm: float, order: int = 1) -> FloatVolume:
    """Return an array resampled to an isotropic grid that shares the centre of its first voxel.

    Output voxel ``n`` of an axis lies at input coordinate ``n * target_mm / spacing``.
    """
    shape = [max(1, int((n - 1) * d / target_mm) + 1) for n, d in zip(array.shape, spacing, strict=True)]
    matrix = np.array([target_mm / d for d in spacing])
    result: FloatVolume = ndimage.affine_transform(
        array.astype(np.float32, copy=False), matrix, output_shape=tuple(shape), order=order, mode="nearest", prefilter=False
    )
    return result
