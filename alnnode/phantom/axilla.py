"""The chest as it is in patients: bulky muscles with clefts of fat between them, serratus digitations, strands, the tail of the breast.

`Surroundings.AXILLA` draws it over the same skeleton as `Surroundings.PLAIN`; the shapes follow what public CT of the chest
shows with arms raised (docs/phantom.md).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from alnnode.phantom.anatomy import BONE_HU, Chest
from alnnode.phantom.frame import Section, level, pectoral_floor
from alnnode.phantom.settings import Arms

if TYPE_CHECKING:
    from alnnode.phantom.anatomy import DoubleArray
    from alnnode.phantom.axilla_parameters import AxillaParameters
    from alnnode.phantom.patient_parameters import PatientParameters
    from alnnode.records import FloatArray


class AxillaChest(Chest):
    """Paints slices of one patient (`Chest`), the axillae as a `AxillaParameters` says."""

    def __init__(
        self,
        patient: PatientParameters,
        grid: FloatArray,
        texture: FloatArray,
        table_y: tuple[float, int],
        axilla: AxillaParameters,
    ) -> None:
        super().__init__(patient, grid, grid, texture, table_y)
        self._axilla = axilla

    def _section(self, height: float) -> Section:
        lv = level(height, self._patient)
        fold = float(np.interp(lv.z, [-120, -80, -30, 10, 45, 70], [72, 94, 110, 124, 150, 168]))
        wide = self._axilla.side * float(np.interp(lv.z, [-140, -90, 20, 60], [0.4, 1, 1, 0]))
        return replace(lv, outer=lv.outer + wide, fold=fold, major=lv.major * (0.75 + 0.35 * self._axilla.bulk))

    def _armpit(self, lv: Section) -> float:
        return self._axilla.pit * float(np.sqrt(max(0.0, 1 - (lv.z / 32) ** 2))) if self._up else 0.0

    def _body(self, lv: Section) -> FloatArray:
        depth = super()._body(lv)
        round_head = 45 + 0.3 * self._patient.fat  # the shoulder is round over the head of the humerus
        half = float(np.sqrt(max(0.0, round_head**2 - (lv.z - 58) ** 2)))
        return np.maximum(depth, self._ellipse(158, 6, half, half)) if self._up and half > 3 else depth

    # The shoulder blade's own axes: along it from its lateral border backwards, and across it, positive to the outside.

    def _blade(self, lv: Section) -> tuple[FloatArray, FloatArray]:
        down = self._patient.arms is Arms.DOWN
        z = [-120, -60, 0, 50]
        u0 = lv.a + float(np.interp(lv.z, z, [14, 22, 32, 50])) - (6 if down else 0)
        v0 = float(np.interp(lv.z, z, [44, 34, 18, 8])) + (16 if down else 0)
        du, dv = self._u - np.float32(u0), self._v - np.float32(v0)
        return -0.53 * du + 0.848 * dv, 0.848 * du + 0.53 * dv

    def _belly(
        self, along: FloatArray, across: FloatArray, centre: tuple[float, float], radii: tuple[float, float]
    ) -> FloatArray:
        """Return the depth under a rounded belly: fuller than an ellipse, and a little uneven."""
        p, q = (along - np.float32(centre[0])) / np.float32(radii[0]), (across - np.float32(centre[1])) / np.float32(radii[1])
        r = np.power(np.abs(p) ** 2.5 + np.abs(q) ** 2.5, np.float32(0.4)) + np.float32(1e-3)
        r = r * (1 + 0.05 * np.sin(3 * np.arctan2(q, p) + np.float32(self._axilla.phase)))
        depth: FloatArray = (1 - r) * np.float32(min(radii))
        return depth

    def _posterior_wall(self, hu: FloatArray, lv: Section) -> None:
        patient, bulk, cleft = self._patient, self._axilla.bulk, self._axilla.clefts
        m = patient.muscle_hu
        along, across = self._blade(lv)
        away = -self._ribs(lv)
        inner = self._body(lv) - (5 + 0.5 * patient.fat)
        room = np.minimum(away - 3.5 - 5.0 * patient.muscle - cleft, inner)
        size = float(np.interp(lv.z, [-130, -90, -40, 20, 50, 70], [0.6, 0.9, 1.0, 1.0, 0.85, 0.5]))
        blade = float(np.interp(lv.z, [-90, -65, 60, 74], [0, 1, 1, 0]))
        if lv.z < 62:  # latissimus dorsi and teres major
            thin = float(np.interp(lv.z, [-120, -70, -20], [0.55, 0.8, 1.0]))
            back = float(np.interp(lv.z, [-120, -50, 0], [22, 6, 0]))
            belly = self._belly(along, across, (-25 + back, -1.0), (25 * size * bulk, 18.5 * size * bulk * thin))
            self._lay(hu, np.minimum(belly, room), m)
            if blade:
                teres = self._belly(along, across, (-3, 16 * size * bulk), (17 * size * bulk, 14 * size * bulk))
                teres = np.minimum(teres, -belly - cleft)
                self._lay(hu, np.minimum(teres, inner), m - 2)
        if not blade:
            return
        reach = 76 * blade
        front = 33 * size * bulk * np.sqrt(np.clip((along + 9) / 22, 0, 1) * np.clip((reach + 8 - along) / 42, 0, 1))
        subscapularis = np.minimum(across + front, -across)
        self._lay(hu, np.minimum(subscapularis * np.float32(0.9), np.minimum(room, along + 9)), m)
        rear = 22 * size * bulk * np.sqrt(np.clip((along + 4) / 16, 0, 1) * np.clip((reach + 4 - along) / 34, 0, 1))
        infraspinatus = np.minimum(across - 1, rear - across)
        gap = np.abs(across - 13 - 0.12 * along) - 0.4 * cleft  # the plane of fat before teres minor
        self._lay(hu, np.minimum(np.minimum(infraspinatus, inner), np.maximum(gap, 14 - along)), m - 3)
        plate = 1.4 + 4.8 * np.exp(-(((along - 5) / 6.5) ** 2)) + 1.2 * np.exp(-(((along - reach + 6) / 6) ** 2))
        bone = np.minimum(plate - np.abs(across), np.minimum(along + 1, reach - along))
        self._lay(hu, bone, BONE_HU)
        self._lay(hu, bone - 1.9, patient.marrow_hu)

    def _pectorals(self, hu: FloatArray, lv: Section) -> None:
        m, u, v = self._patient.muscle_hu, self._u, self._v
        floor = pectoral_floor(lv, u)
        if lv.major > 1:
            end = 16.0  # the lateral border is round and as thick as the belly
            ends = np.clip((u - 8) / 14, 0, 1) * np.sqrt(np.clip(1 - (np.maximum(u - lv.fold + end, 0) / end) ** 2, 0, 1))
            full = float(np.interp(lv.z, [5, 45], [1.0, 0.35]))
            bulge = 0.8 + full * (0.5 + 0.3 * self._axilla.bulk) * np.exp(-(((u - lv.fold + 24) / 26) ** 2))
            thick = lv.major * ends * bulge
            self._lay(hu, np.minimum(floor - 0.2 * thick - v, v - (floor - 1.1 * thick)) - 2 * (thick < 0.5), m)
        centre, half, thick_minor = lv.minor
        if thick_minor > 1.5 and half > 2:
            profile = thick_minor * np.sqrt(np.clip(1 - ((u - centre) / half) ** 2, 0, 1)) - 2 * (np.abs(u - centre) > half)
            top = floor + 2.5 + 0.5 * self._axilla.clefts
            self._lay(hu, np.minimum(v - top, top + profile - v), m)

    # What `Chest` asks of the rib cage.

    def _ribs(self, lv: Section) -> FloatArray:
        """Return the depth under the outer surface of the ribs."""
        if lv.a < 12:
            return np.full(np.broadcast_shapes(self._u.shape, self._v.shape), -999, np.float32)
        dv = self._v - np.float32(lv.yc)
        r = np.power((self._u / np.float32(lv.a)) ** 2.3 + np.abs(dv / np.float32(lv.b)) ** 2.3, np.float32(1 / 2.3))
        depth: FloatArray = np.hypot(self._u, dv) * (1 / (r + np.float32(1e-3)) - 1)
        return depth

    def _serratus(self, lv: Section, rib: DoubleArray) -> FloatArray:
        """Return the thickness of the serratus anterior: a digitation from each rib."""
        base = float(np.interp(lv.z, [-120, -60, 30, 60], [6, 8, 6, 2])) * self._patient.muscle
        tooth = np.power(0.5 - 0.5 * np.cos(2 * np.pi * rib), np.float32(1.4))
        return np.asarray(base * (0.35 + 0.95 * tooth), np.float32)

    def _rib_bone(self, depth: FloatArray, rib: DoubleArray) -> FloatArray:
        """Return the depth inside the ribs: ovals with round ends."""
        bone: FloatArray = (1 - np.hypot((depth - 4.6) / 4.1, (rib - 0.5) * (27 / 6.0))) * np.float32(5.2)
        return bone

    # What lies in the fat.

    def _septa(self, hu: FloatArray, z: float, depth: FloatArray) -> None:
        """Paint septa and strands: sheets where textures cross zero, dense in places, most in the axilla and before the muscles."""
        axilla, phase = self._axilla, self._axilla.phase
        within = self._cover(depth - 3)
        height = z / self._patient.scale
        mask = np.clip(self._grain(0.35 * z, 11 + phase) + 0.2, 0, 1.2)
        sheet = np.clip(1 - np.abs(self._grain(z, 31 + phase)) * 6, 0, 1)
        hu += sheet * mask * within * (40 + 45 * axilla.strands)
        deep = np.exp(-(((self._u - 124) / 34) ** 2) - (((self._v + 12) / 48) ** 2)) * np.exp(-(((height + 6) / 75) ** 2))
        fine = np.clip(1 - np.abs(self._grain(1.7 * z, 5 + phase)) * 3.6, 0, 1)
        fine *= np.clip(self._grain(0.6 * z, 41 + phase) + 0.9, 0, 1.6)
        hu += deep * within * axilla.strands * (95 * fine + 22)
        if axilla.tail:
            self._axillary_tail(hu, height, z, within)

    def _axillary_tail(self, hu: FloatArray, height: float, z: float, within: FloatArray) -> None:
        """Paint breast tissue that reaches along the border of the pectoralis major into the axilla."""
        size = self._axilla.tail * float(np.sqrt(max(0.0, 1 - ((height + 55) / 48) ** 2)))
        if size < 0.1:
            return
        lv = self._section(height)
        v0 = lv.yc - lv.b + 6
        inside = self._ellipse(lv.fold + 6, v0, 30, 15 * size + 3, 0.55)
        patchy = np.clip(self._grain(0.8 * z, 23) * 0.9 - 0.15 + 0.5 * self._patient.gland, 0, 1)
        hu += patchy * np.clip(inside / 5, 0, 1) * within * (112 + 0 * hu)
