"""Plans of groups of lymph nodes: one node, or two to six of one kind or of several that touch or grow into each other.

A group is planned before anything is drawn: each member slides towards the earlier members until their surfaces meet.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from alnnode.phantom.node_drawing import NodeCoordinates, surface_depth
from alnnode.phantom.node_plan import NodePlan, plan_fatty_node, plan_node, sample_orientation

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.phantom.canvas import Point
    from alnnode.phantom.patient_parameters import PatientParameters
    from alnnode.records import FloatArray

_CLUSTERS = 0.45  # share of groups with more than one node
_SIZES = ((2, 3, 4, 5, 6), (0.40, 0.26, 0.17, 0.10, 0.07))  # members of a cluster, and the probability of each number
_FATTY = 0.25  # share of benign nodes with fatty replacement
_BULKY = 0.06  # share of malignant nodes that are enlarged to a short axis of up to 30 mm
_MATTED = 0.35  # share of contacts at which the members are matted, so grow into each other


@dataclass(frozen=True, slots=True)
class PlannedNode:
    """One member of a group.

    Attributes:
        plan: the properties of the node.
        rotation: (3, 3), with the long, middle and short axis in patient coordinates as rows.
        offset: from the centre of the group to that of the node, (x, y, z) mm.
    """

    plan: NodePlan
    rotation: FloatArray
    offset: Point

    def centre(self, group_centre: Point) -> Point:
        """Return the centre of the node for a centre of its group, both patient mm."""
        return group_centre[0] + self.offset[0], group_centre[1] + self.offset[1], group_centre[2] + self.offset[2]


def plan_group(
    rng: np.random.Generator, patient: PatientParameters, clusters: float = _CLUSTERS, involved: float | None = None
) -> tuple[PlannedNode, ...]:
    """Sample a group: one node, or two to six nodes that touch.

    Touching members overlap by 0.2 to 0.8 mm, matted members by up to 2.5 mm. The centre of a group is that of its bounding box.

    Args:
        rng: the source of randomness.
        patient: the patient that the group is drawn in.
        clusters: share of groups with more than one node.
        involved: probability that a member is malignant; None samples 0, 0.5 or 1 for the group.
    """
    count = int(rng.choice(_SIZES[0], p=_SIZES[1])) if rng.random() < clusters else 1
    usual = float(rng.choice([0.0, 0.5, 1.0], p=[0.45, 0.20, 0.35]))
    involved = usual if involved is None else involved
    members: list[PlannedNode] = []
    for _ in range(count):
        plan = _plan_member(rng, patient, involved)
        rotation = sample_orientation(rng)
        members.append(_attach(rng, members, PlannedNode(plan, rotation, (0.0, 0.0, 0.0))))
    reach = np.array([half_extent(member) for member in members])
    at = np.array([member.offset for member in members])
    middle = ((at - reach).min(axis=0) + (at + reach).max(axis=0)) / 2
    return tuple(replace(member, offset=as_point(np.array(member.offset) - middle)) for member in members)


def half_extent(node: PlannedNode) -> npt.NDArray[np.float64]:
    """Return half the size of a box that contains a node, along x, y and z, mm."""
    semi = np.array(node.plan.semi) * surface_factor(node.plan)
    extent: npt.NDArray[np.float64] = np.sqrt(((node.rotation * semi[:, None]) ** 2).sum(axis=0))
    return extent


def group_extent(group: tuple[PlannedNode, ...]) -> Point:
    """Return half the size of a box around the centre of a group that contains all members, along x, y and z, mm."""
    return as_point(np.max([np.abs(node.offset) + half_extent(node) for node in group], axis=0))


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


def surface_factor(plan: NodePlan) -> float:
    """Return an upper bound of the size of a node with its bumps and spikes, relative to its ellipsoid."""
    return min(1.6, 1 + 3.2 * plan.lobulation + 0.45 * plan.spiculation)


def as_point(values: npt.NDArray[np.float64]) -> Point:
    """Return an array of shape (3,) as a tuple."""
    return float(values[0]), float(values[1]), float(values[2])


def _attach(rng: np.random.Generator, members: list[PlannedNode], node: PlannedNode) -> PlannedNode:
    """Slide a node towards one of ``members`` until it touches any of them; the first member does not move."""
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
    return replace(node, offset=as_point(base + low * heading))


def _surface(node: PlannedNode) -> npt.NDArray[np.float64]:
    """Return points (n, 3) on the surface of a node, with bumps, spikes and notch, relative to its centre, mm."""
    count = 90
    n = np.arange(count) + 0.5
    lean, turn = np.arccos(1 - 2 * n / count), np.pi * (1 + 5**0.5) * n
    unit = np.stack([np.cos(turn) * np.sin(lean), np.sin(turn) * np.sin(lean), np.cos(lean)])
    steps = np.linspace(0.35, 1.6, 18)[:, None]
    p, q, s = (np.float32(semi) * row * steps for semi, row in zip(node.plan.semi, unit, strict=True))
    local = NodeCoordinates(*(part.astype(np.float32) for part in (p, q, s)))
    inside = surface_depth(local, local.radius, node.plan, np.random.default_rng(node.plan.seed)) > 0
    last = np.where(inside.any(axis=0), inside.shape[0] - 1 - np.argmax(inside[::-1], axis=0), 0)
    each = np.arange(count)
    points: npt.NDArray[np.float64] = np.stack([p[last, each], q[last, each], s[last, each]], axis=1) @ node.rotation
    return points


def _deepest(members: list[PlannedNode], points: npt.NDArray[np.float64]) -> float:
    """Return the maximum depth of ``points`` (n, 3) in any member, mm; negative if all points lie outside."""
    deepest = -np.inf
    for member in members:
        away = (points - np.array(member.offset)) @ member.rotation.T
        close = (away / (np.array(member.plan.semi) * surface_factor(member.plan))) ** 2
        away = away[close.sum(axis=1) < 1].astype(np.float32)
        if len(away):
            local = NodeCoordinates(away[:, 0], away[:, 1], away[:, 2])
            depth = surface_depth(local, local.radius, member.plan, np.random.default_rng(member.plan.seed))
            deepest = max(deepest, float(depth.max()))
    return deepest
