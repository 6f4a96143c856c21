"""Lymph nodes: what is drawn of them, and how.

The distributions follow what is published of benign and metastatic axillary nodes (docs/phantom.md says which figure comes
from where). They overlap on purpose: no single property tells the classes apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alnnode.phantom.settings import Phase

if TYPE_CHECKING:
    from alnnode.phantom.canvas import Canvas, Patch, Point
    from alnnode.phantom.patient_parameters import PatientParameters
    from alnnode.records import FloatArray

_ATYPICAL = 0.03  # share of nodes that look like the other class throughout: early metastasis, reactive node


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node before it is drawn; lengths in mm, HU without noise."""

    malignant: bool
    semi: tuple[float, float, float]  # long, middle, short semi-axis
    hilum: bool
    cortex: float
    eccentric: float  # 0 = cortex of one thickness, 1 = all on one side
    lobulation: float
    spiculation: float
    stranding: float  # density of the fat around, 0 to 1
    cortex_hu: float
    mottle: float
    seed: int
    fatty: bool = False  # replaced by fat but for a rim that is ``cortex`` thick
    opening: float = 0.0  # half angle of the gap in the rim of a fatty node, rad: 0 = a closed ring, else a C


def plan_fatty_node(rng: np.random.Generator, patient: PatientParameters) -> NodePlan:
    """Draw the properties of a benign node that fat has replaced: a rim of 0.8 to 2 mm, closed or C-shaped, short axis 6 to 16 mm."""
    short = float(np.clip(rng.lognormal(np.log(9.0), 0.28), 6.0, 16.0))
    ratio = float(np.clip(rng.normal(1.6, 0.3), 1.05, 2.4))
    enhancement = {Phase.NONE: 0.0, Phase.ARTERIAL: 18.0, Phase.VENOUS: 28.0}[patient.phase]
    return NodePlan(
        malignant=False,
        semi=(short * ratio / 2, short * (1 + (ratio - 1) * float(rng.uniform(0.2, 0.9))) / 2, short / 2),
        hilum=True,
        cortex=float(rng.uniform(0.8, 2.0)),
        eccentric=float(rng.uniform(0, 0.8)),
        lobulation=abs(float(rng.normal(0.035, 0.03))),
        spiculation=0.0,
        stranding=float(rng.uniform(0.2, 0.6)) if rng.random() < 0.10 else 0.0,
        cortex_hu=float(rng.normal(36, 9)) + enhancement,
        mottle=abs(float(rng.normal(4, 2))),
        seed=int(rng.integers(2**31)),
        fatty=True,
        opening=0.0 if rng.random() < 0.40 else float(rng.uniform(0.6, 1.8)),
    )


def plan_node(rng: np.random.Generator, malignant: bool, patient: PatientParameters) -> NodePlan:
    """Draw the properties of a node."""
    look = malignant != (rng.random() < _ATYPICAL)
    short = float(np.clip(rng.lognormal(np.log(10.2 if look else 6.4), 0.40 if look else 0.28), 4.0, 25.0 if look else 14.0))
    ratio = float(np.clip(rng.normal(1.30 if look else 1.75, 0.20 if look else 0.30), 1.05, 2.6))
    hilum = bool(rng.random() < (0.43 if look else 0.80))
    thin = float(rng.lognormal(np.log(4.0 if look else 1.5), 0.40))
    if short < 5.0 and look:
        hilum = hilum and bool(rng.random() < 0.6)  # a small node has no room for both
    thin = min(thin, 0.36 * short)
    enhancement = {Phase.NONE: (0.0, 0.0), Phase.ARTERIAL: (22.0, 30.0), Phase.VENOUS: (34.0, 42.0)}[patient.phase][int(look)]
    return NodePlan(
        malignant=malignant,
        semi=(short * ratio / 2, short * (1 + (ratio - 1) * float(rng.uniform(0.2, 0.9))) / 2, short / 2),
        hilum=hilum,
        cortex=thin if hilum else short,
        eccentric=float(np.clip(rng.normal(0.45 if look else 0.12, 0.22), 0, 1)),
        lobulation=abs(float(rng.normal(0.10 if look else 0.035, 0.03))),
        spiculation=float(rng.uniform(0.4, 1.0)) if rng.random() < (0.48 if look else 0.05) else 0.0,
        stranding=float(rng.uniform(0.25, 1.0)) if rng.random() < (0.52 if look else 0.10) else 0.0,
        cortex_hu=float(rng.normal(49 if look else 35, 8.5)) + enhancement + float(rng.normal(0, 6 if enhancement else 0)),
        mottle=abs(float(rng.normal(7 if look else 4, 3))),
        seed=int(rng.integers(2**31)),
    )


