"""Axillary artery and vein with their branches: the tubes in the fat that are not nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.interpolate import CubicSpline

from alnnode.phantom.frame import Frame, level, pectoral_floor, scapular_line
from alnnode.phantom.settings import Arms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alnnode.phantom.canvas import Canvas
    from alnnode.phantom.patient_parameters import PatientParameters
    from alnnode.records import FloatArray, Side


def walls(patient: PatientParameters, u: float, z: float) -> tuple[float, float]:
    """Return canonical y of the front and the back wall of the axilla at ``u``, ``z`` (mm)."""
    lv = level(z, patient)
    at = np.array([u], np.float32)
    centre, half, thick = lv.minor
    inside = max(0.0, 1 - ((u - centre) / half) ** 2) if half > 2 else 0.0
    front = float(pectoral_floor(lv, at)[0]) + (2.5 + thick * inside**0.5 if inside else 0.0)
    middle, reach = (64 + lv.lateral) / 2, (lv.lateral - 64) / 2
    taper = max(0.0, 1 - ((u - middle) / reach) ** 2) ** 0.5
    back = float(scapular_line(lv, at)[0]) - lv.subscapularis * taper
    return front, max(back, front + 4)


def draw_vessels(canvas: Canvas, patient: PatientParameters, side: Side, rng: np.random.Generator) -> None:
    """Paint the vessels of one side, from the trunk to branches of 1 mm radius."""
    frame = Frame.of(patient)
    artery, vein = patient.artery_hu, patient.vein_hu
    jitter = rng.normal(0, 0.04, 4)
    size = float(rng.uniform(0.85, 1.15))
    depth = 0.42 + float(jitter[0])
    trunk = trunk_path(patient, depth)
    draw_path(canvas, frame, side, through(patient, trunk), (3.6 * size, 3.0 * size), artery, patient.psf)
    below = [(u, v - 0.22, z - 7) for u, v, z in trunk]
    draw_path(canvas, frame, side, through(patient, below), (5.6 * size, 4.4 * size), vein, patient.psf)
    branches = (
        [(112, 0.30, 34), (116, 0.25, 5), (121, 0.22, -30), (126, 0.25, -70), (129, 0.3, -105)],  # lateral thoracic
        [(132, 0.55, 28), (134, 0.72, 5), (138, 0.80, -25), (140, 0.80, -60), (142, 0.8, -85)],  # thoracodorsal
        [(136, 0.5, 32), (141, 0.8, 22), (143, 1.1, 8)],  # circumflex scapular
        [(100, 0.30, 38), (94, 0.12, 31), (86, 0.0, 24)],  # thoracoacromial
    )
    for path in branches:
        moved = [(u + float(rng.normal(0, 3)), v + float(rng.normal(0, 0.06)), z) for u, v, z in path]
        radius = float(rng.uniform(1.0, 1.7))
        points = through(patient, moved)
        draw_path(canvas, frame, side, points, (radius, 0.6 * radius), artery, patient.psf)
        beside = points + np.array([2.5 + radius, 1.5, 0.0])
        draw_path(canvas, frame, side, beside, (1.3 * radius, 0.7 * radius), vein, patient.psf)
        for _ in range(int(rng.integers(1, 4))):
            _twig(canvas, frame, side, points[int(rng.integers(len(points)))], patient, rng)


def trunk_path(patient: PatientParameters, depth: float) -> list[tuple[float, float, float]]:
    """Return the trunk as (u, share of the way from the front to the back wall, z)."""
    medial = [(58.0, 0.30, 76.0), (78.0, depth, 66.0), (98.0, depth, 52.0), (120.0, depth, 40.0)]
    if patient.arms is Arms.UP:
        return [*medial, (146.0, depth, 40.0), (172.0, depth + 0.1, 58.0), (196.0, 0.6, 92.0)]
    return [*medial, (138.0, depth, 22.0), (154.0, 0.5, -15.0), (166.0, 0.5, -60.0), (172.0, 0.5, -110.0)]


def through(patient: PatientParameters, path: Sequence[tuple[float, float, float]]) -> FloatArray:
    """Return canonical points (n, 3), about 7 mm apart, on a smooth curve through ``path``."""
    points = []
    for u, share, z in path:
        front, back = walls(patient, min(u, 150.0), z)
        points.append((u, front + share * (back - front), z))
    knots = np.array(points)
    steps = np.r_[0, np.cumsum(np.linalg.norm(np.diff(knots, axis=0), axis=1))]
    curve = CubicSpline(steps, knots)
    smooth: FloatArray = curve(np.linspace(0, steps[-1], max(3, int(steps[-1] / 7))))
    return smooth


def draw_path(
    canvas: Canvas, frame: Frame, side: Side, points: FloatArray, radii: tuple[float, float], value: float, soft: float
) -> None:
    """Paint a tube along canonical ``points`` (n, 3), mm; its radius goes from the first to the second of ``radii``."""
    placed = [frame.to_patient(side, *map(float, p)) for p in points]
    along = np.linspace(radii[0], radii[1], len(placed))
    for i in range(len(placed) - 1):
        canvas.tube(placed[i], placed[i + 1], (float(along[i]), float(along[i + 1])), value, soft)


def _twig(
    canvas: Canvas, frame: Frame, side: Side, start: FloatArray, patient: PatientParameters, rng: np.random.Generator
) -> None:
    """Paint a small branch that wanders from ``start``."""
    heading = rng.normal(0, 1, 3) * np.array([1.0, 0.7, 1.2])
    heading /= np.linalg.norm(heading)
    points = [start]
    for _ in range(int(rng.integers(3, 7))):
        heading = heading + rng.normal(0, 0.35, 3)
        heading /= np.linalg.norm(heading)
        points.append(points[-1] + 6 * heading)
    value = patient.vein_hu if rng.random() < 0.5 else patient.artery_hu
    radius = float(rng.uniform(0.5, 1.1))
    draw_path(canvas, frame, side, np.array(points), (radius, 0.4 * radius), value, patient.psf)
