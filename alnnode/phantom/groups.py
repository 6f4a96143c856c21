"""Groups of lymph nodes: one alone, or two to six that touch or grow into each other, of one kind or of several.

A group is planned before anything is drawn: each member slides towards those before it until their surfaces meet. Then all
of them are painted at once, so that no line of fat stays between members and none covers another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from alnnode.phantom.nodes import (
    Local,
    NodePlan,
    draw_orientation,
    haze_around,
    localise,
    outer_depth,
    plan_fatty_node,
    plan_node,
    substance,
)

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.phantom.canvas import Canvas, Patch, Point
    from alnnode.phantom.patient_parameters import PatientParameters
    from alnnode.records import FloatArray

_CLUSTERS = 0.45  # share of groups with more than one node
_SIZES = ((2, 3, 4, 5, 6), (0.40, 0.26, 0.17, 0.10, 0.07))
_FATTY = 0.25  # share of benign nodes that are a rim around fat
_BULKY = 0.06  # share of malignant nodes that have grown beyond what `plan_node` draws, to 30 mm
_MATTED = 0.35  # share of contacts where the members grow into each other
_HAZE_MM = 9.0


@dataclass(frozen=True, slots=True)
class PlannedNode:
    """One member of a group.

    Attributes:
        plan: what is drawn.
        rotation: (3, 3), rows: long, middle and short axis in patient coordinates.
        offset: of its centre from the centre of the group, (x, y, z) mm.
    """

    plan: NodePlan
    rotation: FloatArray
    offset: Point


def plan_group(
    rng: np.random.Generator, patient: PatientParameters, clusters: float = _CLUSTERS, involved: float | None = None
) -> tuple[PlannedNode, ...]:
    """Draw a group: one node, or, in the share ``clusters`` of groups, two to six that touch.

    Members meet with an overlap of 0.2 to 0.8 mm, or of up to 2.5 mm where they are matted; their centre is the middle of all.
    ``involved`` is the chance that a member is malignant; None draws 0, one half or 1 for the group.
    """
    count = int(rng.choice(_SIZES[0], p=_SIZES[1])) if rng.random() < clusters else 1
    usual = float(rng.choice([0.0, 0.5, 1.0], p=[0.45, 0.20, 0.35]))
    involved = usual if involved is None else involved
    members: list[PlannedNode] = []
    for _ in range(count):
        plan = _plan_member(rng, patient, involved)
        rotation = draw_orientation(rng)
        members.append(_attach(rng, members, PlannedNode(plan, rotation, (0.0, 0.0, 0.0))))
    reach = np.array([half_extent(member) for member in members])
    at = np.array([member.offset for member in members])
    middle = ((at - reach).min(axis=0) + (at + reach).max(axis=0)) / 2
    return tuple(replace(member, offset=_point(np.array(member.offset) - middle)) for member in members)


def draw_group(canvas: Canvas, group: tuple[PlannedNode, ...], centre: Point, soft: float) -> list[tuple[Patch, FloatArray]]:
    """Paint a group and return the patch and coverage (0 to 1, hilum included) of each member, in the order of ``group``.

    A voxel's coverage goes to the member that covers it most; for the others it is 0 there, so that labels never overlap.

    Args:
        canvas: is painted.
        group: of `plan_group`.
        centre: of the group, patient mm.
        soft: width of soft edges, mm.

    Raises:
        ValueError: a member lies outside the canvas.
    """
    members = [_Member.of(canvas, node, _shift(centre, node.offset), soft) for node in group]
    for member in members:
        member.haze(canvas)
    low = np.array([[part.start for part in m.patch.where] for m in members]).min(axis=0)
    high = np.array([[part.stop for part in m.patch.where] for m in members]).max(axis=0)
    rows, columns = high[1:] - low[1:]
    sub = members[0].patch.z.shape[0] // (members[0].patch.where[0].stop - members[0].patch.where[0].start)
    total, weight, mixed = np.zeros((3, sub * (high[0] - low[0]), rows, columns), np.float32)
    for member in members:
        inside = member.within(low, sub)
        # Where members share a point, the one that is more of it decides what is seen.
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


def half_extent(node: PlannedNode) -> npt.NDArray[np.float64]:
    """Return how far a node reaches from its own centre at most along x, y and z, mm."""
    semi = np.array(node.plan.semi) * _swell(node.plan)
    extent: npt.NDArray[np.float64] = np.sqrt(((node.rotation * semi[:, None]) ** 2).sum(axis=0))
    return extent


def group_extent(group: tuple[PlannedNode, ...]) -> Point:
    """Return how far a group reaches from its centre at most along x, y and z, mm."""
    return _point(np.max([np.abs(node.offset) + half_extent(node) for node in group], axis=0))


def _plan_member(rng: np.random.Generator, patient: PatientParameters, involved: float) -> NodePlan:
    malignant = bool(rng.random() < involved)
    if not malignant and rng.random() < _FATTY:
        return plan_fatty_node(rng, patient)
    plan = plan_node(rng, malignant, patient)
    if malignant and rng.random() < _BULKY:
        grown = float(rng.uniform(16, 30)) / (2 * plan.semi[2])
        if grown > 1:
            semi = (plan.semi[0] * grown, plan.semi[1] * grown, plan.semi[2] * grown)
            plan = replace(plan, semi=semi, cortex=plan.cortex * grown)
    return plan


def _swell(plan: NodePlan) -> float:
    """Return a bound of how far bumps and spikes reach beyond the ellipsoid, as a factor."""
    return min(1.6, 1 + 3.2 * plan.lobulation + 0.45 * plan.spiculation)


def _point(values: npt.NDArray[np.float64]) -> Point:
    return float(values[0]), float(values[1]), float(values[2])


def _shift(centre: Point, offset: Point) -> Point:
    return centre[0] + offset[0], centre[1] + offset[1], centre[2] + offset[2]


# How members meet.


def _attach(rng: np.random.Generator, members: list[PlannedNode], node: PlannedNode) -> PlannedNode:
    """Slide a node towards one of ``members`` until it meets any of them; the first stays where it is."""
    if not members:
        return node
    overlap = float(rng.uniform(0.8, 2.5) if rng.random() < _MATTED else rng.uniform(0.2, 0.8))
    overlap = min(overlap, 0.3 * min(node.plan.semi[2], *(m.plan.semi[2] for m in members)))
    base = np.array(members[int(rng.integers(len(members)))].offset)
    heading = rng.normal(0, 1, 3)
    heading /= np.linalg.norm(heading)
    surface = _surface(node)
    low, high = 0.0, 2.0 * max(m.plan.semi[0] for m in members) * 1.6 + node.plan.semi[0] * 1.6 + 40
    for _ in range(11):
        middle = (low + high) / 2
        if _deepest(members, surface + (base + middle * heading)) > overlap:
            low = middle
        else:
            high = middle
    return replace(node, offset=_point(base + low * heading))


def _surface(node: PlannedNode) -> npt.NDArray[np.float64]:
    """Return points (n, 3) on a node's surface relative to its centre, mm: bumps, spikes and notch included."""
    count = 90
    n = np.arange(count) + 0.5
    lean, turn = np.arccos(1 - 2 * n / count), np.pi * (1 + 5**0.5) * n
    unit = np.stack([np.cos(turn) * np.sin(lean), np.sin(turn) * np.sin(lean), np.cos(lean)])
    steps = np.linspace(0.35, 1.6, 18)[:, None]
    p, q, s = (np.float32(semi) * row * steps for semi, row in zip(node.plan.semi, unit, strict=True))
    local = Local(*(part.astype(np.float32) for part in (p, q, s)))
    inside = outer_depth(local, local.radius, node.plan, np.random.default_rng(node.plan.seed)) > 0
    last = np.where(inside.any(axis=0), inside.shape[0] - 1 - np.argmax(inside[::-1], axis=0), 0)
    each = np.arange(count)
    points: npt.NDArray[np.float64] = np.stack([p[last, each], q[last, each], s[last, each]], axis=1) @ node.rotation
    return points


