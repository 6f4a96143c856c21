"""Where nodes lie: room is looked for in the fat between the walls of the axilla."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alnnode.phantom.frame import Frame, level
from alnnode.phantom.nodes import NodePlan, draw_node, draw_orientation, drawing_reach, plan_node
from alnnode.phantom.vessels import walls
from alnnode.records import Level, Side

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.phantom.canvas import Canvas, Patch, Point
    from alnnode.phantom.settings import Habit, PhantomSettings
    from alnnode.records import FloatArray

_TRIES = 90


@dataclass(frozen=True, slots=True)
class PlacedNode:
    """A node that is painted; ``mask`` is its label within the patch, ``centre`` patient mm."""

    plan: NodePlan
    side: Side
    level: Level
    patch: Patch
    mask: npt.NDArray[np.bool_]
    centre: Point


def _node_count(rng: np.random.Generator, settings: PhantomSettings, involved: bool) -> int:
    drawn = rng.poisson(5.2 if involved else 3.0)
    return int(np.clip(drawn, settings.min_nodes_per_side, settings.max_nodes_per_side))


def place_nodes(
    canvas: Canvas, habit: Habit, settings: PhantomSettings, side: Side, rng: np.random.Generator
) -> list[PlacedNode]:
    """Place and paint the nodes of one axilla, from the head down."""
    involved = _involvement(habit, side, settings.sides, rng)
    count = _node_count(rng, settings, involved > 0.5) if side in settings.sides else 0
    plans = [plan_node(rng, bool(rng.random() < involved), habit) for _ in range(count)]
    drawn: list[PlacedNode] = []
    # Large ones first: small ones still find room afterwards.
    for plan in sorted(plans, key=lambda p: -p.semi[0]):
        node = _place(canvas, habit, plan, side, drawn, rng)
        if node is not None:
            drawn.append(node)
    return _numbered(drawn)


def _numbered(drawn: list[PlacedNode]) -> list[PlacedNode]:
    """Return nodes in the order of their numbers: from the head down."""
    return sorted(drawn, key=lambda n: -n.centre[2])


def _all_visible(drawn: list[PlacedNode]) -> bool:
    """Return whether each node keeps a voxel when the labels of those numbered after it are written over its own."""
    order = _numbered(drawn)
    for n, node in enumerate(order):
        left = node.mask.copy()
        for other in order[n + 1 :]:
            low = [max(a.start, b.start) for a, b in zip(node.patch.where, other.patch.where, strict=True)]
            high = [max(o, min(a.stop, b.stop)) for o, a, b in zip(low, node.patch.where, other.patch.where, strict=True)]
            mine, theirs = (
                tuple(slice(o - part.start, h - part.start) for o, h, part in zip(low, high, one.patch.where, strict=True))
                for one in (node, other)
            )
            left[mine] &= ~other.mask[theirs]
        if not left.any():
            return False
    return True


def _involvement(habit: Habit, side: Side, sides: tuple[Side, ...], rng: np.random.Generator) -> float:
    """Return the chance that a node of this side is metastatic."""
    spread = float(rng.beta(6, 1.6))
    if not habit.metastatic:
        return 0.0
    if side is habit.primary or habit.bilateral or len(sides) == 1:
        return spread
    return 0.08


def _place(
    canvas: Canvas, habit: Habit, plan: NodePlan, side: Side, drawn: list[PlacedNode], rng: np.random.Generator
) -> PlacedNode | None:
    """Find room in the fat for a node and paint it; None when there is none."""
    wanted = Level(rng.choice(list(Level), p=[0.70, 0.19, 0.11]))
    for attempt in range(_TRIES):
        found = _position(habit, side, wanted, rng)
        rotation = draw_orientation(rng)
        if found is None:
            continue
        centre, where = found
        if where is not wanted and attempt < _TRIES // 2:
            continue
        around = canvas.patch(centre, drawing_reach(plan))
        if around is None or not canvas.holds(centre, plan.semi[0] + 2) or not _is_free(canvas, plan, centre, rotation):
            continue
        before = canvas.hu[around.where].copy()
        patch, cover = draw_node(canvas, plan, centre, rotation, habit.psf)
        # In thick slices a small node may nowhere fill half a voxel: it still has an outline.
        node = PlacedNode(plan, side, where, patch, cover > min(0.5, 0.6 * float(cover.max())), centre)
        if _all_visible([*drawn, node]):
            return node
        canvas.hu[patch.where] = before  # the fat of a large node's hilum is no room for a small one
    return None


def _position(habit: Habit, side: Side, wanted: Level, rng: np.random.Generator) -> tuple[Point, Level] | None:
    """Return a position between the walls of the axilla and its level; more often than not the level ``wanted``."""
    middle, spread = {Level.I: (-12, 32), Level.II: (18, 22), Level.III: (46, 12)}[wanted]
    z = float(np.clip(rng.normal(middle, spread), -82, 62))
    lv = level(z, habit)
    medial, minor = 0.78 * lv.a, lv.minor
    ends = {
        Level.I: (max(medial, minor[0] + 0.5 * minor[1]), lv.lateral + 12),
        Level.II: (max(medial, minor[0] - minor[1]), minor[0] + minor[1]),
        Level.III: (medial, max(medial + 6, minor[0] - minor[1])),
    }[wanted]
    if ends[1] <= ends[0]:
        return None
    u = float(rng.uniform(*ends))
    front, back = walls(habit, u, z)
    share = float(rng.uniform(0.04, 0.96))
    if back - front < 8:
        return None
    centre, half, thick = lv.minor
    where = Level.I
    if thick > 1.5 and half > 2:
        where = Level.I if u > centre + half else Level.II if u > centre - half else Level.III
    return Frame.of(habit).to_patient(side, u, front + share * (back - front), z), where


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
    # A twig may end at a node; nothing else may touch it.
    return inside.size > 0 and float(np.mean((inside > -45) | (inside < -160))) < 0.015
