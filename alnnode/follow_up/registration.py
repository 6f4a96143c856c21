"""Rigid registration of the chest cavity of a prior series to that of this series (our own method).

The hull of the lungs keeps its shape when the position of the patient changes. The prior report holds a few hundred points of it, so
that the prior images are not needed. The method is iterative closest point (Besl and McKay, 1992) as a robust least-squares fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.optimize import least_squares
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from alnnode.errors import AlnnodeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from alnnode.locate.chest_anatomy import ChestAnatomy
    from alnnode.records.comparison import Point

    Points = npt.NDArray[np.float64]

SAMPLE = 300  # points that a report stores
LOW_MM = 160.0  # below the apex: further down breathing moves the diaphragm
ROBUST_MM = 3.0  # scale of the soft L1 loss: larger residuals count less
REACH_MM = 12.0  # points further above or below the surface of the other series are ignored
LARGEST_MM = 6.0  # largest median residual of two surfaces of the same chest
LARGEST_TURN = 30.0  # degrees


class RegistrationError(AlnnodeError):
    """Two series cannot be registered; ``str`` gives the reason for the report."""


@dataclass(frozen=True, slots=True)
class Surface:
    """Points (n, 3) on the surface of the chest cavity, mm LPS, and the sample of them that a report stores."""

    points: Points
    sample: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Motion:
    """A rigid motion: ``rotation`` about ``centre``, then ``shift`` (mm LPS); ``residual_mm`` is the median distance after it."""

    rotation: Rotation
    centre: Points
    shift: Points
    residual_mm: float

    def apply(self, points: Points) -> Points:
        """Return the moved points, shape (n, 3)."""
        if len(points) == 0:
            return points
        moved: Points = self.rotation.apply(points - self.centre) + self.centre + self.shift
        return moved


def chest_surface(anatomy: ChestAnatomy) -> Surface:
    """Return the surface of the chest cavity; it has no points when no lungs are found."""
    coarse, chest = anatomy.coarse, anatomy.chest
    if chest is None:
        return Surface(np.empty((0, 3)), ())
    thorax = chest.thorax
    # The lowest slice is a border of the series, not of the chest; above the apex the chest has a border.
    inner = ndimage.binary_erosion(
        np.pad(thorax, ((1, 1), (0, 0), (0, 0)), mode="constant", constant_values=False), iterations=1
    )
    inner = inner[1:-1]
    inner[0] = ndimage.binary_erosion(thorax[0])
    low = max(0, chest.apex - round(LOW_MM / coarse.spacing[0]))
    border = np.argwhere(thorax & ~inner)
    points = _patient_coordinates(anatomy, border[border[:, 0] >= low].astype(np.float64))
    chosen = points[np.linspace(0, len(points) - 1, min(SAMPLE, len(points))).astype(int)]
    return Surface(points, tuple((x, y, z) for x, y, z in np.round(chosen, 1).tolist()))


def _patient_coordinates(anatomy: ChestAnatomy, coarse_positions: Points) -> Points:
    """Return the patient coordinates (mm, LPS) of positions (n, 3) on the coarse canonical grid."""
    volume, step = anatomy.volume, np.array(anatomy.coarse.step)
    # A coarse voxel averages several source voxels of a slice, but only the first of several slices.
    centre = np.array([0.0, (step[1] - 1) / 2, (step[2] - 1) / 2])
    source = anatomy.frame.source_positions(coarse_positions * step + centre, volume.voxels.shape)
    places: Points = source @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    return places


def register_chest(before: Sequence[Point], now: Surface) -> Motion:
    """Return the motion that maps the surface of a prior series onto the surface of this series.

    Raises:
        RegistrationError: a surface has too few points, or the surfaces do not fit.
    """
    if len(before) < SAMPLE // 10 or len(now.points) < SAMPLE:
        raise RegistrationError("the chest is not shown well enough to be compared")
    source = np.array(before, dtype=np.float64)
    tree = KDTree(now.points)
    low, high = now.points[:, 2].min() - REACH_MM, now.points[:, 2].max() + REACH_MM
    centre = source.mean(axis=0)
    start = now.points.mean(axis=0) - centre
    start[2] = now.points[:, 2].max() - source[:, 2].max()  # both surfaces end at the apex

    def moved(parameters: Points, points: Points) -> Points:
        placed: Points = Rotation.from_rotvec(parameters[:3]).apply(points - centre) + centre + 100 * parameters[3:]
        return placed

    parameters = np.concatenate([np.zeros(3), start / 100])
    used = source
    for _ in range(2):  # the first fit tells which points the other series shows; the second uses only those
        placed = moved(parameters, source)
        shown = (placed[:, 2] > low) & (placed[:, 2] < high)
        used = source[shown]
        if len(used) < SAMPLE // 10:
            raise RegistrationError("the series show different parts of the chest")
        fit = least_squares(
            lambda f, p=used: tree.query(moved(f, p))[0],
            parameters,
            loss="soft_l1",
            f_scale=ROBUST_MM,
            diff_step=1e-4,
            max_nfev=60,
        )
        parameters = fit.x
    residual = float(np.median(tree.query(moved(parameters, used))[0]))
    turn = float(np.degrees(np.linalg.norm(parameters[:3])))
    if residual > LARGEST_MM or turn > LARGEST_TURN:
        raise RegistrationError("the chest of the earlier series does not fit this one")
    return Motion(Rotation.from_rotvec(parameters[:3]), centre, 100 * parameters[3:], residual)