def _deepest(members: list[PlannedNode], points: npt.NDArray[np.float64]) -> float:
    """Return how deep the deepest of ``points`` (n, 3) lies in any member, mm; negative where all lie outside."""
    deepest = -np.inf
    for member in members:
        away = (points - np.array(member.offset)) @ member.rotation.T
        close = (away / (np.array(member.plan.semi) * _swell(member.plan))) ** 2
        away = away[close.sum(axis=1) < 1].astype(np.float32)
        if len(away):
            local = Local(away[:, 0], away[:, 1], away[:, 2])
            depth = outer_depth(local, local.radius, member.plan, np.random.default_rng(member.plan.seed))
            deepest = max(deepest, float(depth.max()))
    return deepest


# How members are painted.


@dataclass(frozen=True, slots=True)
class _Member:
    """A member over its own patch: ``cover`` and ``value`` of the points ``near`` it (indices of sub-slice, row, column)."""

    node: PlannedNode
    centre: Point
    patch: Patch
    near: tuple[npt.NDArray[np.int64], ...]
    cover: FloatArray
    value: FloatArray

    @classmethod
    def of(cls, canvas: Canvas, node: PlannedNode, centre: Point, soft: float) -> _Member:
        plan = node.plan
        patch = canvas.patch(centre, _point(half_extent(node) + soft))
        if patch is None:
            raise ValueError("the node lies outside the canvas")
        rng = np.random.default_rng(plan.seed)
        near, local = _points_near(patch, node, centre, soft)
        depth = outer_depth(local, local.radius, plan, rng)
        if plan.stranding:
            haze_around(Local(*np.zeros((3, 1), np.float32)), np.zeros(1, np.float32), rng)  # as `draw_node`: the same node
        cover = np.clip(0.5 + depth / np.float32(soft), 0, 1)
        return cls(node, centre, patch, near, cover, substance(local, plan, depth, soft, rng))

    def within(self, low: npt.NDArray[np.int64], sub: int) -> tuple[slice, slice, slice]:
        """Return where the patch lies in a box that begins at ``low``, the first axis in sub-slices."""
        k, j, i = (slice(part.start - int(a), part.stop - int(a)) for part, a in zip(self.patch.where, low, strict=True))
        return slice(k.start * sub, k.stop * sub), j, i

    def haze(self, canvas: Canvas) -> None:
        """Paint the stranding around the member."""
        plan = self.node.plan
        if not plan.stranding:
            return
        patch = canvas.patch(self.centre, _point(half_extent(self.node) + _HAZE_MM))
        if patch is None:
            return
        rng = np.random.default_rng(plan.seed)
        patch = replace(patch, z=patch.z.reshape(patch.where[0].stop - patch.where[0].start, -1, 1, 1).mean(axis=1))
        near, local = _points_near(patch, self.node, self.centre, _HAZE_MM)
        depth = outer_depth(local, local.radius, plan, rng)
        box = canvas.hu[patch.where]
        fat = box[near]
        box[near] = fat + haze_around(local, depth, rng) * (52 * plan.stranding) * np.clip((-30 - fat) / 60, 0, 1)

    def average(self) -> FloatArray:
        """Return the coverage of each voxel of the patch."""
        full = np.zeros((self.patch.z.shape[0], self.patch.y.shape[1], self.patch.x.shape[2]), np.float32)
        full[self.near] = self.cover
        return self.patch.average(full)


