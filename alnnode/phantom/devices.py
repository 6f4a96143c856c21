"""Metal: a port under the skin of the chest, clips in an axilla that was operated on, and their streaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from alnnode.phantom.frame import Frame, level, pectoral_floor
from alnnode.phantom.vessels import draw_path, through

if TYPE_CHECKING:
    from alnnode.phantom.axilla_parameters import AxillaParameters
    from alnnode.phantom.canvas import Canvas, Point
    from alnnode.phantom.patient_parameters import PatientParameters
    from alnnode.records import Side

_METAL_HU, _CATHETER_HU = 3000.0, 700.0
_STREAK_MM = 55.0


def draw_devices(canvas: Canvas, patient: PatientParameters, axilla: AxillaParameters, rng: np.random.Generator) -> None:
    """Paint what metal a patient carries, and the streaks that it casts in its slices."""
    if axilla.port is not None:
        _port(canvas, patient, axilla.port, rng)
    if axilla.clips is not None:
        _clips(canvas, patient, axilla.clips, rng)


def _port(canvas: Canvas, patient: PatientParameters, side: Side, rng: np.random.Generator) -> None:
    frame = Frame.of(patient)
    z = float(rng.uniform(8, 36))
    u = float(rng.uniform(62, 92))
    lv = level(z, patient)
    v = float(pectoral_floor(lv, np.array([u], np.float32))[0]) - 1.4 * lv.major - 9
    skin = lv.yc - lv.front * float((1 - min(u / lv.outer, 0.95) ** 2.4) ** (1 / 2.4))
    v = max(v, skin + 10)  # in thin patients it lies in a pocket of the muscle
    for height in np.linspace(-9, 9, 7):
        centre = frame.to_patient(side, u, v, z + float(height))
        half = float(np.sqrt(max(1.0, 11.0**2 - float(height) ** 2)))
        low, high = (
            frame.to_patient(side, u - half, v, z + float(height)),
            frame.to_patient(side, u + half, v, z + float(height)),
        )
        canvas.tube(low, high, (4.0, 4.0), 1500.0, patient.psf)
        canvas.tube(centre, (centre[0], centre[1] - 4, centre[2]), (4.5, 4.5), 2200.0, patient.psf)
        if abs(height) < 7:
            _streaks(canvas, centre, 1.0, rng)
    path = [(u - 8, 0.02, z + 10), (64.0, 0.05, 62.0), (50.0, 0.25, 74.0), (30.0, 0.4, 66.0), (14.0, 0.5, 40.0)]
    draw_path(canvas, frame, side, through(patient, path), (1.2, 1.2), _CATHETER_HU, patient.psf)


def _clips(canvas: Canvas, patient: PatientParameters, side: Side, rng: np.random.Generator) -> None:
    frame = Frame.of(patient)
    z0 = float(rng.uniform(-30, 15))
    lv = level(z0, patient)
    u0, v0 = lv.a + float(rng.uniform(12, 30)), float(rng.uniform(-42, -5))
    for _ in range(int(rng.integers(3, 9))):
        u, v, z = u0 + rng.normal(0, 9), v0 + rng.normal(0, 9), z0 + rng.normal(0, 12)
        centre = frame.to_patient(side, float(u), float(v), float(z))
        along = rng.normal(0, 1, 3)
        end = np.array(centre) + 4.0 * along / np.linalg.norm(along)
        canvas.tube(centre, (float(end[0]), float(end[1]), float(end[2])), (0.9, 0.9), _METAL_HU, patient.psf)
        _streaks(canvas, centre, float(rng.uniform(0.3, 0.9)), rng)
        # The scar around them.
        for _ in range(6):
            far = (centre[0] + rng.normal(0, 9), centre[1] + rng.normal(0, 9), centre[2] + rng.normal(0, 6))
            canvas.tube(centre, far, (0.9, 0.4), 30.0, patient.psf)


def _streaks(canvas: Canvas, centre: Point, strength: float, rng: np.random.Generator) -> None:
    """Add bright and dark rays around metal to the slice that holds it."""
    patch = canvas.patch(centre, (_STREAK_MM, _STREAK_MM, 0.5 * canvas.thickness))
    if patch is None:
        return
    dx, dy = patch.x[0] - np.float32(centre[0]), patch.y[0] - np.float32(centre[1])
    r = np.hypot(dx, dy)
    rays = np.zeros(r.shape, np.float32)
    count = int(rng.integers(6, 13))
    for n in range(count):
        turn = np.float32(rng.uniform(0, np.pi))
        across = dx * np.sin(turn) - dy * np.cos(turn)
        width = np.float32(rng.uniform(0.8, 1.6)) + np.float32(0.05) * r
        rays += (-1 if n % 2 else 1) * np.float32(rng.uniform(60, 300)) * np.exp(-((across / width) ** 2))
    rays *= np.exp(-r / np.float32(rng.uniform(9, 18))) * np.clip(r / 3, 0, 1) * np.float32(strength)
    box = canvas.hu[patch.where]
    box[:] = np.maximum(box + rays, -1024)
