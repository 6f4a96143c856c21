"""Structures in the fat of an axilla that are not nodes: the brachial plexus, small vessels and fibrous strands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from alnnode.phantom.trunk_section import axilla_walls, section_at
from alnnode.phantom.vessels import axillary_artery_path, smooth_path

if TYPE_CHECKING:
    from alnnode.phantom.axilla_parameters import AxillaParameters
    from alnnode.phantom.patient_parameters import PatientParameters
    from alnnode.phantom.side_canvas import SideCanvas
    from alnnode.records import FloatArray

_NERVE_HU = 42.0


def draw_clutter(target: SideCanvas, axilla: AxillaParameters, rng: np.random.Generator) -> None:
    """Draw the plexus, small vessels within the slice plane, and the strands of one side."""
    patient = target.patient
    _draw_plexus(target, rng)
    for _ in range(int(rng.integers(3, 8))):  # branches to breast, chest wall and shoulder
        path = _random_path(_random_start(patient, rng), rng, steepness=0.35, step=6.0, count=int(rng.integers(5, 14)))
        path = _outside_muscle(target, path)
        blood = patient.vein_hu if rng.random() < 0.7 else patient.artery_hu
        radius = float(rng.uniform(0.8, 2.0))
        target.draw_path(path, (radius, 0.5 * radius), blood)
    for _ in range(int(60 + 280 * axilla.strands)):
        path = _random_path(_random_start(patient, rng), rng, steepness=0.6, step=4.0, count=int(rng.integers(3, 9)))
        path = _outside_muscle(target, path)
        radius = float(rng.uniform(0.4, 1.1))
        target.draw_path(path, (radius, 0.5 * radius), float(rng.uniform(5, 45)))


def _draw_plexus(target: SideCanvas, rng: np.random.Generator) -> None:
    """Draw the cords of the brachial plexus: posterior and superior to the axillary artery, and around it further laterally."""
    trunk = smooth_path(target.patient, axillary_artery_path(target.patient, 0.46))
    for _ in range(int(rng.integers(3, 6))):
        angle = rng.uniform(0.1 * np.pi, 0.9 * np.pi)  # towards back and head
        distance = float(rng.uniform(5.5, 10.0))
        offset = np.array([rng.normal(0, 1.5), distance * np.cos(angle) + 2, distance * np.sin(angle)])
        waves = np.cumsum(rng.normal(0, 0.5, trunk.shape), axis=0)
        radius = float(rng.uniform(1.0, 2.1))
        target.draw_path(trunk + offset + waves, (radius, 0.8 * radius), _NERVE_HU)


def _random_start(patient: PatientParameters, rng: np.random.Generator) -> FloatArray:
    """Return a random canonical point in the axilla; deep points are more frequent than superficial ones."""
    z = float(np.clip(rng.normal(-10, 38), -95, 55))
    section = section_at(z, patient)
    lateral = max(section.posterior_fold, section.half_width + 30) + 18
    u = float(rng.triangular(section.half_width + 4, section.half_width + 22, lateral))
    front, back = axilla_walls(patient, min(u, 150.0), z)
    return np.array([u, front + float(rng.beta(1.6, 1.6)) * (back - front), z])


def _random_path(start: FloatArray, rng: np.random.Generator, steepness: float, step: float, count: int) -> FloatArray:
    """Return canonical points (count + 1, 3) of a path with random bends.

    Args:
        start: the first point, shape (3,).
        rng: the source of the bends.
        steepness: size of the random component along z, relative to those within the slice.
        step: distance between two points, mm.
        count: number of steps.
    """
    heading = rng.normal(0, 1, 3) * np.array([1.0, 1.0, steepness])
    points = [start]
    for _ in range(count):
        heading = heading / np.linalg.norm(heading) + rng.normal(0, 0.28, 3) * np.array([1.0, 1.0, steepness])
        points.append(points[-1] + step * heading / np.linalg.norm(heading))
    return np.array(points)


def _outside_muscle(target: SideCanvas, path: FloatArray) -> FloatArray:
    """Return the points of a path before it enters a muscle, where it would be invisible."""
    canvas = target.canvas
    for n, point in enumerate(path):
        patch = canvas.patch(target.to_patient(*map(float, point)), 0.0)
        if patch is None or canvas.hu[patch.where].mean() > 0:
            return path[:n]
    return path
