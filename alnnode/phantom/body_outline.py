"""The outline of the body: trunk, breasts, arms and armpit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from alnnode.phantom.settings import Arms

if TYPE_CHECKING:
    from alnnode.phantom.axilla_parameters import AxillaParameters
    from alnnode.phantom.patient_parameters import PatientParameters
    from alnnode.phantom.slice_grid import SliceGrid
    from alnnode.phantom.trunk_section import TrunkSection
    from alnnode.records import FloatArray

_OUTSIDE = -999  # the depth of a structure that a slice does not contain, mm


class BodyOutline:
    """Depth maps of the body of one patient.

    Args:
        patient: the patient that is drawn.
        grid: the pixels of a slice.
    """

    def __init__(self, patient: PatientParameters, grid: SliceGrid) -> None:
        self._patient, self._grid = patient, grid
        self._arms_up = patient.arms is Arms.UP

    def depth(self, section: TrunkSection) -> FloatArray:
        """Return the depth under the skin."""
        grid = self._grid
        dv = grid.v - np.float32(section.centre_v)
        ratio_v = np.where(dv < 0, dv / np.float32(-section.trunk_front), dv / np.float32(section.trunk_back))
        p, q = grid.u / np.float32(section.trunk_half_width), ratio_v
        r = np.power(p**2.4 + q**2.4, np.float32(1 / 2.4)) + np.float32(1e-3)
        depth: FloatArray = np.hypot(grid.u, dv) * (1 / r - 1)
        if section.z < 35:
            depth = np.maximum(depth, self._breast(section))
        depth = np.maximum(depth, self.arm(section, 0))
        armpit = self._armpit(section)
        if armpit > 2:
            depth = np.minimum(depth, -grid.ellipse((section.trunk_half_width + 16, -4), (6 + armpit, 26)))
        return depth

    def arm_axis(self, section: TrunkSection) -> tuple[float, float, float] | None:
        """Return u and v of the centre of the arm and its stretch along u due to its slope; None where the slice has no arm."""
        z = section.z
        if self._arms_up:
            return None if z < 40 else (172 + 0.55 * (z - 40), 4 - 0.15 * (z - 40), 1.25)
        return None if z > 95 else (176 - 0.16 * (z - 50), 14 - 0.04 * (z - 50), 1.0)

    def arm(self, section: TrunkSection, inset: float) -> FloatArray:
        """Return the depth under a surface ``inset`` mm below the skin of the arm."""
        axis = self.arm_axis(section)
        if axis is None:
            return np.full((1, 1), _OUTSIDE, np.float32)
        u0, v0, stretch = axis
        cap = 1.0 if self._arms_up else float(np.sqrt(max(0.0, 1 - max(0.0, (section.z - 45) / 50) ** 2)))
        radius = (40 + 0.35 * self._patient.fat) * cap - inset
        if radius <= 2:
            return np.full((1, 1), _OUTSIDE, np.float32)
        return self._grid.ellipse((u0, v0), (radius * stretch, radius))

    def _breast(self, section: TrunkSection) -> FloatArray:
        size = self._patient.breast * np.sqrt(max(0.0, 1 - ((section.z + 75) / 85) ** 2))
        if size < 4:
            return np.full_like(self._grid.u * self._grid.v, _OUTSIDE)
        return self._grid.ellipse((72, section.centre_v - section.half_depth - 6), (66, 18 + self._patient.fat + size))

    def _armpit(self, section: TrunkSection) -> float:
        """Return the depth of the armpit, mm."""
        if not self._arms_up or not -95 < section.z < 30:
            return 0.0
        return float(26 * np.sqrt(max(0.0, 1 - ((section.z + 32) / 62) ** 2)))


class AxillaBodyOutline(BodyOutline):
    """Depth maps of a body with `AxillaParameters`.

    Args:
        patient: the patient that is drawn.
        grid: the pixels of a slice.
        axilla: the patient's axillae.
    """

    def __init__(self, patient: PatientParameters, grid: SliceGrid, axilla: AxillaParameters) -> None:
        super().__init__(patient, grid)
        self._axilla = axilla

    def depth(self, section: TrunkSection) -> FloatArray:
        """Return the depth under the skin."""
        depth = super().depth(section)
        radius = 45 + 0.3 * self._patient.fat  # of the round shoulder over the head of the humerus
        half = float(np.sqrt(max(0.0, radius**2 - (section.z - 58) ** 2)))
        return np.maximum(depth, self._grid.ellipse((158, 6), (half, half))) if self._arms_up and half > 3 else depth

    def _armpit(self, section: TrunkSection) -> float:
        return self._axilla.pit * float(np.sqrt(max(0.0, 1 - (section.z / 32) ** 2))) if self._arms_up else 0.0
