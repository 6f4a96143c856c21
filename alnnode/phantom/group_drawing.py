"""Drawing of a group of lymph nodes.

All members are drawn at once: no line of fat remains between them, and no member covers another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from alnnode.phantom.group_plan import as_point, half_extent, surface_factor
from alnnode.phantom.node_drawing import NodeCoordinates, stranding_density, surface_depth, tissue_hu, to_node_coordinates

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.phantom.canvas import Canvas, Patch, Point
    from alnnode.phantom.group_plan import PlannedNode
    from alnnode.records import FloatArray

_STRANDING_MM = 9.0


def draw_group(canvas: Canvas, group: tuple[PlannedNode, ...], centre: Point, soft: float) -> list[tuple[Patch, FloatArray]]:
    """Draw a group.

    Args:
        canvas: the volume that the group is drawn in.
        group: as `group_plan.plan_group` returns it.
        centre: of the group, patient mm.
        soft: width of soft edges, mm.

    Returns:
        The patch and the coverage (0 to 1, hilum included) of each member, in the order of ``group``. The coverage of a voxel
        belongs to the member that covers it most and is 0 for the others: labels do not overlap.

    Raises:
        ValueError: a member lies outside the canvas.
    """
    members = [_Member.at(canvas, node, node.centre(centre), soft) for node in group]
    for member in members:
        member.draw_stranding(canvas)
    low = np.array([[part.start for part in m.patch.where] for m in members]).min(axis=0)
    high = np.array([[part.stop for part in m.patch.where] for m in members]).max(axis=0)
    rows, columns = high[1:] - low[1:]
    sub = members[0].patch.z.shape[0] // (members[0].patch.where[0].stop - members[0].patch.where[0].start)
    total, weight, mixed = np.zeros((3, sub * (high[0] - low[0]), rows, columns), np.float32)
    for member in members:
        inside = member.within(low, sub)
        # The weights are squared: where members share a point, the member with the larger coverage dominates its value.
        share = member.cover**2
        total[inside][member.near] += member.cover
        weight[inside][member.near] += share
        mixed[inside][member.near] += share * member.value
    np.minimum(total, 1, out=total)
    body = total * mixed / np.maximum(weight, np.float32(1e-6))
    outline = total.reshape(-1, sub, rows, columns).mean(axis=1)
    box = canvas.hu[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    box += body.reshape(-1, sub, rows, columns).mean(axis=1) - outline * box
    return _shares(members, outline, low)


@dataclass(frozen=True, slots=True)
class _Member:
    """A member over its own patch.

    Attributes:
        node: the plan.
        centre: patient coordinates, mm.
        patch: the box of voxels.
        near: indices (sub-slice, row, column) of the points near the member.
        cover: coverage of these points, 0 to 1.
        value: HU of these points.
    """

    node: PlannedNode
    centre: Point
    patch: Patch
    near: tuple[npt.NDArray[np.int64], ...]
    cover: FloatArray
    value: FloatArray

    @classmethod
    def at(cls, canvas: Canvas, node: PlannedNode, centre: Point, soft: float) -> _Member:
        """Return the member at a point (patient mm)."""
        plan = node.plan
        patch = canvas.patch(centre, as_point(half_extent(node) + soft))
        if patch is None:
            raise ValueError("the node lies outside the canvas")
        rng = np.random.default_rng(plan.seed)
        near, local = _points_near(patch, node, centre, soft)
        depth = surface_depth(local, local.radius, plan, rng)
        if plan.stranding:  # `draw_node` uses the same random numbers here: both functions then draw the same node
            stranding_density(NodeCoordinates(*np.zeros((3, 1), np.float32)), np.zeros(1, np.float32), rng)
        cover = np.clip(0.5 + depth / np.float32(soft), 0, 1)
        return cls(node, centre, patch, near, cover, tissue_hu(local, plan, depth, soft, rng))

    def within(self, low: npt.NDArray[np.int64], sub: int) -> tuple[slice, slice, slice]:
        """Return the position of the patch in a box that begins at ``low``, with ``sub`` sub-slices for each slice."""
        k, j, i = (slice(part.start - int(a), part.stop - int(a)) for part, a in zip(self.patch.where, low, strict=True))
        return slice(k.start * sub, k.stop * sub), j, i

    def draw_stranding(self, canvas: Canvas) -> None:
        """Draw the stranding around the member."""
        plan = self.node.plan
        if not plan.stranding:
            return
        patch = canvas.patch(self.centre, as_point(half_extent(self.node) + _STRANDING_MM))
        if patch is None:
            return
        rng = np.random.default_rng(plan.seed)
        patch = replace(patch, z=patch.z.reshape(patch.where[0].stop - patch.where[0].start, -1, 1, 1).mean(axis=1))
        near, local = _points_near(patch, self.node, self.centre, _STRANDING_MM)
        depth = surface_depth(local, local.radius, plan, rng)
        box = canvas.hu[patch.where]
        fat = box[near]
        box[near] = fat + stranding_density(local, depth, rng) * (52 * plan.stranding) * np.clip((-30 - fat) / 60, 0, 1)

    def average(self) -> FloatArray:
        """Return the coverage of each voxel of the patch."""
        full = np.zeros((self.patch.z.shape[0], self.patch.y.shape[1], self.patch.x.shape[2]), np.float32)
        full[self.near] = self.cover
        return self.patch.average(full)


def _points_near(
    patch: Patch, node: PlannedNode, centre: Point, margin: float
) -> tuple[tuple[npt.NDArray[np.int64], ...], NodeCoordinates]:
    """Return the indices and the node coordinates of the points of a patch that may lie within ``margin`` mm of a node."""
    points = to_node_coordinates(patch, centre, node.rotation)
    factor = surface_factor(node.plan)
    a, b, c = (np.float32(1 / (semi * factor + margin)) for semi in node.plan.semi)
    near = np.nonzero((points.p * a) ** 2 + (points.q * b) ** 2 + (points.s * c) ** 2 < 1)
    return near, NodeCoordinates(points.p[near], points.q[near], points.s[near])


def _shares(members: list[_Member], outline: FloatArray, low: npt.NDArray[np.int64]) -> list[tuple[Patch, FloatArray]]:
    """Assign the coverage of each voxel to the member that covers it most."""
    most = np.zeros(outline.shape, np.float32)
    winner = np.full(outline.shape, -1, np.int16)
    for n, member in enumerate(members):
        inside = member.within(low, 1)
        own = member.average()
        more = own > most[inside]
        most[inside][more] = own[more]
        winner[inside][more] = n
    return [(m.patch, np.where(winner[m.within(low, 1)] == n, outline[m.within(low, 1)], 0)) for n, m in enumerate(members)]
