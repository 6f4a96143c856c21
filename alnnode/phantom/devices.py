"""Implanted metal with its streaks: a port under the skin of the chest, and surgical clips in an axilla."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from alnnode.phantom.side_canvas import SideCanvas
from alnnode.phantom.trunk_section import pectoralis_major_floor, section_at
from alnnode.phantom.vessels import smooth_path

if TYPE_CHECKING:
    from alnnode.phantom.axilla_parameters import AxillaParameters
    from alnnode.phantom.canvas import Canvas, Point
    from alnnode.phantom.patient_parameters import PatientParameters

_CLIP_HU, _CATHETER_HU = 3000.0, 700.0
_PORT_SHELL_HU, _PORT_CORE_HU = 1500.0, 2200.0
_SCAR_HU = 30.0
_STREAK_MM = 55.0


def draw_devices(canvas: Canvas, patient: PatientParameters, axilla: AxillaParameters, rng: np.random.Generator) -> None:
    """Draw the metal of a patient, and the streaks in the slices that contain it."""
    if axilla.port is not None:
        _draw_port(SideCanvas(canvas, patient, axilla.port), rng)
    if axilla.clips is not None:
        _draw_clips(SideCanvas(canvas, patient, axilla.clips), rng)


def _draw_port(target: SideCanvas, rng: np.random.Generator) -> None:
    patient, canvas = target.patient, target.canvas
    z = float(rng.uniform(8, 36))
    u = float(rng.uniform(62, 92))
    section = section_at(z, patient)
    v = float(pectoralis_major_floor(section, np.array([u], np.float32))[0]) - 1.4 * section.pectoralis_major - 9
    ratio = min(u / section.trunk_half_width, 0.95)
    skin = section.centre_v - section.trunk_front * float((1 - ratio**2.4) ** (1 / 2.4))
    v = max(v, skin + 10)  # in thin patients the port lies in a pocket of the muscle
    for height in np.linspace(-9, 9, 7):
        centre = target.to_patient(u, v, z + float(height))
        half = float(np.sqrt(max(1.0, 11.0**2 - float(height) ** 2)))
        low, high = target.to_patient(u - half, v, z + float(height)), target.to_patient(u + half, v, z + float(height))
        canvas.draw_tube(low, high, (4.0, 4.0), _PORT_SHELL_HU, patient.psf)
        canvas.draw_tube(centre, (centre[0], centre[1] - 4, centre[2]), (4.5, 4.5), _PORT_CORE_HU, patient.psf)
        if abs(height) < 7:
            _draw_streaks(canvas, centre, 1.0, rng)
    catheter = [(u - 8, 0.02, z + 10), (64.0, 0.05, 62.0), (50.0, 0.25, 74.0), (30.0, 0.4, 66.0), (14.0, 0.5, 40.0)]
    target.draw_path(smooth_path(patient, catheter), (1.2, 1.2), _CATHETER_HU)


def _draw_clips(target: SideCanvas, rng: np.random.Generator) -> None:
    patient, canvas = target.patient, target.canvas
    z0 = float(rng.uniform(-30, 15))
    u0 = section_at(z0, patient).half_width + float(rng.uniform(12, 30))
    v0 = float(rng.uniform(-42, -5))
    for _ in range(int(rng.integers(3, 9))):
        u, v, z = u0 + rng.normal(0, 9), v0 + rng.normal(0, 9), z0 + rng.normal(0, 12)
        centre = target.to_patient(float(u), float(v), float(z))
        along = rng.normal(0, 1, 3)
        end = np.array(centre) + 4.0 * along / np.linalg.norm(along)
        canvas.draw_tube(centre, (float(end[0]), float(end[1]), float(end[2])), (0.9, 0.9), _CLIP_HU, patient.psf)
        _draw_streaks(canvas, centre, float(rng.uniform(0.3, 0.9)), rng)
        for _ in range(6):  # scar tissue around the clip
            far = (centre[0] + rng.normal(0, 9), centre[1] + rng.normal(0, 9), centre[2] + rng.normal(0, 6))
            canvas.draw_tube(centre, far, (0.9, 0.4), _SCAR_HU, patient.psf)


def _draw_streaks(canvas: Canvas, centre: Point, strength: float, rng: np.random.Generator) -> None:
    """Add bright and dark rays around metal to the slice that contains it."""
    patch = canvas.patch(centre, (_STREAK_MM, _STREAK_MM, 0.5 * canvas.thickness))
    if patch is None:
        return
    dx, dy = patch.x[0] - np.float32(centre[0]), patch.y[0] - np.float32(centre[1])
    r = np.hypot(dx, dy)
    rays = np.zeros(r.shape, np.float32)
    count = int(rng.integers(6, 13))
    for n in range(count):
        angle = np.float32(rng.uniform(0, np.pi))
        across = dx * np.sin(angle) - dy * np.cos(angle)
        width = np.float32(rng.uniform(0.8, 1.6)) + np.float32(0.05) * r
        rays += (-1 if n % 2 else 1) * np.float32(rng.uniform(60, 300)) * np.exp(-((across / width) ** 2))
    rays *= np.exp(-r / np.float32(rng.uniform(9, 18))) * np.clip(r / 3, 0, 1) * np.float32(strength)
    box = canvas.hu[patch.where]
    box[:] = np.maximum(box + rays, -1024)