def draw_orientation(rng: np.random.Generator) -> FloatArray:
    """Return a rotation (3, 3) whose rows are the node's long, middle and short axis in patient coordinates."""
    turn, lean, roll = rng.uniform(0, np.pi), rng.normal(0, 0.35), rng.normal(0, 0.35)
    long_axis = np.array([np.cos(turn) * np.cos(lean), np.sin(turn) * np.cos(lean), np.sin(lean)])
    up = np.array([0.0, 0.0, 1.0])
    short_axis = np.cross(long_axis, up)
    short_axis /= np.linalg.norm(short_axis)
    middle = np.cross(short_axis, long_axis)
    short_rolled = short_axis * np.cos(roll) + middle * np.sin(roll)
    rotation: FloatArray = np.stack([long_axis, np.cross(short_rolled, long_axis), short_rolled]).astype(np.float32)
    return rotation


@dataclass(frozen=True, slots=True)
class Local:
    """A node's own coordinates, mm: over a patch (sub-slices, rows, columns), or of single points."""

    p: FloatArray  # along the long axis
    q: FloatArray
    s: FloatArray  # along the short axis

    @property
    def radius(self) -> FloatArray:
        """Distance from the centre."""
        r: FloatArray = np.sqrt(self.p**2 + self.q**2 + self.s**2) + np.float32(1e-3)
        return r


def localise(patch: Patch, centre: Point, rotation: FloatArray) -> Local:
    """Return the coordinates of a node with this centre and rotation over a patch."""
    dx, dy, dz = patch.x - np.float32(centre[0]), patch.y - np.float32(centre[1]), patch.z - np.float32(centre[2])
    p, q, s = (row[0] * dx + row[1] * dy + row[2] * dz for row in rotation)
    return Local(p, q, s)


def drawing_reach(plan: NodePlan) -> float:
    """Return how far from its centre `draw_node` may paint, mm."""
    return plan.semi[0] * 1.35 + 9


def draw_node(canvas: Canvas, plan: NodePlan, centre: Point, rotation: FloatArray, soft: float) -> tuple[Patch, FloatArray]:
    """Paint a node and return its patch and coverage (hilum included), shape of the patch's box.

    Raises:
        ValueError: the node lies outside the canvas.
    """
    rng = np.random.default_rng(plan.seed)
    patch = canvas.patch(centre, drawing_reach(plan))
    if patch is None:
        raise ValueError("the node lies outside the canvas")
    local = localise(patch, centre, rotation)
    radius = local.radius
    depth = outer_depth(local, radius, plan, rng)
    _strand(canvas, patch, plan, depth, local, rng)
    cover = np.clip(0.5 + depth / soft, 0, 1).astype(np.float32)
    value = substance(local, plan, depth, soft, rng)
    outline = patch.average(cover)
    body = patch.average(cover * value.astype(np.float32))
    box = canvas.hu[patch.where]
    box += body - outline * box
    return patch, outline


def substance(local: Local, plan: NodePlan, depth: FloatArray, soft: float, rng: np.random.Generator) -> FloatArray:
    """Return HU of cortex, hilum and necrosis at each point inside a node; `outer_depth` has been drawn from ``rng``."""
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


