"""Nodes of all kinds drawn into real axillae, for training: alone, in clusters, on muscles and vessels, and what resembles them.

Each is drawn over the smoothed CT and the difference is added to the CT itself, so that the scanner's own noise stays; along the slices the
difference is averaged as the source's slices were. Places of real nodes are left alone. Pieces of vessels and muscle slips are drawn
in the same way, as background: what a network learns of a drawing must not be that it is one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from alnnode.phantom.canvas import Canvas
from alnnode.phantom.group_drawing import draw_group
from alnnode.phantom.group_plan import group_extent, plan_group
from alnnode.phantom.node_drawing import draw_node
from alnnode.phantom.node_plan import NodePlan, sample_orientation
from alnnode.phantom.patient_parameters import sample_patient
from alnnode.phantom.settings import PhantomSettings, Phase
from training.detection.crops import HIGH_HU, LOW_HU, ignored

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.locate.grid import Mask
    from alnnode.phantom.canvas import Point
    from alnnode.phantom.group_plan import PlannedNode
    from alnnode.phantom.patient_parameters import PatientParameters
    from training.detection.crops import AxillaCrop

TRIES = 60
FAT_HU = (-160.0, -45.0)
CLEAR, TOUCHING = 0.05, 0.40  # share of a group's place that may be something else than fat: in fat, and on what lies there
AWAY_STEPS = 3  # grid steps between a drawing and a real node
SMOOTH_MM = 0.8
CLUSTERS = 0.3  # share of groups with more than one node


@dataclass(frozen=True, slots=True)
class Painted:
    """A crop with drawings.

    Attributes:
        hu: (z, y, x) float32.
        nodes: uint16 labels: the real nodes' numbers first, then those of the drawn ones.
    """

    hu: npt.NDArray[np.float32]
    nodes: npt.NDArray[np.uint16]


class Ground:
    """One crop, made ready to be drawn into many times.

    Args:
        crop: of a real CT.
    """

    def __init__(self, crop: AxillaCrop) -> None:
        self.crop = crop
        self._smooth = ndimage.gaussian_filter(crop.hu, SMOOTH_MM, truncate=2.5)
        self._taken = ndimage.binary_dilation((crop.nodes > 0) | ignored(crop), iterations=AWAY_STEPS)
        self._fat = (self._smooth > FAT_HU[0]) & (self._smooth < FAT_HU[1])
        self._places = np.argwhere(crop.region)

    def implant(self, seed: int, groups: int, distractors: int) -> Painted:
        """Draw up to ``groups`` groups of nodes and ``distractors`` vessels or muscle slips; the same arguments give the same result."""
        rng = np.random.default_rng([seed, 11])
        canvas = Canvas(self._smooth.copy(), (0.0, 0.0, 0.0), 1.0, 1.0)
        nodes, taken = self.crop.nodes.astype(np.uint16), self._taken.copy()
        phase = Phase(rng.choice(list(Phase), p=[0.5, 0.2, 0.3]))
        habit = replace(sample_patient(rng, PhantomSettings()), phase=phase)
        for _ in range(distractors):
            z, y, x = (float(v) for v in self._places[rng.integers(len(self._places))])
            _draw_distractor(canvas, (x, y, z), phase, rng)
        for _ in range(groups):
            group = _plan(rng, habit)
            share = TOUCHING if rng.random() < 0.6 else CLEAR
            centre = _free_place(group, self._places, self._fat, taken, share, rng)
            if centre is None:
                continue
            for patch, cover in draw_group(canvas, group, centre, float(rng.uniform(0.9, 1.8))):
                mask = cover > min(0.5, 0.6 * float(cover.max()))
                nodes[patch.where][mask] = int(nodes.max()) + 1
                taken[patch.where] |= mask
        drawn = _averaged(canvas.hu - self._smooth, self.crop.thickness_mm)
        return Painted(np.clip(self.crop.hu + drawn, LOW_HU, HIGH_HU), nodes)


def _plan(rng: np.random.Generator, habit: PatientParameters) -> tuple[PlannedNode, ...]:
    """Plan a group; of those with nodes that fat has replaced only half are kept, which is more than patients have."""
    group = plan_group(rng, habit, CLUSTERS)
    if any(member.plan.fatty for member in group) and rng.random() < 0.5:
        return plan_group(rng, habit, CLUSTERS)
    return group


def _averaged(difference: npt.NDArray[np.float32], thickness_mm: float) -> npt.NDArray[np.float32]:
    """Average along the slices as slices of this thickness, interpolated to 1 mm, have done."""
    steps = round(thickness_mm)
    if steps < 2:
        return difference
    once = ndimage.uniform_filter1d(difference, steps, axis=0, mode="nearest")
    averaged: npt.NDArray[np.float32] = ndimage.uniform_filter1d(once, max(1, steps // 2), axis=0, mode="nearest")
    return averaged


def _free_place(
    group: tuple[PlannedNode, ...],
    places: npt.NDArray[np.int64],
    fat: Mask,
    taken: Mask,
    share: float,
    rng: np.random.Generator,
) -> Point | None:
    """Find a centre (x, y, z) at which a group lies in fat but for ``share`` of it, apart from what is taken."""
    extent = np.ceil(np.array(group_extent(group))[::-1]).astype(int) + 1
    grid = np.ogrid[tuple(slice(-n, n + 1) for n in extent)]
    inside = np.zeros(tuple(2 * extent + 1), dtype=bool)
    for member in group:
        dx, dy, dz = (g - o for g, o in zip(reversed(grid), member.offset, strict=True))
        parts = (
            (row[0] * dx + row[1] * dy + row[2] * dz) / semi
            for row, semi in zip(member.rotation, member.plan.semi, strict=True)
        )
        inside |= np.asarray(sum(part**2 for part in parts)) < 1
    offsets = np.argwhere(inside) - extent
    if len(offsets) > 400:
        offsets = offsets[rng.integers(0, len(offsets), 400)]
    for _ in range(TRIES):
        at = places[rng.integers(len(places))]
        points = at + offsets
        if (points < 0).any() or (points >= fat.shape).any():
            continue
        z, y, x = points.T
        if not taken[z, y, x].any() and np.mean(~fat[z, y, x]) <= share:
            return float(at[2]), float(at[1]), float(at[0])
    return None


def _draw_distractor(canvas: Canvas, centre: Point, phase: Phase, rng: np.random.Generator) -> None:
    """Draw a piece of a vessel of 1 to 4 mm radius, or a slip of muscle."""
    if rng.random() < 0.7:
        value = float(rng.uniform(30, 65)) if phase is Phase.NONE or rng.random() < 0.3 else float(rng.uniform(90, 230))
        heading = rng.normal(0, 1, 3) * [1, 1, 1.5]
        heading /= np.linalg.norm(heading)
        radius, at = float(rng.uniform(0.8, 3.5)), np.array(centre)
        for _ in range(4):
            after = at + heading * float(rng.uniform(8, 16))
            thinner = radius * float(rng.uniform(0.75, 1.05))
            canvas.draw_tube(_point(at), _point(after), (radius, thinner), value, 1.3)
            heading = heading + rng.normal(0, 0.35, 3)
            heading /= np.linalg.norm(heading)
            at, radius = after, thinner
        return
    short = float(rng.uniform(3, 7))
    plan = NodePlan(
        malignant=False,
        semi=(short * float(rng.uniform(3.2, 6)) / 2, short * float(rng.uniform(1.5, 3)) / 2, short / 2),
        hilum=False,
        cortex=short,
        eccentric=0.0,
        lobulation=float(rng.uniform(0, 0.08)),
        spiculation=0.0,
        stranding=0.0,
        cortex_hu=float(rng.normal(52, 8)),
        mottle=4.0,
        seed=int(rng.integers(2**31)),
    )
    draw_node(canvas, plan, centre, sample_orientation(rng), 1.3)


def _point(values: npt.NDArray[np.float64]) -> Point:
    return float(values[0]), float(values[1]), float(values[2])
