"""Phantom nodes put into a real CT: for training, and to see what a detector misses where the surroundings are not drawn.

A node is drawn over the *smoothed* CT and the difference is added to the CT itself, so that the scanner's own noise stays where the
node is. Single nodes lie in fat of the search region, clear of everything else, as on a plain phantom. `Groups` asks for nodes of all
kinds, clusters and contact, with point spread, noise and contrast phase measured in the CT (`training.data.implant_matching`). Real nodes of the
patient are known only as far as ``exclude`` tells them: a mark on another one counts as a false positive.
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
from alnnode.phantom.group_drawing import draw_group
from alnnode.phantom.group_plan import PlannedNode, group_extent, plan_group
from alnnode.phantom.measure import diameters
from alnnode.phantom.node_drawing import draw_node, to_node_coordinates
from alnnode.phantom.node_plan import plan_node, sample_orientation
from alnnode.phantom.patient_parameters import sample_patient
from alnnode.phantom.settings import PhantomSettings
from alnnode.records import Side, SliceRef, Volume
from training.data import implant_matching

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.locate.grid import Coarse
    from alnnode.phantom.canvas import Patch, Point
    from alnnode.phantom.node_plan import NodePlan
    from alnnode.phantom.patient_parameters import PatientParameters
    from alnnode.records import AffineMatrix, FloatArray, Level

SMOOTH_MM = 0.8
TRIES = 400
FAT_HU = (-160.0, -45.0)
CLEAR = 0.03  # share of the node's place that may be something else than fat
TOUCHING = 0.35  # the same for nodes that may lie on a muscle, a vessel or the chest wall
DENSE_HU = 250.0  # bone and metal: nothing is put over them


@dataclass(frozen=True, slots=True)
class Groups:
    """How groups of nodes are put in.

    Attributes:
        clusters: share of groups with more than one node.
        touching: share of groups that may touch what lies around.
        not_fat: of those, the share of a group's place that may be something else than fat.
    """

    clusters: float = 0.45
    touching: float = 0.5
    not_fat: float = TOUCHING


@dataclass(frozen=True, slots=True)
class ImplantedNode:
    """What is known of one node that was put in (`examine.TrueNode`)."""

    number: int
    side: Side
    malignant: bool
    short_axis_mm: float
    centre_mm: tuple[float, float, float]
    level: Level | None = None  # nobody drew a pectoralis minor
    group: int = 0  # the number of the first node of its cluster; its own when it is alone
    fatty: bool = False


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


@dataclass(frozen=True, slots=True)
class Prepared:
    """A CT whose axillae and properties have been found: what every implantation into it shares."""

    frame: Frame
    hu: npt.NDArray[np.int16]
    smooth: FloatArray
    regions: list[tuple[Side, npt.NDArray[np.int64]]]
    measured: implant_matching.Source

    @classmethod
    def of(cls, source: Volume) -> Prepared:
        """Find the axillae of a CT and measure it: seconds, where an implantation takes a fraction of one."""
        frame = Frame.of(source)
        hu = np.ascontiguousarray(frame.canonical(source.voxels))
        coarse = coarsen(hu, frame.spacing)
        chest = anatomy.find_chest(coarse)
        smooth = ndimage.gaussian_filter(hu.astype(np.float32), [SMOOTH_MM / d for d in frame.spacing], truncate=2.5)
        measured = implant_matching.measure(hu, smooth, frame.spacing, coarse, chest) if chest else implant_matching.UNKNOWN
        return cls(frame, hu, smooth, _regions(coarse, chest), measured)


def implant(
    source: Volume | Prepared,
    seed: int,
    per_side: int,
    groups: Groups | None = None,
    exclude: npt.NDArray[np.bool_] | None = None,
) -> Implanted:
    """Put nodes into each axilla that has room; the same arguments give the same volume.

    Args:
        source: a CT.
        seed: of what is drawn and where.
        per_side: single nodes, or groups, in each axilla; fewer where there is no room.
        groups: how groups are put in; None puts in single nodes in fat, with the usual point spread, as if without contrast.
        exclude: the shape of the source's voxels: where nothing may be put, such as the patient's own nodes.
    """
    rng = np.random.default_rng([seed, 7])
    prepared = source if isinstance(source, Prepared) else Prepared.of(source)
    work = _Work.of(prepared, implant_matching.UNKNOWN if groups is None else prepared.measured, exclude)
    habit = replace(sample_patient(rng, PhantomSettings()), phase=work.measured.phase, psf=work.measured.soft)
    for side, region in prepared.regions:
        for _ in range(per_side):
            if groups is None:
                _put_node(work, side, region, plan_node(rng, bool(rng.random() < 0.5), habit), rng)
            else:
                _put_group(work, side, region, groups, habit, rng)
    filled = prepared.hu + work.canvas.hu - work.smooth
    if groups is not None:
        filled += _noise(work, rng)
    dz, dy = work.canvas.thickness, work.canvas.spacing
    voxels = np.clip(np.rint(filled), -1024, 3071).astype(np.int16)
    refs = tuple(SliceRef("", "", None, (0.0, 0.0, n * dz)) for n in range(len(voxels)))
    return Implanted(Volume(voxels, work.affine, refs, Dataset(), (dz, dy, dy)), work.labels, tuple(work.nodes))


@dataclass(frozen=True, slots=True)
class _Work:
    """A CT while nodes are put in; ``taken`` holds what is excluded."""

    smooth: FloatArray
    canvas: Canvas
    measured: implant_matching.Source
    taken: npt.NDArray[np.bool_] | None
    labels: npt.NDArray[np.uint16]
    nodes: list[ImplantedNode]
    affine: AffineMatrix

    @classmethod
    def of(cls, prepared: Prepared, measured: implant_matching.Source, exclude: npt.NDArray[np.bool_] | None) -> _Work:
        dz, dy, _ = prepared.frame.spacing
        affine = np.eye(4)
        affine[:3, :3] = [[0, 0, dy], [0, dy, 0], [dz, 0, 0]]
        canvas = Canvas(prepared.smooth.copy(), (0.0, 0.0, 0.0), dy, dz)
        taken = None if exclude is None else prepared.frame.canonical(exclude)
        return cls(prepared.smooth, canvas, measured, taken, np.zeros(prepared.hu.shape, np.uint16), [], affine)


def _regions(coarse: Coarse, chest: anatomy.Chest | None) -> list[tuple[Side, npt.NDArray[np.int64]]]:
    """Voxels (z, y, x) of the search region of each side, one per coarse grid point."""
    if chest is None:
        return []
    return [
        (axilla.side, np.argwhere(axilla.mask) * np.array(coarse.step))
        for axilla in anatomy.find_axillae(coarse, chest)
        if axilla.mask.any()
    ]


def _put_node(work: _Work, side: Side, region: npt.NDArray[np.int64], plan: NodePlan, rng: np.random.Generator) -> None:
    canvas = work.canvas
    margin = 0.8 + 2.5 * plan.lobulation
    for _ in range(TRIES):
        centre = _somewhere(canvas, region, rng)
        node = PlannedNode(plan, sample_orientation(rng), (0.0, 0.0, 0.0))
        if not canvas.contains_sphere(centre, plan.semi[0] + 2) or not _is_free(work, (node,), centre, margin, CLEAR):
            continue
        painted = draw_node(canvas, plan, centre, node.rotation, implant_matching.UNKNOWN.soft)
        _note(work, side, plan, painted, len(work.nodes) + 1)
        return


def _put_group(
    work: _Work,
    side: Side,
    region: npt.NDArray[np.int64],
    groups: Groups,
    habit: PatientParameters,
    rng: np.random.Generator,
) -> None:
    group = plan_group(rng, habit, groups.clusters)
    most = groups.not_fat if rng.random() < groups.touching else CLEAR
    reach = max(group_extent(group))
    for _ in range(TRIES):
        centre = _somewhere(work.canvas, region, rng)
        if not work.canvas.contains_sphere(centre, reach) or not _is_free(work, group, centre, 0.8, most):
            continue
        first = len(work.nodes) + 1
        for node, painted in zip(group, draw_group(work.canvas, group, centre, habit.psf), strict=True):
            _note(work, side, node.plan, painted, first)
        return


def _somewhere(canvas: Canvas, region: npt.NDArray[np.int64], rng: np.random.Generator) -> Point:
    z, y, x = (float(v) for v in region[rng.integers(len(region))])
    return x * canvas.spacing, y * canvas.spacing, z * canvas.thickness


def _is_free(work: _Work, group: tuple[PlannedNode, ...], centre: Point, margin: float, most: float) -> bool:
    """Return whether a group has room: at most the share ``most`` is no fat, nothing of it is bone, excluded or another node."""
    seen = []
    for node in group:
        at = (centre[0] + node.offset[0], centre[1] + node.offset[1], centre[2] + node.offset[2])
        patch = work.canvas.patch(at, node.plan.semi[0] + 3)
        if patch is None:
            return False
        local = to_node_coordinates(replace(patch, z=patch.z[1::3]), at, node.rotation)
        r = sum((axis / (s + margin)) ** 2 for axis, s in zip((local.p, local.q, local.s), node.plan.semi, strict=True))
        inside = np.asarray(r) < 1
        if work.labels[patch.where][inside].any() or (work.taken is not None and work.taken[patch.where][inside].any()):
            return False
        seen.append(work.smooth[patch.where][inside])
    values = np.concatenate(seen)
    fat = (values > FAT_HU[0]) & (values < FAT_HU[1])
    return bool(values.size and np.mean(~fat) < most and (most == CLEAR or values.max() < DENSE_HU))


def _noise(work: _Work, rng: np.random.Generator) -> FloatArray:
    """Return the slow part of the noise within the nodes: they were drawn over the smoothed CT, which keeps it elsewhere."""
    added = np.zeros(work.smooth.shape, np.float32)
    if not work.nodes:
        return added
    (box,) = ndimage.find_objects((work.labels > 0).astype(np.uint8))
    inside = ndimage.gaussian_filter((work.labels[box] > 0).astype(np.float32), [0, 0.7, 0.7])
    sigma = SMOOTH_MM / work.canvas.spacing
    slow = ndimage.gaussian_filter(rng.standard_normal(inside.shape, dtype=np.float32), [0, sigma, sigma])
    added[box] = inside * slow * (work.measured.noise_lacking / max(float(slow.std()), 1e-6))
    return added


def _note(work: _Work, side: Side, plan: NodePlan, painted: tuple[Patch, FloatArray], first: int) -> None:
    """Label a node that was painted and write down what is known of it."""
    patch, cover = painted
    mask = cover > min(0.5, 0.6 * float(cover.max()))
    number = len(work.nodes) + 1
    work.labels[patch.where][mask] = number
    work.nodes.append(replace(_known(number, side, plan, patch, mask, work.affine), group=first, fatty=plan.fatty))


def _known(
    number: int, side: Side, plan: NodePlan, patch: Patch, mask: npt.NDArray[np.bool_], affine: AffineMatrix
) -> ImplantedNode:
    largest = int(np.argmax(mask.sum(axis=(1, 2))))
    _, short_axis = diameters(mask[largest], float(affine[0, 2]))
    start = np.array([part.start for part in patch.where])
    centre = affine @ np.array([*(start + np.argwhere(mask).mean(axis=0)), 1.0])
    return ImplantedNode(number, side, plan.malignant, short_axis, (float(centre[0]), float(centre[1]), float(centre[2])))
