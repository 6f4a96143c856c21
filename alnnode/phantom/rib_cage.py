"""The rib cage and what lies within it: ribs, serratus anterior, sternum, spine, mediastinum and lungs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.phantom.patient_parameters import PatientParameters
    from alnnode.phantom.slice_grid import SliceGrid
    from alnnode.phantom.trunk_section import TrunkSection
    from alnnode.records import FloatArray

    DoubleArray = npt.NDArray[np.float64]

RIB_HU = 680.0
_LUNG_HU, _DISC_HU, _TRACHEA_HU, _OESOPHAGUS_HU = -860.0, 80.0, -985.0, 38.0
_SMALLEST_MM = 12  # half width of the rib cage below which nothing is drawn
_RIB_DISTANCE_MM = 27


class RibCage:
    """Draws the rib cage of one patient.

    Args:
        patient: the patient that is drawn.
        grid: the pixels of a slice.
    """

    def __init__(self, patient: PatientParameters, grid: SliceGrid) -> None:
        self._patient, self._grid = patient, grid

    def surface_depth(self, section: TrunkSection) -> FloatArray:
        """Return the depth under the outer surface of the ribs."""
        u, v = self._grid.u, self._grid.v
        if section.half_width < _SMALLEST_MM:
            return np.full(np.broadcast_shapes(u.shape, v.shape), -999, np.float32)
        dv = v - np.float32(section.centre_v)
        p, q = u / np.float32(section.half_width), dv / np.float32(section.half_depth)
        r = np.power(p**2.3 + np.abs(q) ** 2.3, np.float32(1 / 2.3))
        depth: FloatArray = np.hypot(u, dv) * (1 / (r + np.float32(1e-3)) - 1)
        return depth

    def draw(self, hu: FloatArray, section: TrunkSection, texture: FloatArray) -> None:
        """Draw one slice over ``hu``; ``texture`` is that of the slice."""
        if section.half_width < _SMALLEST_MM:
            return
        patient, grid = self._patient, self._grid
        depth = self.surface_depth(section)
        dv = grid.v - np.float32(section.centre_v)
        reach = np.hypot(grid.u, dv)
        beside = np.clip((grid.u / (reach + 1) - 0.55) * 5, 0, 1) * np.clip((section.centre_v + 62 - grid.v) / 20, 0, 1)
        rib = np.float32(1) * ((section.z + 0.55 * dv * -1 - 8 * patient.rib_phase) / _RIB_DISTANCE_MM + patient.rib_phase) % 1
        grid.blend(hu, depth + self._serratus_thickness(section, rib) * beside - 0.5, patient.muscle_hu)
        bone = self._rib_depth(depth, rib)
        bone = np.where((dv < -0.45 * section.half_depth) & (grid.u < 45), bone - 3, bone)
        grid.blend(hu, bone, RIB_HU)
        grid.blend(hu, bone - 2.2, patient.marrow_hu)
        self._draw_mediastinum(hu, section, depth, texture)
        self._draw_spine(hu, section)
        if section.z < 62:
            front = section.centre_v - section.half_depth - 1
            sternum = np.minimum(7 - np.abs(grid.v - front), 20 - grid.u)
            grid.blend(hu, sternum, 420)
            grid.blend(hu, sternum - 2, patient.marrow_hu - 60)

    def _serratus_thickness(self, section: TrunkSection, rib: DoubleArray) -> FloatArray:  # noqa: ARG002 - overridden with ribs
        """Return the thickness of the serratus anterior, mm.

        Args:
            section: the dimensions of the trunk.
            rib: the phase of each pixel between two ribs, 0 to 1; 0.5 is the middle of a rib.
        """
        return np.asarray(np.interp(section.z, [-120, -60, 30, 60], [5, 7, 6, 2]) * self._patient.muscle, np.float32)

    def _rib_depth(self, depth: FloatArray, rib: DoubleArray) -> FloatArray:
        """Return the depth inside the ribs; ``depth`` is that under the rib cage, ``rib`` as in `_serratus_thickness`."""
        along = 6.8 - np.abs(rib - 0.5) * _RIB_DISTANCE_MM
        bone: FloatArray = np.minimum(np.minimum(depth - 0.8, 8.6 - depth), along * np.float32(0.8))
        return bone

    def _draw_mediastinum(self, hu: FloatArray, section: TrunkSection, depth: FloatArray, texture: FloatArray) -> None:
        """Draw the fat, the large vessels and the airways of the mediastinum, and the lungs."""
        grid = self._grid
        inside = depth - 10
        grid.blend(hu, inside, self._patient.fat_hu + 12)
        waist = float(np.interp(section.z, [-120, -70, -30, 30, 80], [66, 58, 36, 30, 30]))
        middle = np.abs(grid.signed_u - (10 if section.z < -40 else 2)) + 10 * np.clip((grid.v - section.centre_v) / 60, -1, 1)
        lung = np.minimum(inside, middle - waist)
        lung_vessels = np.clip(texture - 2.1, 0, 1) * 900
        for u0, dv, radius, value in self._mediastinal_structures(section.z):
            ellipse = grid.ellipse((u0, section.centre_v + dv), (radius, radius), signed=True)
            grid.blend(hu, np.minimum(ellipse, inside + 4), value)
        grid.blend(hu, lung, _LUNG_HU + lung_vessels)

    def _mediastinal_structures(self, z: float) -> tuple[tuple[float, float, float, float], ...]:
        """Return signed u, v from the centre, radius (mm) and HU of heart, great vessels, airways and oesophagus at a height."""
        artery, vein = self._patient.artery_hu, self._patient.vein_hu
        airway_and_oesophagus = (
            (0.0, 12.0, 8.5, _TRACHEA_HU) if z > -25 else (-14.0, 14.0, 7.0, _TRACHEA_HU),
            (4.0, 30.0, 7.0, _OESOPHAGUS_HU),
        )
        if z < -40:
            return ((14.0, -28.0, 50.0, (artery + vein) / 2), *airway_and_oesophagus, (16.0, 36.0, 12.5, artery))
        if z < 18:
            return (
                (-12.0, -28.0, 15.0, artery),
                (-32.0, -14.0, 9.0, vein),
                *airway_and_oesophagus,
                (18.0, 36.0, 12.5, artery),
            )
        return (
            (-12.0, -16.0, 6.5, artery),
            (22.0, -2.0, 5.5, artery),
            (8.0, -20.0, 5.0, artery),
            (-24.0, -24.0, 7.5, vein),
            *airway_and_oesophagus,
        )

    def _draw_spine(self, hu: FloatArray, section: TrunkSection) -> None:
        """Draw a vertebra or a disc, with the vertebral arch, the processes and the spinal canal."""
        grid = self._grid
        u, v = grid.u, grid.v
        v0 = section.centre_v + section.half_depth - 14
        body = grid.ellipse((0, v0), (18, 15))
        disc = ((section.z + 11 * self._patient.rib_phase) / 24) % 1 < 0.2
        if disc:
            grid.blend(hu, body, _DISC_HU)
        else:
            grid.blend(hu, body, 480)
            grid.blend(hu, body - 1.8, self._patient.marrow_hu)
        arch = np.minimum(13 - np.abs(v - v0 - 24), 15 - u)
        grid.blend(hu, np.minimum(arch, 4 - np.abs(np.hypot(u, v - v0 - 21) - 12)), 520)
        grid.blend(hu, np.minimum(3.2 - u, 13 - np.abs(v - v0 - 38)), 420)  # spinous process
        # Transverse processes.
        grid.blend(hu, np.minimum(5 - np.abs(v - v0 - 20 - 0.15 * u), 32 - u) - (3 if disc else 0), 380)
        grid.blend(hu, grid.ellipse((0, v0 + 21), (9, 8)), 30)  # spinal canal


class AxillaRibCage(RibCage):
    """Draws a rib cage with oval ribs and digitations of the serratus anterior."""

    def _serratus_thickness(self, section: TrunkSection, rib: DoubleArray) -> FloatArray:
        """Return the thickness of the serratus anterior, which has a digitation at each rib."""
        base = float(np.interp(section.z, [-120, -60, 30, 60], [6, 8, 6, 2])) * self._patient.muscle
        digitation = np.power(0.5 - 0.5 * np.cos(2 * np.pi * rib), np.float32(1.4))
        return np.asarray(base * (0.35 + 0.95 * digitation), np.float32)

    def _rib_depth(self, depth: FloatArray, rib: DoubleArray) -> FloatArray:
        """Return the depth inside oval ribs."""
        bone: FloatArray = (1 - np.hypot((depth - 4.6) / 4.1, (rib - 0.5) * (_RIB_DISTANCE_MM / 6.0))) * np.float32(5.2)
        return bone