def outer_depth(local: Local, radius: FloatArray, plan: NodePlan, rng: np.random.Generator) -> FloatArray:
    """Return the depth (mm, positive inside) under the node's surface; ``rng`` is fresh from the seed of ``plan``."""
    a, b, c = (np.float32(v) for v in plan.semi)
    r = np.sqrt((local.p / a) ** 2 + (local.q / b) ** 2 + (local.s / c) ** 2) + np.float32(1e-3)
    unit = Local(local.p / radius, local.q / radius, local.s / radius)
    bumps = 1 + plan.lobulation * _waves(unit, rng, 5, 3.5)
    if plan.spiculation:
        bumps = bumps + 0.30 * plan.spiculation * np.clip(_waves(unit, rng, 8, 9.0) - 0.9, 0, 1.5)
    depth = radius * (np.clip(bumps, 0.6, 1.6) / r - 1)
    if plan.hilum and (plan.opening or not plan.fatty):  # reniform: the surface is drawn in where the hilum opens
        notch = np.exp(-((local.p / (0.45 * a)) ** 2) - (local.q / (0.6 * b)) ** 2 - ((local.s - c) / (0.5 * c)) ** 2)
        depth = depth - notch * 0.35 * c
    return np.asarray(depth, np.float32)


def _hilum_depth(local: Local, plan: NodePlan) -> FloatArray:
    """Return the depth inside the fatty hilum, which opens towards +short axis."""
    a, b, c = plan.semi
    t = plan.cortex
    side = plan.eccentric * 0.5 * (a - t)
    ra, rb, rc = max(a - t - 0.5 * side, 0.25 * a), max(b - t, 0.25 * b), max(c - 0.5 * t, 0.3 * c)
    p, s = local.p - np.float32(side), local.s - np.float32(0.55 * t + 0.1 * c)
    r = np.sqrt((p / ra) ** 2 + (local.q / rb) ** 2 + (s / rc) ** 2)
    return np.asarray((1 - r) * min(ra, rb, rc), np.float32)


def _fatty_depth(local: Local, plan: NodePlan, depth: FloatArray) -> FloatArray:
    """Return the depth inside the fat of a fatty node: what lies under its rim, which is open towards +short axis in a C."""
    a, b, c = (np.float32(v) for v in plan.semi)
    p, q, s = local.p / a, local.q / b, local.s / c
    r = np.sqrt(p * p + q * q + s * s) + np.float32(1e-3)
    # ``depth`` runs towards the centre: the rim is measured at right angles to the surface.
    steep = r * r / (local.radius * np.sqrt((p / a) ** 2 + (q / b) ** 2 + (s / c) ** 2) + np.float32(1e-3))
    up = s / r
    rim = np.clip(plan.cortex * (1 - 0.5 * plan.eccentric * up), 0.8, 2.0)
    if plan.opening:
        rim = rim * (1 - np.clip((up - np.cos(plan.opening)) * 5, 0, 1))
    return np.asarray(depth * steep - rim, np.float32)


def _strand(canvas: Canvas, patch: Patch, plan: NodePlan, depth: FloatArray, local: Local, rng: np.random.Generator) -> None:
    """Paint the fat around an infiltrating node: hazy, with fine strands."""
    if not plan.stranding:
        return
    haze = patch.average(haze_around(local, depth, rng)) * (52 * plan.stranding)
    box = canvas.hu[patch.where]
    box += haze * np.clip((-30 - box) / 60, 0, 1)


def haze_around(local: Local, depth: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return the density, from 0 up, of what an infiltrating node leaves in the fat around it."""
    near = np.exp(np.minimum(depth, 0) / np.float32(3.2)) * (depth < 0.5)
    web = np.clip(1 - np.abs(_waves(local, rng, 6, 0.9)) * 2.2, 0, 1)
    haze: FloatArray = (near * (0.45 + 0.9 * web)).astype(np.float32)
    return haze


def _waves(local: Local, rng: np.random.Generator, count: int, frequency: float) -> FloatArray:
    """Return a smooth random field of zero mean and about unit deviation: a sum of cosines."""
    total = np.zeros(np.broadcast_shapes(local.p.shape, local.q.shape, local.s.shape), np.float32)
    for _ in range(count):
        kp, kq, ks = rng.normal(0, frequency, 3).astype(np.float32)
        total += np.cos(kp * local.p + kq * local.q + ks * local.s + np.float32(rng.uniform(0, 2 * np.pi)))
    total *= np.float32(np.sqrt(2 / count))
    return total
