"""Draw nodes into real axillae for training of the detector: single nodes, clusters, nodes on muscles and vessels, and distractors.

The rules of `training.data.drawn_nodes` apply. In addition, the drawing is averaged along the slices as the slice thickness of the source
does. No node is drawn on a real node. Pieces of vessels and muscle slips are drawn in the same way and labelled as background, so that the
network does not learn to detect drawings.
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
from training.data.drawn_nodes import fat_mask, node_mask, smooth_ct
from training.detection.crops import HIGH_HU, LOW_HU, ignored

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.locate.grid import Mask
    from alnnode.phantom.canvas import Point
    from alnnode.phantom.group_plan import PlannedNode
    from alnnode.phantom.patient_parameters import PatientParameters
    from training.detection.crops import AxillaCrop

TRIES = 60
CLEAR, TOUCHING = 0.05, 0.40  # largest share of a group's voxels outside fat: for groups in fat, and for groups that may touch
MIN_DISTANCE = 3  # grid points between a drawing and a real node
CLUSTERS = 0.3  # share of groups with more than one node


@dataclass(frozen=True, slots=True)
class DrawnAxilla:
    """A crop with drawings.

    Attributes:
        hu: (z, y, x) float32.
        nodes: uint16 labels: the numbers of the real nodes first, then those of the drawn ones.
    """

    hu: npt.NDArray[np.float32]
    nodes: npt.NDArray[np.uint16]


class AxillaImplanter:
    """A crop that is prepared once and drawn into many times.

    Args:
        crop: of a real CT.
    """

    def __init__(self, crop: AxillaCrop) -> None:
        self.crop = crop
        self._smooth = smooth_ct(crop.hu, (1.0, 1.0, 1.0))
        self._taken = ndimage.binary_dilation((crop.nodes > 0) | ignored(crop), iterations=MIN_DISTANCE)
        self._fat = fat_mask(self._smooth)
        self._places = np.argwhere(crop.region)

    def implant(self, seed: int, groups: int, distractors: int) -> DrawnAxilla:
        """Draw up to ``groups`` groups of nodes, and ``distractors`` vessels or muscle slips; the same arguments give the same result."""
        rng = np.random.default_rng([seed, 11])
        canvas = Canvas(self._smooth.copy(), (0.0, 0.0, 0.0), 1.0, 1.0)
        nodes, taken = self.crop.nodes.astype(np.uint16), self._taken.copy()
        phase = Phase(rng.choice(list(Phase), p=[0.5, 0.2, 0.3]))
        patient = replace(sample_patient(rng, PhantomSettings()), phase=phase)
        for _ in range(distractors):
            z, y, x = (float(v) for v in self._places[rng.integers(len(self._places))])
            _draw_distractor(canvas, (x, y, z), phase, rng)
        for _ in range(groups):
            group = _plan(rng, patient)
            share = TOUCHING if rng.random() < 0.6 else CLEAR
            centre = self._free_place(group, taken, share, rng)
            if centre is None:
                continue
            for patch, cover in draw_group(canvas, group, centre, float(rng.uniform(0.9, 1.8))):
                mask = node_mask(cover)
                nodes[patch.where][mask] = int(nodes.max()) + 1
                taken[patch.where] |= mask
        drawn = _averaged(canvas.hu - self._smooth, self.crop.thickness_mm)
        return DrawnAxilla(np.clip(self.crop.hu + drawn, LOW_HU, HIGH_HU), nodes)

    def _free_place(self, group: tuple[PlannedNode, ...], taken: Mask, share: float, rng: np.random.Generator) -> Point | None:
        """Return a centre (x, y, z) where at most ``share`` of the group is not in fat and no part of it is on a ``taken`` voxel."""
        places, fat = self._places, self._fat
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


def _plan(rng: np.random.Generator, patient: PatientParameters) -> tuple[PlannedNode, ...]:
    """Plan a group; half of the groups with fatty nodes are replaced, which still leaves more of them than patients have."""
    group = plan_group(rng, patient, CLUSTERS)
    if any(member.plan.fatty for member in group) and rng.random() < 0.5:
        return plan_group(rng, patient, CLUSTERS)
    return group


def _averaged(difference: npt.NDArray[np.float32], thickness_mm: float) -> npt.NDArray[np.float32]:
    """Return the drawing averaged along z like slices of this thickness that were interpolated to 1 mm."""
    steps = round(thickness_mm)
    if steps < 2:
        return difference
    once = ndimage.uniform_filter1d(difference, steps, axis=0, mode="nearest")
    averaged: npt.NDArray[np.float32] = ndimage.uniform_filter1d(once, max(1, steps // 2), axis=0, mode="nearest")
    return averaged


def _draw_distractor(canvas: Canvas, centre: Point, phase: Phase, rng: np.random.Generator) -> None:
    """Draw a piece of a vessel with a radius of 1 to 4 mm, or a slip of muscle."""
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
