"""The chest, slice by slice: everything that is drawn on a grid of half the resolution.

Each structure is a soft coverage between 0 and 1 (an edge ``soft`` mm wide stands for the point spread function), painted
over what lies there, from the outside in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from alnnode.phantom.frame import Frame, Section, level, pectoral_floor, scapular_height, scapular_line
from alnnode.phantom.settings import Arms

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.phantom.patient_parameters import PatientParameters
    from alnnode.records import FloatArray

    DoubleArray = npt.NDArray[np.float64]

BONE_HU = 620.0
_AIR, _LUNG, _SKIN, _DISC = -1000.0, -860.0, 25.0, 80.0


class Chest:
    """Paints slices of one patient.

    Args:
        patient: the patient.
        x: patient x of the columns, mm, shape (columns,).
        y: patient y of the rows, mm, shape (rows,).
        texture: periodic tile of `noise.tissue_tile`.
        table_y: patient y of the table top, mm, and +1 (below the back) or -1 (below the breast).
    """

    def __init__(
        self, patient: PatientParameters, x: FloatArray, y: FloatArray, texture: FloatArray, table_y: tuple[float, int]
    ) -> None:
        self._patient = patient
        self._x, self._y = x[None, :], y[:, None]
        frame = Frame.of(patient)
        self._u, self._signed, self._v = frame.from_patient(self._x, self._y)
        self._soft = np.float32(max(patient.psf, 0.75 * abs(float(x[1] - x[0]))))
        self._texture = texture
        self._table = table_y
        rows, columns = len(y), len(x)
        self._rows = np.arange(rows) % texture.shape[1]
        self._columns = np.arange(columns) % texture.shape[2]
        self._up = patient.arms is Arms.UP

    def paint(self, z: float) -> FloatArray:
        """Return HU without noise of the slice at patient height ``z`` mm, shape (rows, columns)."""
        patient = self._patient
        height = z / patient.scale
        lv = self._section(height)
        hu = np.full((self._v.shape[0], self._u.shape[1]), _AIR, np.float32)
        grain = self._grain(z)
        depth = self._body(lv)
        self._lay(hu, depth, patient.fat_hu + 7 * grain)
        self._septa(hu, z, depth)
        self._breast_gland(hu, lv, grain)
        self._back(hu, lv, depth)
        self._posterior_wall(hu, lv)
        self._pectorals(hu, lv)
        self._fibres(hu, z)
        self._cage(hu, lv, grain)
        self._shoulder(hu, lv)
        self._clavicle(hu, lv)
        skin = self._cover(depth) * (1 - self._cover(depth - 1.8))
        hu += skin * (_SKIN - hu)
        self._couch(hu)
        return hu

    # What surroundings of another kind draw otherwise.

    def _section(self, height: float) -> Section:
        return level(height, self._patient)

    def _armpit(self, lv: Section) -> float:
        """Return the depth of the armpit, mm."""
        if not self._up or not -95 < lv.z < 30:
            return 0.0
        return float(26 * np.sqrt(max(0.0, 1 - ((lv.z + 32) / 62) ** 2)))

    def _serratus(self, lv: Section, rib: DoubleArray) -> FloatArray:  # noqa: ARG002 - digitations follow the ribs
        """Return the thickness of the serratus anterior, mm; ``rib`` is 0.5 in the middle of a rib."""
        return np.asarray(np.interp(lv.z, [-120, -60, 30, 60], [5, 7, 6, 2]) * self._patient.muscle, np.float32)

    def _rib_bone(self, depth: FloatArray, rib: DoubleArray) -> FloatArray:
        """Return the depth inside the ribs."""
        along = 6.8 - np.abs(rib - 0.5) * 27
        bone: FloatArray = np.minimum(np.minimum(depth - 0.8, 8.6 - depth), along * np.float32(0.8))
        return bone

    # What follows paints one structure each.

    def _cover(self, depth: FloatArray) -> FloatArray:
        cover: FloatArray = np.clip(0.5 + depth / self._soft, 0, 1).astype(np.float32)
        return cover

    def _lay(self, hu: FloatArray, depth: FloatArray, value: FloatArray | float) -> None:
        cover = self._cover(depth)
        hu += cover * (value - hu)

    def _grain(self, z: float, offset: int = 0) -> FloatArray:
        """Return smooth texture at ``z``: 1.5 mm per step along z."""
        position = (z / 1.5 + offset) % self._texture.shape[0]
        low = int(position)
        part = np.float32(position - low)
        high = (low + 1) % self._texture.shape[0]
        plane = self._texture[low] * (1 - part) + self._texture[high] * part
        grain: FloatArray = plane[np.ix_(self._rows, self._columns)]
        return grain

    def _ellipse(self, u0: float, v0: float, ru: float, rv: float, angle: float = 0.0, signed: bool = False) -> FloatArray:
        """Return the depth (mm, positive inside) under an ellipse."""
        du = (self._signed if signed else self._u) - np.float32(u0)
        dv = self._v - np.float32(v0)
        c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        p, q = (du * c + dv * s) / np.float32(ru), (dv * c - du * s) / np.float32(rv)
        r = np.sqrt(p * p + q * q)
        depth: FloatArray = (1 - r) * np.float32(min(ru, rv))
        return depth

    def _body(self, lv: Section) -> FloatArray:
        dv = self._v - np.float32(lv.yc)
        ratio_v = np.where(dv < 0, dv / np.float32(-lv.front), dv / np.float32(lv.back))
        p, q = self._u / np.float32(lv.outer), ratio_v
        r = np.power(p**2.4 + q**2.4, np.float32(1 / 2.4)) + np.float32(1e-3)
        depth: FloatArray = np.hypot(self._u, dv) * (1 / r - 1)
        if lv.z < 35:
            depth = np.maximum(depth, self._breast(lv))
        depth = np.maximum(depth, self._arm(lv, 0))
        deep = self._armpit(lv)
        if deep > 2:
            depth = np.minimum(depth, -self._ellipse(lv.outer + 16, -4, 6 + deep, 26))
        return depth

    def _breast(self, lv: Section) -> FloatArray:
        size = self._patient.breast * np.sqrt(max(0.0, 1 - ((lv.z + 75) / 85) ** 2))
        if size < 4:
            return np.full_like(self._u * self._v, -999)
        return self._ellipse(72, lv.yc - lv.b - 6, 66, 18 + self._patient.fat + size)

    def _breast_gland(self, hu: FloatArray, lv: Section, grain: FloatArray) -> None:
        size = self._patient.breast * np.sqrt(max(0.0, 1 - ((lv.z + 75) / 80) ** 2))
        if size < 6:
            return
        inside = self._ellipse(78, lv.yc - lv.b - 30 - 0.4 * size, 40, 12 + 0.5 * size)
        dense = np.clip(0.5 + grain - 1.6 + 2.2 * self._patient.gland, 0, 1) * np.clip(inside / 6, 0, 1)
        hu += dense * (35 - hu)

    def _arm_axis(self, lv: Section) -> tuple[float, float, float] | None:
        """Return centre (u, v) of the arm at this height, and how much it is stretched in u by its slope."""
        if self._up:
            if lv.z < 40:
                return None
            return 172 + 0.55 * (lv.z - 40), 4 - 0.15 * (lv.z - 40), 1.25
        if lv.z > 95:
            return None
        return 176 - 0.16 * (lv.z - 50), 14 - 0.04 * (lv.z - 50), 1.0

    def _arm(self, lv: Section, inset: float) -> FloatArray:
        axis = self._arm_axis(lv)
        if axis is None:
            return np.full((1, 1), -999, np.float32)
        u0, v0, stretch = axis
        cap = 1.0 if self._up else float(np.sqrt(max(0.0, 1 - max(0.0, (lv.z - 45) / 50) ** 2)))
        radius = (40 + 0.35 * self._patient.fat) * cap - inset
        return self._ellipse(u0, v0, radius * stretch, radius) if radius > 2 else np.full((1, 1), -999, np.float32)

    def _septa(self, hu: FloatArray, z: float, depth: FloatArray) -> None:
        """Paint the fibrous septa of fat: thin sheets where the texture crosses zero."""
        sheet = np.clip(1 - np.abs(self._grain(z, 31)) * 9, 0, 1) * np.clip(self._grain(0.35 * z, 11), 0, 1)
        hu += sheet * 48 * self._cover(depth - 4)

    def _fibres(self, hu: FloatArray, z: float) -> None:
        """Give muscles the fat between their bundles."""
        muscle = np.clip(1.4 - np.abs(hu - self._patient.muscle_hu) / 14, 0, 1)
        hu += muscle * (5 * self._grain(z, 17) - 45 * np.clip(self._grain(0.5 * z, 47) - 1.55, 0, 0.9))

    def _back(self, hu: FloatArray, lv: Section, depth: FloatArray) -> None:
        m = self._patient.muscle_hu - 4
        inner = 6 + 0.55 * self._patient.fat
        trapezius = np.minimum(
            np.minimum(depth - inner, inner + 9 * self._patient.muscle - depth), self._v - np.float32(lv.yc + 38)
        )
        self._lay(hu, np.minimum(trapezius, 112 - self._u), m)
        self._lay(hu, self._ellipse(26, lv.yc + lv.b + 14, 25, 17), m)
        self._lay(hu, self._ellipse(62, lv.yc + lv.b + 5, 26, 9, -0.35), m)
        if lv.z > 35:  # levator, supraspinatus and trapezius fill the top of the shoulder
            self._lay(hu, self._ellipse(92, lv.yc + 28, 66, 26, -0.15) - max(0.0, 60 - lv.z), m)

    def _posterior_wall(self, hu: FloatArray, lv: Section) -> None:
        patient, v = self._patient, self._v
        u = self._u
        line = scapular_line(lv, u)
        middle, half = (64 + lv.lateral) / 2, (lv.lateral - 64) / 2
        taper = np.sqrt(np.clip(1 - ((u - middle) / half) ** 2, 0, 1))
        m = patient.muscle_hu
        if lv.z < 45:  # latissimus dorsi and teres major: the posterior fold
            u0 = lv.lateral + 2
            v0 = scapular_height(lv, u0) + 2
            grow = float(np.interp(lv.z, [-140, -60, -10, 25, 45], [0.45, 0.9, 1.0, 0.8, 0.2]))
            self._lay(hu, self._ellipse(u0 - 2, v0, 29 * grow, 14 * grow * patient.muscle, -0.95), m)
        for near, far, value in ((lv.subscapularis, 0.0, m), (0.0, lv.infraspinatus + 5, m)):
            band = np.minimum(v - (line - near * taper), line + far * taper - v) * np.float32(0.78)
            self._lay(hu, np.minimum(band, (u - 62) * np.float32(0.7)), value)
        if -88 < lv.z < 72:
            plate = 1.7 + 5.0 * np.exp(-(((u - lv.lateral + 12) / 9) ** 2)) + 1.5 * np.exp(-(((u - 72) / 6) ** 2))
            reach = float(np.interp(lv.z, [-88, -60], [30, 0]))
            bone = np.minimum(
                plate - np.abs(v - line - 2) * np.float32(0.78), np.minimum(u - 70 - reach, lv.lateral - 4 - reach - u)
            )
            self._lay(hu, bone, BONE_HU)
            self._lay(hu, bone - 1.9, self._patient.marrow_hu)

    def _pectorals(self, hu: FloatArray, lv: Section) -> None:
        m, u, v = self._patient.muscle_hu, self._u, self._v
        floor = pectoral_floor(lv, u)
        if lv.major > 1:
            ends = np.clip((u - 8) / 14, 0, 1) * np.sqrt(np.clip((lv.fold - u) / 30, 0, 1))
            bulge = 1 + 0.35 * np.exp(-(((u - lv.fold + 32) / 24) ** 2))
            self._lay(hu, np.minimum(floor - v, v - (floor - lv.major * ends * bulge)), m)
        centre, half, thick = lv.minor
        if thick > 1.5 and half > 2:
            profile = thick * np.sqrt(np.clip(1 - ((u - centre) / half) ** 2, 0, 1))
            top = floor + 2.5
            self._lay(hu, np.minimum(v - top, top + profile - v), m)

    def _cage(self, hu: FloatArray, lv: Section, grain: FloatArray) -> None:
        if lv.a < 12:
            return
        patient = self._patient
        dv = self._v - np.float32(lv.yc)
        r = np.power((self._u / np.float32(lv.a)) ** 2.3 + np.abs(dv / np.float32(lv.b)) ** 2.3, np.float32(1 / 2.3))
        r += np.float32(1e-3)
        reach = np.hypot(self._u, dv)
        depth = reach * (1 / r - 1)
        beside = np.clip((self._u / (reach + 1) - 0.55) * 5, 0, 1) * np.clip((lv.yc + 62 - self._v) / 20, 0, 1)
        rib = np.float32(1) * ((lv.z + 0.55 * dv * -1 - 8 * patient.rib_phase) / 27 + patient.rib_phase) % 1
        self._lay(hu, depth + self._serratus(lv, rib) * beside - 0.5, patient.muscle_hu)
        bone = self._rib_bone(depth, rib)
        bone = np.where((dv < -0.45 * lv.b) & (self._u < 45), bone - 3, bone)
        self._lay(hu, bone, BONE_HU + 60)
        self._lay(hu, bone - 2.2, patient.marrow_hu)
        self._mediastinum(hu, lv, depth, grain)
        self._spine(hu, lv)
        if lv.z < 62:
            front = lv.yc - lv.b - 1
            sternum = np.minimum(7 - np.abs(self._v - front), 20 - self._u)
            self._lay(hu, sternum, 420)
            self._lay(hu, sternum - 2, patient.marrow_hu - 60)

    def _mediastinum(self, hu: FloatArray, lv: Section, depth: FloatArray, grain: FloatArray) -> None:
        inside = depth - 10
        self._lay(hu, inside, self._patient.fat_hu + 12)
        waist = float(np.interp(lv.z, [-120, -70, -30, 30, 80], [66, 58, 36, 30, 30]))
        middle = np.abs(self._signed - (10 if lv.z < -40 else 2)) + 10 * np.clip((self._v - lv.yc) / 60, -1, 1)
        lung = np.minimum(inside, middle - waist)
        vessels = np.clip(grain - 2.1, 0, 1) * 900
        for u0, v0, radius, value in self._central(lv):
            self._lay(hu, np.minimum(self._ellipse(u0, lv.yc + v0, radius, radius, signed=True), inside + 4), value)
        self._lay(hu, lung, _LUNG + vessels)

    def _central(self, lv: Section) -> tuple[tuple[float, float, float, float], ...]:
        artery, vein = self._patient.artery_hu, self._patient.vein_hu
        trunk = (
            (0.0, 12.0, 8.5, -985.0) if lv.z > -25 else (-14.0, 14.0, 7.0, -985.0),
            (4.0, 30.0, 7.0, 38.0),
        )
        if lv.z < -40:
            return ((14.0, -28.0, 50.0, (artery + vein) / 2), *trunk, (16.0, 36.0, 12.5, artery))
        if lv.z < 18:
            return ((-12.0, -28.0, 15.0, artery), (-32.0, -14.0, 9.0, vein), *trunk, (18.0, 36.0, 12.5, artery))
        return (
            (-12.0, -16.0, 6.5, artery),
            (22.0, -2.0, 5.5, artery),
            (8.0, -20.0, 5.0, artery),
            (-24.0, -24.0, 7.5, vein),
            *trunk,
        )

    def _spine(self, hu: FloatArray, lv: Section) -> None:
        v0 = lv.yc + lv.b - 14
        body = self._ellipse(0, v0, 18, 15)
        disc = ((lv.z + 11 * self._patient.rib_phase) / 24) % 1 < 0.2
        if disc:
            self._lay(hu, body, _DISC)
        else:
            self._lay(hu, body, 480)
            self._lay(hu, body - 1.8, self._patient.marrow_hu)
        arch = np.minimum(13 - np.abs(self._v - v0 - 24), 15 - self._u)
        self._lay(hu, np.minimum(arch, 4 - np.abs(np.hypot(self._u, self._v - v0 - 21) - 12)), 520)
        self._lay(hu, np.minimum(3.2 - self._u, 13 - np.abs(self._v - v0 - 38)), 420)
        self._lay(hu, np.minimum(5 - np.abs(self._v - v0 - 20 - 0.15 * self._u), 32 - self._u) - (3 if disc else 0), 380)
        self._lay(hu, self._ellipse(0, v0 + 21, 9, 8), 30)

    def _shoulder(self, hu: FloatArray, lv: Section) -> None:
        axis = self._arm_axis(lv)
        if axis is not None:
            u0, v0, stretch = axis
            muscle = self._arm(lv, 6 + 0.3 * self._patient.fat)
            gap = np.abs(np.hypot(self._u - u0, self._v - v0) - 19) - 0.6
            self._lay(hu, np.minimum(muscle, gap), self._patient.muscle_hu)
            shaft = 11.5
            if not self._up and lv.z > 78:
                shaft = 0.0
            if shaft:
                bone = self._ellipse(u0, v0, shaft * stretch, shaft)
                self._lay(hu, bone, 900)
                self._lay(hu, bone - 3.5, 60)
        head = np.sqrt(max(0.0, 23.0**2 - (lv.z - 58) ** 2))
        if head > 3:
            ball = self._ellipse(163, 6, head, head)
            self._lay(hu, ball + 14 * np.clip(head / 23, 0, 1), self._patient.muscle_hu)
            self._lay(hu, ball, 560)
            self._lay(hu, ball - 2, self._patient.marrow_hu + 60)

    def _clavicle(self, hu: FloatArray, lv: Section) -> None:
        """Paint the collar bone: from the manubrium up and back to the shoulder."""
        centre = np.interp(lv.z, [52, 78], [18, 150])
        if not 46 < lv.z < 84:
            return
        v0 = lv.yc - lv.b + 2 + 0.12 * centre
        bone = self._ellipse(float(centre), float(v0), 26, 6.5, 0.15)
        self._lay(hu, bone, BONE_HU + 100)
        self._lay(hu, bone - 2.2, self._patient.marrow_hu)

    def _couch(self, hu: FloatArray) -> None:
        top, sign = self._table
        bend = top - sign * (self._x / 230.0) ** 2 * 28
        inside = np.minimum(sign * (self._y - bend), sign * (bend - self._y) + 22)
        wide = np.minimum(inside, 215 - np.abs(self._x))
        empty = np.clip((-300 - hu) / 300, 0, 1)
        cover = self._cover(wide) * empty
        hu += cover * (-930 - hu)
        shell = self._cover(wide) * (1 - self._cover(wide - 1.6)) * empty
        hu += shell * (-150 - hu)
