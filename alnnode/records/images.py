"""A CT series as a voxel grid, and boxes in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom import Dataset

    from alnnode.records.arrays import AffineMatrix, HounsfieldArray


@dataclass(frozen=True, slots=True)
class SliceRef:
    """The source image of one slice of a volume."""

    sop_class_uid: str
    sop_instance_uid: str
    frame_number: int | None  # 1-based within a multi-frame instance, None for single-frame ones
    position: tuple[float, float, float]  # Image Position (Patient), mm LPS
    rescale: tuple[float, float] = (1.0, 0.0)  # slope and intercept from stored values to HU
    image_number: int | None = None  # Instance Number, or the frame number, as viewers show it; never used for sorting
    frame_of_reference: str = ""  # Frame of Reference UID; empty: that of the header


@dataclass(frozen=True, slots=True)
class Volume:
    """A CT series as one regular grid in the pixel raster of the source.

    Attributes:
        voxels: HU, shape (slices, rows, columns), C-contiguous int16; slices ordered from the feet to the head.
        affine: 4x4, maps (k, j, i, 1) to patient coordinates (mm, LPS). It contains the shear of a gantry tilt.
        slices: one reference per slice, in the order of ``voxels``.
        header: attributes of the first instance, without pixel data; result objects copy its patient and study attributes.
        spacing: (slice, row, column) distances in mm; the slice distance is along the normal.
        slice_thickness: nominal, mm; None when the source has none.
        notes: remarks on the geometry for the report ("gantry tilt 12 degrees").
    """

    voxels: HounsfieldArray
    affine: AffineMatrix
    slices: tuple[SliceRef, ...]
    header: Dataset
    spacing: tuple[float, float, float]
    slice_thickness: float | None = None
    notes: tuple[str, ...] = ()

    def patient_point(self, k: float, j: float, i: float) -> tuple[float, float, float]:
        """Return the patient coordinates (mm, LPS) of a voxel position."""
        a = self.affine
        x, y, z = (float(a[r, 0] * k + a[r, 1] * j + a[r, 2] * i + a[r, 3]) for r in range(3))
        return x, y, z


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open voxel box: k0 <= k < k1, and likewise for j and i."""

    k0: int
    j0: int
    i0: int
    k1: int
    j1: int
    i1: int

    @property
    def low(self) -> tuple[int, int, int]:
        """First voxel (k, j, i)."""
        return self.k0, self.j0, self.i0

    @property
    def high(self) -> tuple[int, int, int]:
        """One past the last voxel (k, j, i)."""
        return self.k1, self.j1, self.i1

    @property
    def centre(self) -> tuple[float, float, float]:
        """Centre in voxel coordinates (k, j, i)."""
        return (self.k0 + self.k1 - 1) / 2, (self.j0 + self.j1 - 1) / 2, (self.i0 + self.i1 - 1) / 2
