"""The chest with axillae that resemble those of patients (`Surroundings.AXILLA`).

It has bulky muscles with clefts of fat between them, digitations of the serratus anterior, strands, and the axillary tail of
the breast, over the same skeleton as `Surroundings.PLAIN`. The shapes follow public chest CT with raised arms (docs/phantom.md).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from alnnode.phantom.body_outline import AxillaBodyOutline
from alnnode.phantom.chest_anatomy import SCAPULA_HU, ChestAnatomy
from alnnode.phantom.rib_cage import AxillaRibCage
from alnnode.phantom.trunk_section import TrunkSection, pectoralis_major_floor, section_at

if TYPE_CHECKING:
    from alnnode.phantom.axilla_parameters import AxillaParameters
    from alnnode.phantom.patient_parameters import PatientParameters
    from alnnode.phantom.slice_grid import SliceGrid
    from alnnode.records import FloatArray


class AxillaAnatomy(ChestAnatomy):
    """Draws slices of one patient whose axillae have `AxillaParameters`.

    Args:
        patient: the patient that is drawn.
        grid: the pixels of a slice.
        table: as in `ChestAnatomy`.
        axilla: the patient's axillae.
    """

    def __init__(self, patient: PatientParameters, grid: SliceGrid, table: tuple[float, int], axilla: AxillaParameters) -> None:
        super().__init__(patient, grid, table)
        self._axilla = axilla
        self._outline = AxillaBodyOutline(patient, grid, axilla)
        self._rib_cage = AxillaRibCage(patient, grid)

    def _section(self, height: float) -> TrunkSection:
        section = section_at(height, self._patient)
        fold = float(np.interp(section.z, [-120, -80, -30, 10, 45, 70], [72, 94, 110, 124, 150, 168]))
        extra = self._axilla.side * float(np.interp(section.z, [-140, -90, 20, 60], [0.4, 1, 1, 0]))
        return replace(
            section,
            trunk_half_width=section.trunk_half_width + extra,
            anterior_fold=fold,
            pectoralis_major=section.pectoralis_major * (0.75 + 0.35 * self._axilla.bulk),
        )

    def _scapula_axes(self, section: TrunkSection) -> tuple[FloatArray, FloatArray]:
        """Return coordinates of the scapula, mm: along it, from its lateral border backwards; and across it, positive outwards."""
        down = not self._arms_up
        z = [-120, -60, 0, 50]
        u0 = section.half_width + float(np.interp(section.z, z, [14, 22, 32, 50])) - (6 if down else 0)
        v0 = float(np.interp(section.z, z, [44, 34, 18, 8])) + (16 if down else 0)
        du, dv = self._grid.u - np.float32(u0), self._grid.v - np.float32(v0)
        return -0.53 * du + 0.848 * dv, 0.848 * du + 0.53 * dv

    def _muscle_belly(
        self, along: FloatArray, across: FloatArray, centre: tuple[float, float], radii: tuple[float, float]
    ) -> FloatArray:
        """Return the depth under a muscle belly: a slightly uneven superellipse in the axes of the scapula, mm."""
        p, q = (along - np.float32(centre[0])) / np.float32(radii[0]), (across - np.float32(centre[1])) / np.float32(radii[1])
        r = np.power(np.abs(p) ** 2.5 + np.abs(q) ** 2.5, np.float32(0.4)) + np.float32(1e-3)
        r = r * (1 + 0.05 * np.sin(3 * np.arctan2(q, p) + np.float32(self._axilla.phase)))
        depth: FloatArray = (1 - r) * np.float32(min(radii))
        return depth

    def _draw_posterior_wall(self, hu: FloatArray, section: TrunkSection) -> None:
        """Draw latissimus dorsi, teres major, subscapularis, infraspinatus, teres minor and the scapula."""
        patient, grid, bulk, cleft = self._patient, self._grid, self._axilla.bulk, self._axilla.clefts
        value = patient.muscle_hu
        along, across = self._scapula_axes(section)
        outside_ribs = -self._rib_cage.surface_depth(section)
        under_skin = self._outline.depth(section) - (5 + 0.5 * patient.fat)
        room = np.minimum(outside_ribs - 3.5 - 5.0 * patient.muscle - cleft, under_skin)
        size = float(np.interp(section.z, [-130, -90, -40, 20, 50, 70], [0.6, 0.9, 1.0, 1.0, 0.85, 0.5]))
        blade = float(np.interp(section.z, [-90, -65, 60, 74], [0, 1, 1, 0]))  # length of the scapula, 1 = full
        if section.z < 62:
            thin = float(np.interp(section.z, [-120, -70, -20], [0.55, 0.8, 1.0]))
            back = float(np.interp(section.z, [-120, -50, 0], [22, 6, 0]))
            latissimus = self._muscle_belly(along, across, (-25 + back, -1.0), (25 * size * bulk, 18.5 * size * bulk * thin))
            grid.blend(hu, np.minimum(latissimus, room), value)
            if blade:
                teres_major = self._muscle_belly(along, across, (-3, 16 * size * bulk), (17 * size * bulk, 14 * size * bulk))
                teres_major = np.minimum(teres_major, -latissimus - cleft)
                grid.blend(hu, np.minimum(teres_major, under_skin), value - 2)
        if not blade:
            return
        reach = 76 * blade
        front = 33 * size * bulk * np.sqrt(np.clip((along + 9) / 22, 0, 1) * np.clip((reach + 8 - along) / 42, 0, 1))
        subscapularis = np.minimum(across + front, -across)
        grid.blend(hu, np.minimum(subscapularis * np.float32(0.9), np.minimum(room, along + 9)), value)
        rear = 22 * size * bulk * np.sqrt(np.clip((along + 4) / 16, 0, 1) * np.clip((reach + 4 - along) / 34, 0, 1))
        infraspinatus = np.minimum(across - 1, rear - across)
        gap = np.abs(across - 13 - 0.12 * along) - 0.4 * cleft  # the fat between infraspinatus and teres minor
        grid.blend(hu, np.minimum(np.minimum(infraspinatus, under_skin), np.maximum(gap, 14 - along)), value - 3)
        plate = 1.4 + 4.8 * np.exp(-(((along - 5) / 6.5) ** 2)) + 1.2 * np.exp(-(((along - reach + 6) / 6) ** 2))
        bone = np.minimum(plate - np.abs(across), np.minimum(along + 1, reach - along))
        grid.blend(hu, bone, SCAPULA_HU)
        grid.blend(hu, bone - 1.9, patient.marrow_hu)

    def _draw_pectoral_muscles(self, hu: FloatArray, section: TrunkSection) -> None:
        value, grid = self._patient.muscle_hu, self._grid
        u, v = grid.u, grid.v
        floor = pectoralis_major_floor(section, u)
        fold = section.anterior_fold
        if section.pectoralis_major > 1:
            end = 16.0  # the lateral border is round and as thick as the belly
            ends = np.clip((u - 8) / 14, 0, 1) * np.sqrt(np.clip(1 - (np.maximum(u - fold + end, 0) / end) ** 2, 0, 1))
            full = float(np.interp(section.z, [5, 45], [1.0, 0.35]))
            bulge = 0.8 + full * (0.5 + 0.3 * self._axilla.bulk) * np.exp(-(((u - fold + 24) / 26) ** 2))
            thick = section.pectoralis_major * ends * bulge
            grid.blend(hu, np.minimum(floor - 0.2 * thick - v, v - (floor - 1.1 * thick)) - 2 * (thick < 0.5), value)
        centre, half, thick_minor = section.pectoralis_minor
        if thick_minor > 1.5 and half > 2:
            profile = thick_minor * np.sqrt(np.clip(1 - ((u - centre) / half) ** 2, 0, 1)) - 2 * (np.abs(u - centre) > half)
            top = floor + 2.5 + 0.5 * self._axilla.clefts
            grid.blend(hu, np.minimum(v - top, top + profile - v), value)

    def _draw_septa(self, hu: FloatArray, z: float, depth: FloatArray) -> None:
        """Draw septa and strands where textures cross zero, densest in the axilla and in front of the posterior muscles."""
        axilla, phase, grid = self._axilla, self._axilla.phase, self._grid
        within = grid.coverage(depth - 3)
        height = z / self._patient.scale
        mask = np.clip(grid.texture_at(0.35 * z, 11 + phase) + 0.2, 0, 1.2)
        sheet = np.clip(1 - np.abs(grid.texture_at(z, 31 + phase)) * 6, 0, 1)
        hu += sheet * mask * within * (40 + 45 * axilla.strands)
        deep = np.exp(-(((grid.u - 124) / 34) ** 2) - (((grid.v + 12) / 48) ** 2)) * np.exp(-(((height + 6) / 75) ** 2))
        fine = np.clip(1 - np.abs(grid.texture_at(1.7 * z, 5 + phase)) * 3.6, 0, 1)
        fine *= np.clip(grid.texture_at(0.6 * z, 41 + phase) + 0.9, 0, 1.6)
        hu += deep * within * axilla.strands * (95 * fine + 22)
        if axilla.tail:
            self._draw_axillary_tail(hu, z, within)

    def _draw_axillary_tail(self, hu: FloatArray, z: float, within: FloatArray) -> None:
        """Draw the breast tissue that extends along the border of the pectoralis major into the axilla."""
        section = self._section(z / self._patient.scale)
        size = self._axilla.tail * float(np.sqrt(max(0.0, 1 - ((section.z + 55) / 48) ** 2)))
        if size < 0.1:
            return
        centre = (section.anterior_fold + 6, section.centre_v - section.half_depth + 6)
        inside = self._grid.ellipse(centre, (30, 15 * size + 3), 0.55)
        dense = np.clip(self._grid.texture_at(0.8 * z, 23) * 0.9 - 0.15 + 0.5 * self._patient.gland, 0, 1)
        hu += dense * np.clip(inside / 5, 0, 1) * within * 112