def _points_near(
    patch: Patch, node: PlannedNode, centre: Point, margin: float
) -> tuple[tuple[npt.NDArray[np.int64], ...], Local]:
    """Return the indices and coordinates of the points of a patch that may lie within ``margin`` mm of a node."""
    whole = localise(patch, centre, node.rotation)
    swell = _swell(node.plan)
    a, b, c = (np.float32(1 / (semi * swell + margin)) for semi in node.plan.semi)
    near = np.nonzero((whole.p * a) ** 2 + (whole.q * b) ** 2 + (whole.s * c) ** 2 < 1)
    return near, Local(whole.p[near], whole.q[near], whole.s[near])


def _shares(members: list[_Member], outline: FloatArray, low: npt.NDArray[np.int64]) -> list[tuple[Patch, FloatArray]]:
    """Give each voxel's coverage to the member that covers it most."""
    most = np.zeros(outline.shape, np.float32)
    winner = np.full(outline.shape, -1, np.int16)
    for n, member in enumerate(members):
        inside = member.within(low, 1)
        own = member.average()
        more = own > most[inside]
        most[inside][more] = own[more]
        winner[inside][more] = n
    return [(m.patch, np.where(winner[m.within(low, 1)] == n, outline[m.within(low, 1)], 0)) for n, m in enumerate(members)]
