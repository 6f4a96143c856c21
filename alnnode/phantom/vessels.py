"""Axillary artery and vein with their branches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.interpolate import CubicSpline

from alnnode.phantom.settings import Arms
from alnnode.phantom.trunk_section import axilla_walls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alnnode.phantom.patient_parameters import PatientParameters
    from alnnode.phantom.side_canvas import SideCanvas
    from alnnode.records import FloatArray

# (u, share of the distance from the anterior to the posterior wall, z)
_BRANCHES = (
    [(112, 0.30, 34), (116, 0.25, 5), (121, 0.22, -30), (126, 0.25, -70), (129, 0.3, -105)],  # lateral thoracic
    [(132, 0.55, 28), (134, 0.72, 5), (138, 0.80, -25), (140, 0.80, -60), (142, 0.8, -85)],  # thoracodorsal
    [(136, 0.5, 32), (141, 0.8, 22), (143, 1.1, 8)],  # circumflex scapular
    [(100, 0.30, 38), (94, 0.12, 31), (86, 0.0, 24)],  # thoracoacromial
)


def draw_vessels(target: SideCanvas, rng: np.random.Generator) -> None:
    """Draw the vessels of one side, from the axillary artery and vein to branches of 1 mm radius."""
    patient = target.patient
    artery, vein = patient.artery_hu, patient.vein_hu
    jitter = rng.normal(0, 0.04, 4)
    size = float(rng.uniform(0.85, 1.15))
    depth = 0.42 + float(jitter[0])
    trunk = axillary_artery_path(patient, depth)
    target.draw_path(smooth_path(patient, trunk), (3.6 * size, 3.0 * size), artery)
    below = [(u, share - 0.22, z - 7) for u, share, z in trunk]
    target.draw_path(smooth_path(patient, below), (5.6 * size, 4.4 * size), vein)
    for path in _BRANCHES:
        moved = [(u + float(rng.normal(0, 3)), share + float(rng.normal(0, 0.06)), z) for u, share, z in path]
        radius = float(rng.uniform(1.0, 1.7))
        points = smooth_path(patient, moved)
        target.draw_path(points, (radius, 0.6 * radius), artery)
        beside = points + np.array([2.5 + radius, 1.5, 0.0])
        target.draw_path(beside, (1.3 * radius, 0.7 * radius), vein)
        for _ in range(int(rng.integers(1, 4))):
            _draw_small_branch(target, points[int(rng.integers(len(points)))], rng)


def axillary_artery_path(patient: PatientParameters, depth: float) -> list[tuple[float, float, float]]:
    """Return the axillary artery as (u, share of the distance from the anterior to the posterior wall, z).

    Args:
        patient: whose arms are up or down.
        depth: that share in the middle of the axilla.
    """
    medial = [(58.0, 0.30, 76.0), (78.0, depth, 66.0), (98.0, depth, 52.0), (120.0, depth, 40.0)]
    if patient.arms is Arms.UP:
        return [*medial, (146.0, depth, 40.0), (172.0, depth + 0.1, 58.0), (196.0, 0.6, 92.0)]
    return [*medial, (138.0, depth, 22.0), (154.0, 0.5, -15.0), (166.0, 0.5, -60.0), (172.0, 0.5, -110.0)]


def smooth_path(patient: PatientParameters, path: Sequence[tuple[float, float, float]]) -> FloatArray:
    """Return canonical points (n, 3), about 7 mm apart, on a cubic spline through ``path``.

    Args:
        patient: whose axilla the path lies in.
        path: (u, share of the distance from the anterior to the posterior wall, z).
    """
    points = []
    for u, share, z in path:
        front, back = axilla_walls(patient, min(u, 150.0), z)
        points.append((u, front + share * (back - front), z))
    knots = np.array(points)
    lengths = np.r_[0, np.cumsum(np.linalg.norm(np.diff(knots, axis=0), axis=1))]
    curve = CubicSpline(lengths, knots)
    smooth: FloatArray = curve(np.linspace(0, lengths[-1], max(3, int(lengths[-1] / 7))))
    return smooth


def _draw_small_branch(target: SideCanvas, start: FloatArray, rng: np.random.Generator) -> None:
    """Draw a small branch with random bends from ``start``."""
    heading = rng.normal(0, 1, 3) * np.array([1.0, 0.7, 1.2])
    heading /= np.linalg.norm(heading)
    points = [start]
    for _ in range(int(rng.integers(3, 7))):
        heading = heading + rng.normal(0, 0.35, 3)
        heading /= np.linalg.norm(heading)
        points.append(points[-1] + 6 * heading)
    value = target.patient.vein_hu if rng.random() < 0.5 else target.patient.artery_hu
    radius = float(rng.uniform(0.5, 1.1))
    target.draw_path(np.array(points), (radius, 0.4 * radius), value)
