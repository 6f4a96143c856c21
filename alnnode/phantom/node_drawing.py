"""Drawing of one lymph node: its surface, cortex, hilum, necrosis and the stranding around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from alnnode.phantom.canvas import Canvas, Patch, Point
    from alnnode.phantom.node_plan import NodePlan
    from alnnode.records import FloatArray


@dataclass(frozen=True, slots=True)
class NodeCoordinates:
    """Coordinates along the axes of a node, mm; of a patch (sub-slices, rows, columns) or of single points."""

    p: FloatArray  # along the long axis
    q: FloatArray  # along the middle axis
    s: FloatArray  # along the short axis

    @property
    def radius(self) -> FloatArray:
        """The distance from the centre of the node, mm."""
        r: FloatArray = np.sqrt(self.p**2 + self.q**2 + self.s**2) + np.float32(1e-3)
        return r


def to_node_coordinates(patch: Patch, centre: Point, rotation: FloatArray) -> NodeCoordinates:
    """Return the node coordinates of a patch.

    Args:
        patch: the box of voxels.
        centre: of the node, patient mm.
        rotation: of the node (`node_plan.sample_orientation`).
    """
    dx, dy, dz = patch.x - np.float32(centre[0]), patch.y - np.float32(centre[1]), patch.z - np.float32(centre[2])
    p, q, s = (row[0] * dx + row[1] * dy + row[2] * dz for row in rotation)
    return NodeCoordinates(p, q, s)


def drawing_reach(plan: NodePlan) -> float:
    """Return the maximum distance from the centre of a node at which `draw_node` changes voxels, mm."""
    return plan.semi[0] * 1.35 + 9


def draw_node(canvas: Canvas, plan: NodePlan, centre: Point, rotation: FloatArray, soft: float) -> tuple[Patch, FloatArray]:
    """Draw a node.

    Args:
        canvas: the volume that the node is drawn in.
        plan: the properties of the node.
        centre: patient coordinates, mm.
        rotation: as `node_plan.sample_orientation` returns it.
        soft: width of soft edges, mm.

    Returns:
        The patch of the node, and its coverage (0 to 1, hilum included) in the shape of the patch's box.

    Raises:
        ValueError: the node lies outside the canvas.
    """
    rng = np.random.default_rng(plan.seed)
    patch = canvas.patch(centre, drawing_reach(plan))
    if patch is None:
        raise ValueError("the node lies outside the canvas")
    local = to_node_coordinates(patch, centre, rotation)
    radius = local.radius
    depth = surface_depth(local, radius, plan, rng)
    box = canvas.hu[patch.where]
    if plan.stranding:
        _draw_stranding(box, patch.average(stranding_density(local, depth, rng)), plan)
    cover = np.clip(0.5 + depth / soft, 0, 1).astype(np.float32)
    value = tissue_hu(local, plan, depth, soft, rng)
    outline = patch.average(cover)
    body = patch.average(cover * value.astype(np.float32))
    box += body - outline * box
    return patch, outline


def tissue_hu(local: NodeCoordinates, plan: NodePlan, depth: FloatArray, soft: float, rng: np.random.Generator) -> FloatArray:
    """Return the HU of cortex, hilum and necrosis at each point inside a node.

    Args:
        local: the points.
        plan: the properties of the node.
        depth: under the surface of the node, as `surface_depth` returns it.
        soft: width of soft edges, mm.
        rng: the generator that `surface_depth` has used before.
    """
    wave = _waves(local, rng, 5, 2.2 / plan.semi[2])
    value = plan.cortex_hu + plan.mottle * wave
    if plan.fatty:
        fat = np.clip(0.5 + _fatty_depth(local, plan, depth) / soft, 0, 1)
        inner = float(rng.uniform(-108, -85)) + 8 * _waves(local, rng, 4, 0.5)
        if rng.random() < 0.5:  # a vessel along the hilum
            away = (local.q**2 + (local.s - np.float32(0.2 * plan.semi[2])) ** 2) / np.float32(0.7)
            inner = inner + 70 * np.exp(-away)
        value = value + fat * (inner - value)
    elif plan.hilum:
        fat = np.clip(0.5 + _hilum_depth(local, plan) / soft, 0, 1)
        value = value + fat * (float(rng.uniform(-95, -55)) - value)
    elif plan.malignant and plan.semi[2] > 7 and rng.random() < 0.3:  # necrosis
        value = value - 26 * np.clip((depth - 0.55 * plan.semi[2]) / 3, 0, 1)
    return np.asarray(value, np.float32)


def surface_depth(local: NodeCoordinates, radius: FloatArray, plan: NodePlan, rng: np.random.Generator) -> FloatArray:
    """Return the depth (mm, positive inside) under the surface of a node.

    Args:
        local: the points.
        radius: ``local.radius``.
        plan: the properties of the node.
        rng: a new generator, seeded with ``plan.seed``.
    """
    a, b, c = (np.float32(v) for v in plan.semi)
    r = np.sqrt((local.p / a) ** 2 + (local.q / b) ** 2 + (local.s / c) ** 2) + np.float32(1e-3)
    unit = NodeCoordinates(local.p / radius, local.q / radius, local.s / radius)
    bumps = 1 + plan.lobulation * _waves(unit, rng, 5, 3.5)
    if plan.spiculation:
        bumps = bumps + 0.30 * plan.spiculation * np.clip(_waves(unit, rng, 8, 9.0) - 0.9, 0, 1.5)
    depth = radius * (np.clip(bumps, 0.6, 1.6) / r - 1)
    if plan.hilum and (plan.opening or not plan.fatty):  # reniform: a notch where the hilum opens
        notch = np.exp(-((local.p / (0.45 * a)) ** 2) - (local.q / (0.6 * b)) ** 2 - ((local.s - c) / (0.5 * c)) ** 2)
        depth = depth - notch * 0.35 * c
    return np.asarray(depth, np.float32)


def _hilum_depth(local: NodeCoordinates, plan: NodePlan) -> FloatArray:
    """Return the depth inside the fatty hilum, which opens towards the positive short axis."""
    a, b, c = plan.semi
    t = plan.cortex
    side = plan.eccentric * 0.5 * (a - t)
    ra, rb, rc = max(a - t - 0.5 * side, 0.25 * a), max(b - t, 0.25 * b), max(c - 0.5 * t, 0.3 * c)
    p, s = local.p - np.float32(side), local.s - np.float32(0.55 * t + 0.1 * c)
    r = np.sqrt((p / ra) ** 2 + (local.q / rb) ** 2 + (s / rc) ** 2)
    return np.asarray((1 - r) * min(ra, rb, rc), np.float32)


def _fatty_depth(local: NodeCoordinates, plan: NodePlan, depth: FloatArray) -> FloatArray:
    """Return the depth inside the fat of a fatty node; a C-shaped rim is open towards the positive short axis."""
    a, b, c = (np.float32(v) for v in plan.semi)
    p, q, s = local.p / a, local.q / b, local.s / c
    r = np.sqrt(p * p + q * q + s * s) + np.float32(1e-3)
    # ``depth`` is measured towards the centre, the thickness of the rim at right angles to the surface.
    steep = r * r / (local.radius * np.sqrt((p / a) ** 2 + (q / b) ** 2 + (s / c) ** 2) + np.float32(1e-3))
    up = s / r
    rim = np.clip(plan.cortex * (1 - 0.5 * plan.eccentric * up), 0.8, 2.0)
    if plan.opening:
        rim = rim * (1 - np.clip((up - np.cos(plan.opening)) * 5, 0, 1))
    return np.asarray(depth * steep - rim, np.float32)


def _draw_stranding(box: FloatArray, density: FloatArray, plan: NodePlan) -> None:
    """Draw hazy fat with fine strands around an infiltrating node; both arrays have the shape of the patch's box."""
    haze = density * (52 * plan.stranding)
    box += haze * np.clip((-30 - box) / 60, 0, 1)


def stranding_density(local: NodeCoordinates, depth: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return the density (0 or more) of the stranding in the fat around an infiltrating node.

    Args:
        local: the points.
        depth: under the surface of the node, mm.
        rng: the generator that `surface_depth` has used before.
    """
    near = np.exp(np.minimum(depth, 0) / np.float32(3.2)) * (depth < 0.5)
    web = np.clip(1 - np.abs(_waves(local, rng, 6, 0.9)) * 2.2, 0, 1)
    haze: FloatArray = (near * (0.45 + 0.9 * web)).astype(np.float32)
    return haze


def _waves(local: NodeCoordinates, rng: np.random.Generator, count: int, frequency: float) -> FloatArray:
    """Return a smooth random field of zero mean and about unit deviation, as a sum of ``count`` cosines."""
    total = np.zeros(np.broadcast_shapes(local.p.shape, local.q.shape, local.s.shape), np.float32)
    for _ in range(count):
        kp, kq, ks = rng.normal(0, frequency, 3).astype(np.float32)
        total += np.cos(kp * local.p + kq * local.q + ks * local.s + np.float32(rng.uniform(0, 2 * np.pi)))
    total *= np.float32(np.sqrt(2 / count))
    return total
