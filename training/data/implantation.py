"""A CT while phantom nodes are drawn into it: which places have room, what is drawn there, and the truth about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import ndimage

from alnnode.phantom.canvas import Canvas
from alnnode.phantom.group_drawing import draw_group
from alnnode.phantom.group_plan import PlannedNode, group_extent, surface_factor
from alnnode.phantom.measure import diameters
from alnnode.phantom.node_drawing import draw_node, to_node_coordinates
from alnnode.phantom.node_plan import sample_orientation
from training.data import ct_properties
from training.data.drawn_nodes import SMOOTH_MM, fat_mask, node_mask

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.phantom.canvas import Patch, Point
    from alnnode.phantom.node_plan import NodePlan
    from alnnode.records import AffineMatrix, FloatArray, HounsfieldArray, Level, Side
    from training.data.ct_properties import CtProperties
    from training.data.prepared_ct import PreparedCt, Region

TRIES: Final = 400
CLEAR: Final = 0.03  # largest share of a node's voxels that may be something else than fat
TOUCHING: Final = 0.35  # the same for nodes that may touch a muscle, a vessel or the chest wall
DENSE_HU: Final = 250.0  # bone and metal: no node is drawn over them
AIR_HU: Final = -300.0
AIR_MM: Final = 4.0  # least distance of the surface of a node from air: the skin, and the wall of the chest


@dataclass(frozen=True, slots=True)
class ImplantedNode:
    """The truth of one implanted node (`training.evaluate.detection_matching.TrueNode`).

    Attributes:
        level: always None, because a real CT has no drawn pectoralis minor.
        group: number of the first node of its cluster; its own number when it is alone.
    """

    number: int
    side: Side
    malignant: bool
    short_axis_mm: float
    centre_mm: tuple[float, float, float]
    level: Level | None = None
    group: int = 0
    fatty: bool = False


@dataclass(frozen=True, slots=True)
class Implantation:
    """A CT while nodes are implanted into it.

    Attributes:
        measured: the properties of the CT that drawn nodes get.
        excluded: canonical voxels in which no node may lie.
    """

    prepared: PreparedCt
    canvas: Canvas
    measured: CtProperties
    rng: np.random.Generator
    excluded: npt.NDArray[np.bool_] | None
    labels: npt.NDArray[np.uint16]
    nodes: list[ImplantedNode]
    affine: AffineMatrix

    @classmethod
    def into(
        cls,
        prepared: PreparedCt,
        measured: CtProperties,
        rng: np.random.Generator,
        exclude: npt.NDArray[np.bool_] | None,
    ) -> Implantation:
        """Begin with an empty list of nodes; ``exclude`` has the orientation of the source."""
        dz, dy, _ = prepared.frame.spacing
        affine = np.eye(4)
        affine[:3, :3] = [[0, 0, dy], [0, dy, 0], [dz, 0, 0]]
        canvas = Canvas(prepared.smooth.copy(), (0.0, 0.0, 0.0), dy, dz)
        excluded = None if exclude is None else prepared.frame.canonical(exclude)
        return cls(prepared, canvas, measured, rng, excluded, np.zeros(prepared.hu.shape, np.uint16), [], affine)

    def place_node(self, side: Side, region: Region, plan: NodePlan) -> None:
        """Draw a single node in fat with the usual point spread, if there is room."""
        margin = 0.8 + 2.5 * plan.lobulation
        for _ in range(TRIES):
            centre = self._random_place(region)
            node = PlannedNode(plan, sample_orientation(self.rng), (0.0, 0.0, 0.0))
            if not self.canvas.contains_sphere(centre, plan.semi[0] + 2) or not self._is_free((node,), centre, margin, CLEAR):
                continue
            painted = draw_node(self.canvas, plan, centre, node.rotation, ct_properties.UNKNOWN_CT.edge_width_mm)
            self._record(side, plan, painted, len(self.nodes) + 1)
            return

    def place_group(self, side: Side, region: Region, group: tuple[PlannedNode, ...], not_fat: float) -> bool:
        """Draw a group with the point spread of the CT, and return whether there was room.

        Args:
            side: of the axilla.
            region: its voxels.
            group: as `alnnode.phantom.group_plan.plan_group` returns it.
            not_fat: largest share of the group's voxels that may be something else than fat.
        """
        reach = max(group_extent(group))
        for _ in range(TRIES):
            centre = self._random_place(region)
            if not self.canvas.contains_sphere(centre, reach) or not self._is_free(group, centre, 0.8, not_fat):
                continue
            first = len(self.nodes) + 1
            drawn = draw_group(self.canvas, group, centre, self.measured.edge_width_mm)
            for node, painted in zip(group, drawn, strict=True):
                self._record(side, node.plan, painted, first)
            return True
        return False

    def voxels(self, *, noise: bool) -> HounsfieldArray:
        """Return the CT with the drawn nodes; with ``noise``, also with the noise that drawn nodes lack."""
        filled = self.prepared.hu + self.canvas.hu - self.prepared.smooth
        if noise:
            filled += self._missing_noise()
        voxels: HounsfieldArray = np.clip(np.rint(filled), -1024, 3071).astype(np.int16)
        return voxels

    def _random_place(self, region: Region) -> Point:
        z, y, x = (float(v) for v in region[self.rng.integers(len(region))])
        return x * self.canvas.spacing, y * self.canvas.spacing, z * self.canvas.thickness

    def _is_free(self, group: tuple[PlannedNode, ...], centre: Point, margin: float, not_fat: float) -> bool:
        """Return whether a group has room.

        At most the share ``not_fat`` of its voxels is something else than fat; none is bone, excluded or part of another node, and none is
        near air: in the skin or in the wall of the chest.
        """
        samples = []
        for node in group:
            at = node.centre(centre)
            size = surface_factor(node.plan)
            patch = self.canvas.patch(at, node.plan.semi[0] * size + AIR_MM)
            if patch is None:
                return False
            inside = _ellipsoid(patch, at, node, 1.0, margin)
            if self.labels[patch.where][inside].any():
                return False
            if self.excluded is not None and self.excluded[patch.where][inside].any():
                return False
            smooth = self.prepared.smooth[patch.where]
            if smooth[_ellipsoid(patch, at, node, size, AIR_MM)].min(initial=0.0) < AIR_HU:
                return False
            samples.append(smooth[inside])
        values = np.concatenate(samples)
        return bool(values.size and np.mean(~fat_mask(values)) < not_fat and (not_fat == CLEAR or values.max() < DENSE_HU))

    def _missing_noise(self) -> FloatArray:
        """Return the low-frequency noise within the nodes, which were drawn over the smoothed CT; other voxels still have it."""
        added = np.zeros(self.labels.shape, np.float32)
        if not self.nodes:
            return added
        (box,) = ndimage.find_objects((self.labels > 0).astype(np.uint8))
        inside = ndimage.gaussian_filter((self.labels[box] > 0).astype(np.float32), [0, 0.7, 0.7])
        sigma = SMOOTH_MM / self.canvas.spacing
        slow = ndimage.gaussian_filter(self.rng.standard_normal(inside.shape, dtype=np.float32), [0, sigma, sigma])
        added[box] = inside * slow * (self.measured.missing_noise_hu / max(float(slow.std()), 1e-6))
        return added

    def _record(self, side: Side, plan: NodePlan, painted: tuple[Patch, FloatArray], first: int) -> None:
        """Label the voxels of a drawn node and add its truth to the list; ``first`` is the number of the first node of its group."""
        patch, cover = painted
        mask = node_mask(cover)
        number = len(self.nodes) + 1
        self.labels[patch.where][mask] = number
        largest = int(np.argmax(mask.sum(axis=(1, 2))))
        _, short_axis = diameters(mask[largest], float(self.affine[0, 2]))
        start = np.array([part.start for part in patch.where])
        x, y, z = (float(v) for v in (self.affine @ np.array([*(start + np.argwhere(mask).mean(axis=0)), 1.0]))[:3])
        self.nodes.append(ImplantedNode(number, side, plan.malignant, short_axis, (x, y, z), group=first, fatty=plan.fatty))


def _ellipsoid(patch: Patch, at: Point, node: PlannedNode, size: float, margin: float) -> npt.NDArray[np.bool_]:
    """Return the voxels of a patch inside the ellipsoid of a node, whose semi-axes are scaled by ``size`` and grown by ``margin`` mm."""
    local = to_node_coordinates(replace(patch, z=patch.z[1::3]), at, node.rotation)
    parts = zip((local.p, local.q, local.s), node.plan.semi, strict=True)
    return np.asarray(sum((axis / (semi * size + margin)) ** 2 for axis, semi in parts)) < 1
