"""The chest of one patient, drawn slice by slice from the outside in; each structure covers what lies there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from alnnode.phantom.body_outline import BodyOutline
from alnnode.phantom.rib_cage import RibCage
from alnnode.phantom.settings import Arms
from alnnode.phantom.trunk_section import (
    TrunkSection,
    pectoralis_major_floor,
    scapula_front,
    scapula_front_at,
    section_at,
)

if TYPE_CHECKING:
    from alnnode.phantom.patient_parameters import PatientParameters
    from alnnode.phantom.slice_grid import SliceGrid
    from alnnode.records import FloatArray

SCAPULA_HU = 620.0
_AIR_HU, _SKIN_HU, _GLAND_HU, _CLAVICLE_HU = -1000.0, 25.0, 35, 720.0


class ChestAnatomy:
    """Draws slices of one patient.

    Args:
        patient: the patient that is drawn.
        grid: the pixels of a slice.
        table: patient y of the table top, mm, and +1 if it lies below the back or -1 if it lies below the breast.
    """

    def __init__(self, patient: PatientParameters, grid: SliceGrid, table: tuple[float, int]) -> None:
        self._patient, self._grid, self._table = patient, grid, table
        self._arms_up = patient.arms is Arms.UP
        self._outline = BodyOutline(patient, grid)
        self._rib_cage = RibCage(patient, grid)

    def draw_slice(self, z: float) -> FloatArray:
        """Return the HU of the slice at patient height ``z`` (mm) without noise, shape (rows, columns)."""
        patient, grid = self._patient, self._grid
        section = self._section(z / patient.scale)
        hu = np.full((grid.v.shape[0], grid.u.shape[1]), _AIR_HU, np.float32)
        texture = grid.texture_at(z)
        depth = self._outline.depth(section)
        grid.blend(hu, depth, patient.fat_hu + 7 * texture)
        self._draw_septa(hu, z, depth)
        self._draw_gland(hu, section, texture)
        self._draw_back_muscles(hu, section, depth)
        self._draw_posterior_wall(hu, section)
        self._draw_pectoral_muscles(hu, section)
        self._draw_fat_in_muscles(hu, z)
        self._rib_cage.draw(hu, section, texture)
        self._draw_arm(hu, section)
        self._draw_humeral_head(hu, section)
        self._draw_clavicle(hu, section)
        skin = grid.coverage(depth) * (1 - grid.coverage(depth - 1.8))
        hu += skin * (_SKIN_HU - hu)
        self._draw_table(hu)
        return hu

    def _section(self, height: float) -> TrunkSection:
        """Return the dimensions of the trunk at a canonical height, mm."""
        return section_at(height, self._patient)

    def _draw_gland(self, hu: FloatArray, section: TrunkSection, texture: FloatArray) -> None:
        """Draw the glandular tissue of the breast."""
        size = self._patient.breast * np.sqrt(max(0.0, 1 - ((section.z + 75) / 80) ** 2))
        if size < 6:
            return
        centre = (78, section.centre_v - section.half_depth - 30 - 0.4 * size)
        inside = self._grid.ellipse(centre, (40, 12 + 0.5 * size))
        dense = np.clip(0.5 + texture - 1.6 + 2.2 * self._patient.gland, 0, 1) * np.clip(inside / 6, 0, 1)
        hu += dense * (_GLAND_HU - hu)

    def _draw_septa(self, hu: FloatArray, z: float, depth: FloatArray) -> None:
        """Draw the fibrous septa of the fat as thin sheets where the texture crosses zero."""
        grid = self._grid
        sheet = np.clip(1 - np.abs(grid.texture_at(z, 31)) * 9, 0, 1) * np.clip(grid.texture_at(0.35 * z, 11), 0, 1)
        hu += sheet * 48 * grid.coverage(depth - 4)

    def _draw_fat_in_muscles(self, hu: FloatArray, z: float) -> None:
        """Draw the fat between the bundles of the muscles."""
        grid = self._grid
        muscle = np.clip(1.4 - np.abs(hu - self._patient.muscle_hu) / 14, 0, 1)
        hu += muscle * (5 * grid.texture_at(z, 17) - 45 * np.clip(grid.texture_at(0.5 * z, 47) - 1.55, 0, 0.9))

    def _draw_back_muscles(self, hu: FloatArray, section: TrunkSection, depth: FloatArray) -> None:
        grid = self._grid
        value = self._patient.muscle_hu - 4
        inner = 6 + 0.55 * self._patient.fat
        trapezius = np.minimum(
            np.minimum(depth - inner, inner + 9 * self._patient.muscle - depth), grid.v - np.float32(section.centre_v + 38)
        )
        grid.blend(hu, np.minimum(trapezius, 112 - grid.u), value)
        # Paraspinal muscles.
        grid.blend(hu, grid.ellipse((26, section.centre_v + section.half_depth + 14), (25, 17)), value)
        grid.blend(hu, grid.ellipse((62, section.centre_v + section.half_depth + 5), (26, 9), -0.35), value)
        if section.z > 35:  # levator scapulae, supraspinatus and trapezius at the top of the shoulder
            top = grid.ellipse((92, section.centre_v + 28), (66, 26), -0.15)
            grid.blend(hu, top - max(0.0, 60 - section.z), value)

    def _draw_posterior_wall(self, hu: FloatArray, section: TrunkSection) -> None:
        """Draw latissimus dorsi, teres major, subscapularis, infraspinatus and the scapula."""
        patient, grid = self._patient, self._grid
        u, v = grid.u, grid.v
        line = scapula_front(section, u)
        middle, half = (64 + section.posterior_fold) / 2, (section.posterior_fold - 64) / 2
        taper = np.sqrt(np.clip(1 - ((u - middle) / half) ** 2, 0, 1))
        value = patient.muscle_hu
        if section.z < 45:  # latissimus dorsi and teres major form the posterior fold
            u0 = section.posterior_fold + 2
            v0 = scapula_front_at(section, u0) + 2
            size = float(np.interp(section.z, [-140, -60, -10, 25, 45], [0.45, 0.9, 1.0, 0.8, 0.2]))
            grid.blend(hu, grid.ellipse((u0 - 2, v0), (29 * size, 14 * size * patient.muscle), -0.95), value)
        for front, back in ((section.subscapularis, 0.0), (0.0, section.infraspinatus + 5)):
            band = np.minimum(v - (line - front * taper), line + back * taper - v) * np.float32(0.78)
            grid.blend(hu, np.minimum(band, (u - 62) * np.float32(0.7)), value)
        if -88 < section.z < 72:
            lateral = section.posterior_fold
            plate = 1.7 + 5.0 * np.exp(-(((u - lateral + 12) / 9) ** 2)) + 1.5 * np.exp(-(((u - 72) / 6) ** 2))
            reach = float(np.interp(section.z, [-88, -60], [30, 0]))
            bone = np.minimum(
                plate - np.abs(v - line - 2) * np.float32(0.78), np.minimum(u - 70 - reach, lateral - 4 - reach - u)
            )
            grid.blend(hu, bone, SCAPULA_HU)
            grid.blend(hu, bone - 1.9, patient.marrow_hu)

    def _draw_pectoral_muscles(self, hu: FloatArray, section: TrunkSection) -> None:
        value, grid = self._patient.muscle_hu, self._grid
        u, v = grid.u, grid.v
        floor = pectoralis_major_floor(section, u)
        fold = section.anterior_fold
        if section.pectoralis_major > 1:
            ends = np.clip((u - 8) / 14, 0, 1) * np.sqrt(np.clip((fold - u) / 30, 0, 1))
            bulge = 1 + 0.35 * np.exp(-(((u - fold + 32) / 24) ** 2))
            grid.blend(hu, np.minimum(floor - v, v - (floor - section.pectoralis_major * ends * bulge)), value)
        centre, half, thick = section.pectoralis_minor
        if thick > 1.5 and half > 2:
            profile = thick * np.sqrt(np.clip(1 - ((u - centre) / half) ** 2, 0, 1))
            top = floor + 2.5
            grid.blend(hu, np.minimum(v - top, top + profile - v), value)

    def _draw_arm(self, hu: FloatArray, section: TrunkSection) -> None:
        """Draw the muscles of the arm and the shaft of the humerus."""
        grid = self._grid
        axis = self._outline.arm_axis(section)
        if axis is None:
            return
        u0, v0, stretch = axis
        muscle = self._outline.arm(section, 6 + 0.3 * self._patient.fat)
        gap = np.abs(np.hypot(grid.u - u0, grid.v - v0) - 19) - 0.6  # fat between the muscle groups
        grid.blend(hu, np.minimum(muscle, gap), self._patient.muscle_hu)
        if self._arms_up or section.z <= 78:
            bone = grid.ellipse((u0, v0), (11.5 * stretch, 11.5))
            grid.blend(hu, bone, 900)
            grid.blend(hu, bone - 3.5, 60)

    def _draw_humeral_head(self, hu: FloatArray, section: TrunkSection) -> None:
        grid = self._grid
        radius = np.sqrt(max(0.0, 23.0**2 - (section.z - 58) ** 2))
        if radius > 3:
            head = grid.ellipse((163, 6), (radius, radius))
            grid.blend(hu, head + 14 * np.clip(radius / 23, 0, 1), self._patient.muscle_hu)
            grid.blend(hu, head, 560)
            grid.blend(hu, head - 2, self._patient.marrow_hu + 60)

    def _draw_clavicle(self, hu: FloatArray, section: TrunkSection) -> None:
        """Draw the clavicle, which rises from the manubrium to the shoulder."""
        centre = np.interp(section.z, [52, 78], [18, 150])
        if not 46 < section.z < 84:
            return
        v0 = section.centre_v - section.half_depth + 2 + 0.12 * centre
        bone = self._grid.ellipse((float(centre), float(v0)), (26, 6.5), 0.15)
        self._grid.blend(hu, bone, _CLAVICLE_HU)
        self._grid.blend(hu, bone - 2.2, self._patient.marrow_hu)

    def _draw_table(self, hu: FloatArray) -> None:
        """Draw the foam and the shell of the scanner table, where ``hu`` is air."""
        grid = self._grid
        top, sign = self._table
        surface = top - sign * (grid.x / 230.0) ** 2 * 28
        inside = np.minimum(sign * (grid.y - surface), sign * (surface - grid.y) + 22)
        table = np.minimum(inside, 215 - np.abs(grid.x))
        empty = np.clip((-300 - hu) / 300, 0, 1)
        cover = grid.coverage(table) * empty
        hu += cover * (-930 - hu)
        shell = grid.coverage(table) * (1 - grid.coverage(table - 1.6)) * empty
        hu += shell * (-150 - hu)
