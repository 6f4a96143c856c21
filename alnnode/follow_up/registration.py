"""The surface of the chest cavity, and how that of an earlier series lies to it: a rigid motion (ours).

The hull of the lungs keeps its shape when the patient lies otherwise on the table; the earlier report carries a few hundred points of it, so that
the earlier images are not needed. Iterated closest points (Besl and McKay, 1992) in the form of a robust least-squares fit.
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

    from alnnode.locate.chest_anatomy import Site
    from alnnode.records.comparison import Point

    Points = npt.NDArray[np.float64]

SAMPLE = 300  # points that a report keeps
LOW_MM = 160.0  # below the apex: further down the breath moves the diaphragm
ROBUST_MM = 3.0  # residuals beyond count less and less
REACH_MM = 12.0  # points further above or below the other series' surface say nothing
LARGEST_MM = 6.0  # median residual of two surfaces that are the same chest
LARGEST_TURN = 30.0  # degrees


class RegistrationError(AlnnodeError):
    """Two series cannot be brought together; ``str`` says why, for the report."""


@dataclass(frozen=True, slots=True)
class Surface:
    """Points (n, 3) on the chest cavity, mm LPS, and the few that a report keeps."""

    points: Points
    sample: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Motion:
    """Rigid: ``rotation`` about ``centre``, then ``shift`` (mm LPS); ``residual_mm`` is the median distance that it leaves."""

    rotation: Rotation
    centre: Points
    shift: Points
    residual_mm: float

    def apply(self, points: Points) -> Points:
        """Move points (n, 3)."""
        if len(points) == 0:
            return points
        moved: Points = self.rotation.apply(points - self.centre) + self.centre + self.shift
        return moved


def chest_surface(site: Site) -> Surface:
    """Find the surface; without lungs it has no points."""
    coarse, chest = site.coarse, site.chest
    if chest is None:
        return Surface(np.empty((0, 3)), ())
    thorax = chest.thorax
    # The lowest slice is no border of the chest, only of the series; above the apex there is one.
    inner = ndimage.binary_erosion(
        np.pad(thorax, ((1, 1), (0, 0), (0, 0)), mode="constant", constant_values=False), iterations=1
    )
    inner = inner[1:-1]
    inner[0] = ndimage.binary_erosion(thorax[0])
    low = max(0, chest.apex - round(LOW_MM / coarse.spacing[0]))
    at = np.argwhere(thorax & ~inner)
    points = _patient(site, at[at[:, 0] >= low].astype(np.float64))
    chosen = points[np.linspace(0, len(points) - 1, min(SAMPLE, len(points))).astype(int)]
    return Surface(points, tuple((x, y, z) for x, y, z in np.round(chosen, 1).tolist()))


def _patient(site: Site, at: Points) -> Points:
    """Coarse canonical positions (n, 3) to patient coordinates, mm LPS."""
    volume, frame, coarse = site.volume, site.frame, site.coarse
    z = at[:, 0] * coarse.step[0]
    y, x = (at[:, a] * coarse.step[a] + (coarse.step[a] - 1) / 2 for a in (1, 2))
    rows, columns = volume.voxels.shape[1:]
    deep, wide = (columns, rows) if frame.transposed else (rows, columns)
    y = deep - 1 - y if frame.flip_y else y
    x = wide - 1 - x if frame.flip_x else x
    j, i = (x, y) if frame.transposed else (y, x)
    places: Points = np.column_stack([z, j, i]) @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    return places


def register(before: Sequence[Point], now: Surface) -> Motion:
    """Find the motion that lays an earlier surface on this one.

    Raises:
        RegistrationError: one of them has too few points, or they do not fit.
    """
    if len(before) < SAMPLE // 10 or len(now.points) < SAMPLE:
        raise RegistrationError("the chest is not shown well enough to be compared")
    source = np.array(before, dtype=np.float64)
    tree = KDTree(now.points)
    low, high = now.points[:, 2].min() - REACH_MM, now.points[:, 2].max() + REACH_MM
    centre = source.mean(axis=0)
    start = now.points.mean(axis=0) - centre
    start[2] = now.points[:, 2].max() - source[:, 2].max()  # both reach up to the apex

    def moved(figures: Points, points: Points) -> Points:
        placed: Points = Rotation.from_rotvec(figures[:3]).apply(points - centre) + centre + 100 * figures[3:]
        return placed

    figures = np.concatenate([np.zeros(3), start / 100])
    used = source
    for _ in range(2):  # which points the other series shows is known only when it is known how they lie
        placed = moved(figures, source)
        shown = (placed[:, 2] > low) & (placed[:, 2] < high)
        used = source[shown]
        if len(used) < SAMPLE // 10:
            raise RegistrationError("the series show different parts of the chest")
        fit = least_squares(
            lambda f, p=used: tree.query(moved(f, p))[0],
            figures,
            loss="soft_l1",
            f_scale=ROBUST_MM,
            diff_step=1e-4,
            max_nfev=60,
        )
        figures = fit.x
    residual = float(np.median(tree.query(moved(figures, used))[0]))
    turn = float(np.degrees(np.linalg.norm(figures[:3])))
    if residual > LARGEST_MM or turn > LARGEST_TURN:
        raise RegistrationError("the chest of the earlier series does not fit this one")
    return Motion(Rotation.from_rotvec(figures[:3]), centre, 100 * figures[3:], residual)
