"""The full-resolution volume in which vessels, nodes and devices are drawn, each within its own small box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from alnnode.records import FloatArray

Point = tuple[float, float, float]
_SUB_SLICES = 3  # samples along z within one slice, for partial volume


@dataclass(frozen=True, slots=True)
class Patch:
    """A box of voxels, and the patient coordinates (mm) of its sub-slices, rows and columns."""

    where: tuple[slice, slice, slice]
    x: FloatArray  # (1, 1, columns)
    y: FloatArray  # (1, rows, 1)
    z: FloatArray  # (sub-slices, 1, 1)

    def average(self, values: FloatArray) -> FloatArray:
        """Return the mean over the sub-slices of each slice, in the shape of the box."""
        slices = self.where[0].stop - self.where[0].start
        mean: FloatArray = values.reshape(slices, _SUB_SLICES, *values.shape[1:]).mean(axis=1)
        return mean


@dataclass(frozen=True, slots=True)
class Canvas:
    """HU as float32 (slices, rows, columns) on a regular grid; ``origin`` is the centre (x, y, z) of voxel (0, 0, 0)."""

    hu: FloatArray
    origin: Point
    spacing: float
    thickness: float

    def patch(self, centre: Point, reach: float | Point) -> Patch | None:
        """Return the box of voxels around a point, or None if the box lies outside the volume.

        Args:
            centre: patient coordinates, mm.
            reach: half size of the box, mm; one value for all axes, or one each for x, y and z.
        """
        reaches = reach if isinstance(reach, tuple) else (reach, reach, reach)
        steps = (self.thickness, self.spacing, self.spacing)
        low, high = [], []
        for c, r, o, step, count in zip(
            reversed(centre), reversed(reaches), reversed(self.origin), steps, self.hu.shape, strict=True
        ):
            first, last = int(np.floor((c - r - o) / step)), int(np.ceil((c + r - o) / step))
            if last < 0 or first >= count:
                return None
            low.append(max(first, 0))
            high.append(min(last + 1, count))
        where = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
        offsets = (np.arange(_SUB_SLICES) - (_SUB_SLICES - 1) / 2) / _SUB_SLICES
        k = (np.arange(low[0], high[0])[:, None] + offsets).ravel()
        return Patch(
            where,
            (self.origin[0] + np.arange(low[2], high[2]) * self.spacing).astype(np.float32)[None, None, :],
            (self.origin[1] + np.arange(low[1], high[1]) * self.spacing).astype(np.float32)[None, :, None],
            (self.origin[2] + k * self.thickness).astype(np.float32)[:, None, None],
        )

    def contains_sphere(self, centre: Point, radius: float) -> bool:
        """Return whether a sphere (mm) lies within the volume."""
        return all(
            o + radius <= c <= o + step * (count - 1) - radius
            for c, o, step, count in zip(
                reversed(centre),
                reversed(self.origin),
                (self.thickness, self.spacing, self.spacing),
                self.hu.shape,
                strict=True,
            )
        )

    def draw_tube(self, start: Point, end: Point, radii: tuple[float, float], value: float, soft: float) -> None:
        """Draw a piece of a vessel as a capsule.

        Args:
            start: patient coordinates, mm.
            end: likewise.
            radii: at ``start`` and at ``end``, mm; linear in between.
            value: attenuation, HU.
            soft: width of the soft edge, mm.
        """
        a, b = np.array(start), np.array(end)
        middle = (float((a[0] + b[0]) / 2), float((a[1] + b[1]) / 2), float((a[2] + b[2]) / 2))
        patch = self.patch(middle, float(np.linalg.norm(b - a)) / 2 + max(radii) + soft)
        if patch is None:
            return
        axis = (b - a).astype(np.float32)
        length = np.float32(max(float(axis @ axis), 1e-6))
        px, py, pz = (g - np.float32(s) for g, s in zip((patch.x, patch.y, patch.z), start, strict=True))
        t = np.clip((px * axis[0] + py * axis[1] + pz * axis[2]) / length, 0, 1)
        distance = np.sqrt((px - t * axis[0]) ** 2 + (py - t * axis[1]) ** 2 + (pz - t * axis[2]) ** 2)
        radius = radii[0] + t * np.float32(radii[1] - radii[0])
        # Blur lowers the contrast of a tube that is thinner than the point spread function.
        cover = np.clip(0.5 + (radius - distance) / soft, 0, 1) * np.minimum(1, 1.6 * radius / soft)
        box = self.hu[patch.where]
        raised = patch.average(cover.astype(np.float32)) * (value - box)
        box += np.maximum(raised, 0) if value > 0 else raised
