"""Where nodes lie: room is looked for in the fat between the walls of the axilla."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from alnnode.phantom.frame import Frame, level
from alnnode.phantom.groups import PlannedNode, draw_group, group_extent, plan_group
from alnnode.phantom.nodes import NodePlan, draw_node, draw_orientation, drawing_reach, localise, plan_node
from alnnode.phantom.vessels import walls
from alnnode.records import Level, Side

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.phantom.canvas import Canvas, Patch, Point
    from alnnode.phantom.patient_parameters import PatientParameters
    from alnnode.phantom.settings import PhantomSettings
    from alnnode.records import FloatArray

    Where = tuple[slice, slice, slice]

_TRIES = 90
_NOT_FAT = (-160.0, -45.0)  # below and above: air, and anything denser than fat with its noise
_BONE_HU = 400.0
_TOUCHING = 0.35  # share of groups that may lie on a muscle, the chest wall or a vessel
_ROOM = (0.06, 0.22)  # share of a group's place that may be something else than fat: apart, and touching
_CLUSTERS = 0.3


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
    canvas: Canvas, patient: PatientParameters, settings: PhantomSettings, side: Side, rng: np.random.Generator
) -> list[PlacedNode]:
    """Place and paint the nodes of one axilla, from the head down."""
    involved = _involvement(patient, side, settings.sides, rng)
    count = _node_count(rng, settings, involved > 0.5) if side in settings.sides else 0
    plans = [plan_node(rng, bool(rng.random() < involved), patient) for _ in range(count)]
    drawn: list[PlacedNode] = []
    # Large ones first: small ones still find room afterwards.
    for plan in sorted(plans, key=lambda p: -p.semi[0]):
        node = _place(canvas, patient, plan, side, drawn, rng)
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
            mine, theirs = _shared(node.patch.where, other.patch.where)
            left[mine] &= ~other.mask[theirs]
        if not left.any():
            return False
    return True


def _involvement(patient: PatientParameters, side: Side, sides: tuple[Side, ...], rng: np.random.Generator) -> float:
    """Return the chance that a node of this side is metastatic."""
    spread = float(rng.beta(6, 1.6))
    if not patient.metastatic:
        return 0.0
    if side is patient.primary or patient.bilateral or len(sides) == 1:
        return spread
    return 0.08


def _place(
    canvas: Canvas, patient: PatientParameters, plan: NodePlan, side: Side, drawn: list[PlacedNode], rng: np.random.Generator
) -> PlacedNode | None:
    """Find room in the fat for a node and paint it; None when there is none."""
    wanted = Level(rng.choice(list(Level), p=[0.70, 0.19, 0.11]))
    for attempt in range(_TRIES):
        found = _position(patient, side, wanted, rng)
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
        patch, cover = draw_node(canvas, plan, centre, rotation, patient.psf)
        # In thick slices a small node may nowhere fill half a voxel: it still has an outline.
        node = PlacedNode(plan, side, where, patch, cover > min(0.5, 0.6 * float(cover.max())), centre)
        if _all_visible([*drawn, node]):
            return node
        canvas.hu[patch.where] = before  # the fat of a large node's hilum is no room for a small one
    return None


def _position(patient: PatientParameters, side: Side, wanted: Level, rng: np.random.Generator) -> tuple[Point, Level] | None:
    """Return a position between the walls of the axilla and its level; more often than not the level ``wanted``."""
    middle, spread = {Level.I: (-12, 32), Level.II: (18, 22), Level.III: (46, 12)}[wanted]
    z = float(np.clip(rng.normal(middle, spread), -82, 62))
    lv = level(z, patient)
    medial, minor = 0.78 * lv.a, lv.minor
    ends = {
        Level.I: (max(medial, minor[0] + 0.5 * minor[1]), lv.lateral + 12),
        Level.II: (max(medial, minor[0] - minor[1]), minor[0] + minor[1]),
        Level.III: (medial, max(medial + 6, minor[0] - minor[1])),
    }[wanted]
    if ends[1] <= ends[0]:
        return None
    u = float(rng.uniform(*ends))
    front, back = walls(patient, u, z)
    share = float(rng.uniform(0.04, 0.96))
    if back - front < 8:
        return None
    return Frame.of(patient).to_patient(side, u, front + share * (back - front), z), _level_at(patient, u, z)


def _level_at(patient: PatientParameters, u: float, z: float) -> Level:
    """Return the level of a canonical place: lateral to, behind or medial to the pectoralis minor."""
    centre, half, thick = level(z, patient).minor
    if thick <= 1.5 or half <= 2:
        return Level.I
    return Level.I if u > centre + half else Level.II if u > centre - half else Level.III


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
    return inside.size > 0 and _not_fat(inside) < 0.015


def _not_fat(values: FloatArray) -> float:
    """Return the share of HU values that are no fat."""
    return float(np.mean((values > _NOT_FAT[1]) | (values < _NOT_FAT[0])))


# Groups: nodes that touch each other and what lies around.


def place_groups(
    canvas: Canvas, patient: PatientParameters, settings: PhantomSettings, side: Side, rng: np.random.Generator
) -> list[PlacedNode]:
    """Place and paint the nodes of one axilla in groups, from the head down."""
    involved = _involvement(patient, side, settings.sides, rng)
    count = _node_count(rng, settings, involved > 0.5) if side in settings.sides else 0
    drawn: list[PlacedNode] = []
    for _ in range(2 * count):
        if len(drawn) >= count:
            break
        group = plan_group(rng, patient, _CLUSTERS, involved)[: count - len(drawn)]
        drawn += _place_group(canvas, patient, group, side, drawn, rng)
    return _numbered(drawn)


def _place_group(
    canvas: Canvas,
    patient: PatientParameters,
    group: tuple[PlannedNode, ...],
    side: Side,
    drawn: list[PlacedNode],
    rng: np.random.Generator,
) -> list[PlacedNode]:
    wanted = Level(rng.choice(list(Level), p=[0.70, 0.19, 0.11]))
    most = _ROOM[int(rng.random() < _TOUCHING)]
    reach = max(group_extent(group))
    for attempt in range(_TRIES):
        found = _position(patient, side, wanted, rng)
        if found is None or (found[1] is not wanted and attempt < _TRIES // 2) or not canvas.holds(found[0], reach):
            continue
        centre = found[0]
        places = [_inside(canvas, node, centre) for node in group]
        values = np.concatenate([canvas.hu[where][inside] for where, inside in places])
        if not values.size or _not_fat(values) > most or values.max() > _BONE_HU:
            continue
        if any(_meets(where, inside, node) for where, inside in places for node in drawn):
            continue
        return [
            _placed(patient, side, node, centre, painted)
            for node, painted in zip(group, draw_group(canvas, group, centre, patient.psf), strict=True)
        ]
    return []


def _inside(canvas: Canvas, node: PlannedNode, centre: Point) -> tuple[Where, npt.NDArray[np.bool_]]:
    """Return the box around a member of a group at ``centre``, and which of its voxels the member takes."""
    at = (centre[0] + node.offset[0], centre[1] + node.offset[1], centre[2] + node.offset[2])
    patch = canvas.patch(at, node.plan.semi[0] + 2)
    if patch is None:
        return (slice(0, 0), slice(0, 0), slice(0, 0)), np.zeros((0, 0, 0), bool)
    local = localise(replace(patch, z=patch.z[1::3]), at, node.rotation)
    a, b, c = (np.float32(1 / (semi + 0.8)) for semi in node.plan.semi)
    return patch.where, np.asarray((local.p * a) ** 2 + (local.q * b) ** 2 + (local.s * c) ** 2 < 1)


def _meets(where: Where, inside: npt.NDArray[np.bool_], node: PlacedNode) -> bool:
    """Return whether voxels of a box belong to a node that is painted."""
    mine, theirs = _shared(where, node.patch.where)
    return bool((inside[mine] & node.mask[theirs]).any())


def _shared(one: Where, other: Where) -> tuple[Where, Where]:
    """Return where the common part of two boxes lies in each of them."""
    low = [max(a.start, b.start) for a, b in zip(one, other, strict=True)]
    high = [max(o, min(a.stop, b.stop)) for o, a, b in zip(low, one, other, strict=True)]
    mine, theirs = ([slice(o - p.start, h - p.start) for o, h, p in zip(low, high, box, strict=True)] for box in (one, other))
    return (mine[0], mine[1], mine[2]), (theirs[0], theirs[1], theirs[2])


def _placed(
    patient: PatientParameters, side: Side, node: PlannedNode, centre: Point, painted: tuple[Patch, FloatArray]
) -> PlacedNode:
    at = (centre[0] + node.offset[0], centre[1] + node.offset[1], centre[2] + node.offset[2])
    u, _, _ = Frame.of(patient).from_patient(np.array([at[0]], np.float32), np.array([at[1]], np.float32))
    patch, cover = painted
    mask = cover > min(0.5, 0.6 * float(cover.max()))
    return PlacedNode(node.plan, side, _level_at(patient, float(u[0]), at[2] / patient.scale), patch, mask, at)
