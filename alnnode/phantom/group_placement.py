"""Placement of groups of nodes, which may touch each other and the tissue around them (`Surroundings.AXILLA`)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from alnnode.phantom.body_frame import BodyFrame
from alnnode.phantom.group_drawing import draw_group
from alnnode.phantom.group_plan import PlannedNode, group_extent, plan_group
from alnnode.phantom.node_drawing import to_node_coordinates
from alnnode.phantom.placement import (
    MAX_ATTEMPTS,
    PlacedNode,
    in_label_order,
    intersection,
    level_at,
    node_mask,
    sample_involvement,
    sample_level,
    sample_node_count,
    sample_position,
    share_of_other_tissue,
)

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.phantom.canvas import Canvas, Patch, Point
    from alnnode.phantom.placement import VoxelBox
    from alnnode.phantom.settings import PhantomSettings
    from alnnode.phantom.side_canvas import SideCanvas

_CLUSTERS = 0.3  # share of groups with more than one node
_TOUCHING = 0.35  # share of groups that may touch a muscle, the chest wall or a vessel
# The share of the volume of a group that may lie in other tissue than fat.
_MAX_OTHER_TISSUE = 0.06
_MAX_OTHER_TISSUE_TOUCHING = 0.22  # for groups that may touch
_BONE_HU = 400.0


def place_groups(target: SideCanvas, settings: PhantomSettings, rng: np.random.Generator) -> list[PlacedNode]:
    """Place and draw the nodes of one axilla in groups; return the nodes from the head down."""
    involved = sample_involvement(target, settings.sides, rng)
    count = sample_node_count(target, settings, involved, rng)
    placed: list[PlacedNode] = []
    for _ in range(2 * count):
        if len(placed) >= count:
            break
        group = plan_group(rng, target.patient, _CLUSTERS, involved)[: count - len(placed)]
        placed += _place_group(target, group, placed, rng)
    return in_label_order(placed)


def _place_group(
    target: SideCanvas, group: tuple[PlannedNode, ...], placed: list[PlacedNode], rng: np.random.Generator
) -> list[PlacedNode]:
    """Find room for a group and draw it; return its nodes, or an empty list if there is no room."""
    canvas = target.canvas
    wanted = sample_level(rng)
    limit = _MAX_OTHER_TISSUE_TOUCHING if rng.random() < _TOUCHING else _MAX_OTHER_TISSUE
    reach = max(group_extent(group))
    for attempt in range(MAX_ATTEMPTS):
        found = sample_position(target, wanted, rng)
        if found is None or (found[1] is not wanted and attempt < MAX_ATTEMPTS // 2):
            continue
        centre = found[0]
        if not canvas.contains_sphere(centre, reach) or not _is_free(canvas, group, centre, placed, limit):
            continue
        drawn = draw_group(canvas, group, centre, target.patient.psf)
        return [_placed(target, node, node.centre(centre), result) for node, result in zip(group, drawn, strict=True)]
    return []


def _is_free(canvas: Canvas, group: tuple[PlannedNode, ...], centre: Point, placed: list[PlacedNode], limit: float) -> bool:
    """Return whether a group at a point contains no bone and no placed node, and other tissue than fat in at most the share ``limit``."""
    boxes = [_node_voxels(canvas, node, node.centre(centre)) for node in group]
    values = np.concatenate([canvas.hu[where][inside] for where, inside in boxes])
    if not values.size or share_of_other_tissue(values) > limit or values.max() > _BONE_HU:
        return False
    return not any(_overlaps(where, inside, node) for where, inside in boxes for node in placed)


def _node_voxels(canvas: Canvas, node: PlannedNode, centre: Point) -> tuple[VoxelBox, npt.NDArray[np.bool_]]:
    """Return the box around a node at a point (patient mm), and the mask of its voxels within the box."""
    patch = canvas.patch(centre, node.plan.semi[0] + 2)
    if patch is None:
        return (slice(0, 0), slice(0, 0), slice(0, 0)), np.zeros((0, 0, 0), bool)
    local = to_node_coordinates(replace(patch, z=patch.z[1::3]), centre, node.rotation)
    a, b, c = (np.float32(1 / (semi + 0.8)) for semi in node.plan.semi)
    return patch.where, np.asarray((local.p * a) ** 2 + (local.q * b) ** 2 + (local.s * c) ** 2 < 1)


def _overlaps(where: VoxelBox, inside: npt.NDArray[np.bool_], node: PlacedNode) -> bool:
    """Return whether any voxel of the mask ``inside`` of the box ``where`` belongs to a placed node."""
    own, others = intersection(where, node.patch.where)
    return bool((inside[own] & node.mask[others]).any())


def _placed(target: SideCanvas, node: PlannedNode, centre: Point, drawn: tuple[Patch, npt.NDArray[np.float32]]) -> PlacedNode:
    patient = target.patient
    x, y = np.array([centre[0]], np.float32), np.array([centre[1]], np.float32)
    u, _, _ = BodyFrame.from_parameters(patient).from_patient(x, y)
    patch, cover = drawn
    level = level_at(patient, float(u[0]), centre[2] / patient.scale)
    return PlacedNode(node.plan, target.side, level, patch, node_mask(cover), centre)
