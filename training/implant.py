"""Phantom nodes put into a real CT: what a detector misses and takes for a node where the surroundings are not drawn.

A node is drawn over the *smoothed* CT and the difference is added to the CT itself, so that the scanner's own noise stays where the
node is. The point spread is that of the phantom (`soft`), the slice profile comes from the canvas. Places are in fat of the search
region, clear of everything else, as on a phantom. Real nodes of the patient are not known: a mark on one counts as a false positive.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from pydicom import Dataset
from scipy import ndimage

from alnnode.locate import anatomy
from alnnode.locate.grid import Frame, coarsen
from alnnode.phantom.canvas import Canvas
from alnnode.phantom.measure import diameters
from alnnode.phantom.nodes import draw_node, draw_orientation, plan_node
from alnnode.phantom.settings import PhantomSettings, Phase, draw_habit
from alnnode.records import Side, SliceRef, Volume

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.phantom.canvas import Patch, Point
    from alnnode.phantom.nodes import NodePlan
    from alnnode.records import AffineMatrix, FloatArray, Level

POINT_SPREAD_MM = 1.3
TRIES = 400
FAT_HU = (-160.0, -45.0)
CLEAR = 0.03  # share of the node's place that may be something else than fat


@dataclass(frozen=True, slots=True)
class ImplantedNode:
    """What is known of one node that was put in (`examine.TrueNode`)."""

    number: int
    side: Side
    malignant: bool
    short_axis_mm: float
    centre_mm: tuple[float, float, float]
    level: Level | None = None  # nobody drew a pectoralis minor


@dataclass(frozen=True, slots=True)
class Implanted:
    """A real CT with phantom nodes.

    Attributes:
        volume: in canonical orientation (rows to the back, columns to the left, slices from the feet), its origin at (0, 0, 0).
        labels: uint16, the shape of the voxels: 0, or the number of the node.
    """

    volume: Volume
    labels: npt.NDArray[np.uint16]
    nodes: tuple[ImplantedNode, ...]


def implant(source: Volume, seed: int, per_side: int) -> Implanted:
    """Put up to ``per_side`` nodes into each axilla that has room in fat; the same arguments give the same volume."""
    rng = np.random.default_rng([seed, 7])
    frame = Frame.of(source)
    hu = np.ascontiguousarray(frame.canonical(source.voxels))
    dz, dy, _ = frame.spacing
    regions = _regions(hu, frame)
    smooth = ndimage.gaussian_filter(hu.astype(np.float32), [0.8 / d for d in frame.spacing], truncate=2.5)
    canvas = Canvas(smooth.copy(), (0.0, 0.0, 0.0), dy, dz)
    labels = np.zeros(hu.shape, np.uint16)
    affine = np.eye(4)
    affine[:3, :3] = [[0, 0, dy], [0, dy, 0], [dz, 0, 0]]
    habit = replace(draw_habit(rng, PhantomSettings()), phase=Phase.NONE)
    nodes: list[ImplantedNode] = []
    for side, region in regions:
        for _ in range(per_side):
            plan = plan_node(rng, bool(rng.random() < 0.5), habit)
            painted = _place(canvas, smooth, labels, region, plan, rng)
            if painted is None:
                continue
            patch, mask = painted
            labels[patch.where][mask] = len(nodes) + 1
            nodes.append(_known(len(nodes) + 1, side, plan, patch, mask, affine))
    voxels = np.clip(np.rint(hu + canvas.hu - smooth), -1024, 3071).astype(np.int16)
    refs = tuple(SliceRef("", "", None, (0.0, 0.0, n * dz)) for n in range(len(voxels)))
    return Implanted(Volume(voxels, affine, refs, Dataset(), (dz, dy, dy)), labels, tuple(nodes))


def _regions(hu: npt.NDArray[np.int16], frame: Frame) -> list[tuple[Side, npt.NDArray[np.int64]]]:
    """Voxels (z, y, x) of the search region of each side, one per coarse grid point."""
    coarse = coarsen(hu, frame.spacing)
    chest = anatomy.find_chest(coarse)
    if chest is None:
        return []
    return [
        (axilla.side, np.argwhere(axilla.mask) * np.array(coarse.step))
        for axilla in anatomy.find_axillae(coarse, chest)
        if axilla.mask.any()
    ]


def _place(
    canvas: Canvas,
    smooth: FloatArray,
    labels: npt.NDArray[np.uint16],
    region: npt.NDArray[np.int64],
    plan: NodePlan,
    rng: np.random.Generator,
) -> tuple[Patch, npt.NDArray[np.bool_]] | None:
    for _ in range(TRIES):
        z, y, x = (float(v) for v in region[rng.integers(len(region))])
        centre = (x * canvas.spacing, y * canvas.spacing, z * canvas.thickness)
        rotation = draw_orientation(rng)
        if not canvas.holds(centre, plan.semi[0] + 2) or not _is_free(canvas, smooth, labels, plan, centre, rotation):
            continue
        patch, cover = draw_node(canvas, plan, centre, rotation, POINT_SPREAD_MM)
        return patch, cover > min(0.5, 0.6 * float(cover.max()))
    return None


def _is_free(
    canvas: Canvas, smooth: FloatArray, labels: npt.NDArray[np.uint16], plan: NodePlan, centre: Point, rotation: FloatArray
) -> bool:
    patch = canvas.patch(centre, plan.semi[0] + 3)
    if patch is None:
        return False
    z = patch.z[1::3]
    dx, dy, dz = patch.x - np.float32(centre[0]), patch.y - np.float32(centre[1]), z - np.float32(centre[2])
    margin = 0.8 + 2.5 * plan.lobulation
    r = sum(((row[0] * dx + row[1] * dy + row[2] * dz) / (s + margin)) ** 2 for row, s in zip(rotation, plan.semi, strict=True))
    inside = np.asarray(r) < 1
    values = smooth[patch.where][inside]
    fat = (values > FAT_HU[0]) & (values < FAT_HU[1])
    return bool(values.size and np.mean(~fat) < CLEAR and not labels[patch.where][inside].any())


def _known(
    number: int, side: Side, plan: NodePlan, patch: Patch, mask: npt.NDArray[np.bool_], affine: AffineMatrix
) -> ImplantedNode:
    largest = int(np.argmax(mask.sum(axis=(1, 2))))
    _, short_axis = diameters(mask[largest], float(affine[0, 2]))
    start = np.array([part.start for part in patch.where])
    centre = affine @ np.array([*(start + np.argwhere(mask).mean(axis=0)), 1.0])
    return ImplantedNode(number, side, plan.malignant, short_axis, (float(centre[0]), float(centre[1]), float(centre[2])))
