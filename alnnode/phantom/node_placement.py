"""Placement of single nodes in fat, apart from each other and from everything else (`Surroundings.PLAIN`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from alnnode.phantom.node_drawing import draw_node, drawing_reach
from alnnode.phantom.node_plan import NodePlan, plan_node, sample_orientation
from alnnode.phantom.placement import (
    MAX_ATTEMPTS,
    PlacedNode,
    in_label_order,
    intersection,
    node_mask,
    sample_involvement,
    sample_level,
    sample_node_count,
    sample_position,
    share_of_other_tissue,
)

if TYPE_CHECKING:
    from alnnode.phantom.canvas import Canvas, Point
    from alnnode.phantom.settings import PhantomSettings
    from alnnode.phantom.side_canvas import SideCanvas
    from alnnode.records import FloatArray

_MAX_OTHER_TISSUE = 0.015  # a small vessel may end at a node; nothing else may touch it


def place_nodes(target: SideCanvas, settings: PhantomSettings, rng: np.random.Generator) -> list[PlacedNode]:
    """Place and draw the nodes of one axilla; return them from the head down."""
    involved = sample_involvement(target, settings.sides, rng)
    count = sample_node_count(target, settings, involved, rng)
    plans = [plan_node(rng, bool(rng.random() < involved), target.patient) for _ in range(count)]
    placed: list[PlacedNode] = []
    # Large nodes are placed first, because small nodes fit into the remaining room.
    for plan in sorted(plans, key=lambda p: -p.semi[0]):
        node = _place(target, plan, placed, rng)
        if node is not None:
            placed.append(node)
    return in_label_order(placed)


def _place(target: SideCanvas, plan: NodePlan, placed: list[PlacedNode], rng: np.random.Generator) -> PlacedNode | None:
    """Find room in the fat for a node and draw it; return None if there is no room."""
    canvas = target.canvas
    wanted = sample_level(rng)
    for attempt in range(MAX_ATTEMPTS):
        found = sample_position(target, wanted, rng)
        rotation = sample_orientation(rng)
        if found is None:
            continue
        centre, level = found
        if level is not wanted and attempt < MAX_ATTEMPTS // 2:
            continue
        around = canvas.patch(centre, drawing_reach(plan))
        if (
            around is None
            or not canvas.contains_sphere(centre, plan.semi[0] + 2)
            or not _is_free(canvas, plan, centre, rotation)
        ):
            continue
        before = canvas.hu[around.where].copy()
        patch, cover = draw_node(canvas, plan, centre, rotation, target.patient.psf)
        node = PlacedNode(plan, target.side, level, patch, node_mask(cover), centre)
        if _all_labels_visible([*placed, node]):
            return node
        canvas.hu[patch.where] = before  # the node lay in the fatty hilum of a larger node, or around a smaller one
    return None


def _all_labels_visible(nodes: list[PlacedNode]) -> bool:
    """Return whether each node has at least one voxel that the labels with higher numbers do not overwrite."""
    order = in_label_order(nodes)
    for n, node in enumerate(order):
        visible = node.mask.copy()
        for later in order[n + 1 :]:
            own, others = intersection(node.patch.where, later.patch.where)
            visible[own] &= ~later.mask[others]
        if not visible.any():
            return False
    return True


def _is_free(canvas: Canvas, plan: NodePlan, centre: Point, rotation: FloatArray) -> bool:
    """Return whether a node would lie in fat, clear of vessels, muscles, skin and other nodes."""
    patch = canvas.patch(centre, plan.semi[0] + 3)
    if patch is None:
        return False
    z = patch.z[1::3]
    dx, dy, dz = patch.x - np.float32(centre[0]), patch.y - np.float32(centre[1]), z - np.float32(centre[2])
    margin = 0.8 + 2.5 * plan.lobulation
    r = sum(((row[0] * dx + row[1] * dy + row[2] * dz) / (s + margin)) ** 2 for row, s in zip(rotation, plan.semi, strict=True))
    inside = canvas.hu[patch.where][np.asarray(r) < 1]
    return inside.size > 0 and share_of_other_tissue(inside) < _MAX_OTHER_TISSUE
