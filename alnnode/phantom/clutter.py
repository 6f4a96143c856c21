"""What lies in the fat of an axilla and is no node: the brachial plexus, small vessels along the slice, strands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from alnnode.phantom.frame import Frame, level
from alnnode.phantom.vessels import draw_path, through, trunk_path, walls

if TYPE_CHECKING:
    from alnnode.phantom.axilla_parameters import AxillaParameters
    from alnnode.phantom.canvas import Canvas
    from alnnode.phantom.patient_parameters import PatientParameters
    from alnnode.records import FloatArray, Side

_NERVE_HU = 42.0


def draw_clutter(
    canvas: Canvas, patient: PatientParameters, axilla: AxillaParameters, side: Side, rng: np.random.Generator
) -> None:
    """Paint plexus, vessels along the slice and strands of one side."""
    frame = Frame.of(patient)
    _plexus(canvas, frame, patient, side, rng)
    for _ in range(int(rng.integers(3, 8))):  # branches to breast, chest wall and shoulder
        path = _wander(_start(patient, rng), rng, flat=0.35, step=6.0, count=int(rng.integers(5, 14)))
        path = _to_the_muscle(canvas, frame, side, path)
        blood = patient.vein_hu if rng.random() < 0.7 else patient.artery_hu
        radius = float(rng.uniform(0.8, 2.0))
        draw_path(canvas, frame, side, path, (radius, 0.5 * radius), blood, patient.psf)
    for _ in range(int(60 + 280 * axilla.strands)):
        path = _wander(_start(patient, rng), rng, flat=0.6, step=4.0, count=int(rng.integers(3, 9)))
        path = _to_the_muscle(canvas, frame, side, path)
        radius = float(rng.uniform(0.4, 1.1))
        draw_path(canvas, frame, side, path, (radius, 0.5 * radius), float(rng.uniform(5, 45)), patient.psf)


def _plexus(canvas: Canvas, frame: Frame, patient: PatientParameters, side: Side, rng: np.random.Generator) -> None:
    """Paint the cords of the brachial plexus: behind and above the axillary artery, and around it farther out."""
    trunk = through(patient, trunk_path(patient, 0.46))
    for _ in range(int(rng.integers(3, 6))):
        turn = rng.uniform(0.1 * np.pi, 0.9 * np.pi)  # towards back and head
        away = float(rng.uniform(5.5, 10.0))
        offset = np.array([rng.normal(0, 1.5), away * np.cos(turn) + 2, away * np.sin(turn)])
        waves = np.cumsum(rng.normal(0, 0.5, trunk.shape), axis=0)
        radius = float(rng.uniform(1.0, 2.1))
        draw_path(canvas, frame, side, trunk + offset + waves, (radius, 0.8 * radius), _NERVE_HU, patient.psf)


def _start(patient: PatientParameters, rng: np.random.Generator) -> FloatArray:
    """Return a canonical point in the axilla, more often deep than under the skin."""
    z = float(np.clip(rng.normal(-10, 38), -95, 55))
    lv = level(z, patient)
    u = float(rng.triangular(lv.a + 4, lv.a + 22, max(lv.lateral, lv.a + 30) + 18))
    front, back = walls(patient, min(u, 150.0), z)
    return np.array([u, front + float(rng.beta(1.6, 1.6)) * (back - front), z])


def _wander(start: FloatArray, rng: np.random.Generator, flat: float, step: float, count: int) -> FloatArray:
    """Return canonical points (count + 1, 3) of a path that bends; ``flat`` is how steep it may run along the body."""
    heading = rng.normal(0, 1, 3) * np.array([1.0, 1.0, flat])
    points = [start]
    for _ in range(count):
        heading = heading / np.linalg.norm(heading) + rng.normal(0, 0.28, 3) * np.array([1.0, 1.0, flat])
        points.append(points[-1] + step * heading / np.linalg.norm(heading))
    return np.array(points)


def _to_the_muscle(canvas: Canvas, frame: Frame, side: Side, path: FloatArray) -> FloatArray:
    """Return the part of a path before it enters a muscle: nothing is seen of it within."""
    for n, point in enumerate(path):
        patch = canvas.patch(frame.to_patient(side, *map(float, point)), 0.0)
        if patch is None or canvas.hu[patch.where].mean() > 0:
            return path[:n]
    return path
