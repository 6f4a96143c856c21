"""Implant phantom nodes into a real CT, for training and to measure a detector in real surroundings.

Single nodes lie in fat of the search region, apart from everything else, as on a plain phantom. `GroupSettings` asks for nodes of all
kinds, for clusters and for contact, with the point spread, noise and contrast phase of the CT (`training.data.ct_properties`). The
patient's own nodes are known only through ``exclude``: a mark on any other real node counts as a false positive.
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
from training.data import ct_properties
from training.data.drawn_nodes import SMOOTH_MM, fat_mask, node_mask, smooth_ct

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.locate.chest import Chest
    from alnnode.locate.grid import Coarse
    from alnnode.phantom.canvas import Patch, Point
    from alnnode.phantom.node_plan import NodePlan
    from alnnode.phantom.patient_parameters import PatientParameters
    from alnnode.records import AffineMatrix, FloatArray, Level

    Region = npt.NDArray[np.int64]

TRIES = 400
CLEAR = 0.03  # largest share of a node's voxels that may be something else than fat
TOUCHING = 0.35  # the same for nodes that may touch a muscle, a vessel or the chest wall
DENSE_HU = 250.0  # bone and metal: no node is drawn over them


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """How groups of nodes are implanted.

    Attributes:
        clusters: share of groups with more than one node.
        touching: share of groups that may touch other structures.
        not_fat: largest share of such a group's voxels that may be something else than fat.
    """

    clusters: float = 0.45
    touching: float = 0.5
    not_fat: float = TOUCHING


@dataclass(frozen=True, slots=True)
class ImplantedNode:
    """The truth of one implanted node (`training.evaluate.detection_matching.TrueNode`).

    Attributes:
        level: always None, because a real CT has no drawn pectoralis minor.
        group: number of the first node of its cluster; its own number when it is alone.
    """

    number: int
    side: Side
    malignant: bool
    short_axis_mm: float
    centre_mm: tuple[float, float, float]
    level: Level | None = None
    group: int = 0
    fatty: bool = False


@dataclass(frozen=True, slots=True)
class ImplantedCt:
    """A real CT with phantom nodes.

    Attributes:
        volume: in canonical orientation (rows to the back, columns to the left, slices from the feet), its origin at (0, 0, 0).
        labels: uint16, the shape of the voxels: 0, or the number of the node.
    """

    volume: Volume
    labels: npt.NDArray[np.uint16]
    nodes: tuple[ImplantedNode, ...]


@dataclass(frozen=True, slots=True)
class PreparedCt:
    """A CT with its axillae and properties, which all implantations into it share."""

    frame: Frame
    hu: npt.NDArray[np.int16]
    smooth: FloatArray
    regions: list[tuple[Side, Region]]
    measured: ct_properties.CtProperties

    @classmethod
    def from_volume(cls, source: Volume) -> PreparedCt:
        """Find the axillae of a CT and measure its properties; this takes seconds, an implantation a fraction of a second."""
        frame = Frame.of(source)
        hu = np.ascontiguousarray(frame.canonical(source.voxels))
        coarse = coarsen(hu, frame.spacing)
        chest = anatomy.find_chest(coarse)
        smooth = smooth_ct(hu.astype(np.float32), frame.spacing)
        measured = ct_properties.UNKNOWN_CT
        if chest:
            measured = ct_properties.measure_ct(hu, smooth, frame.spacing, coarse, chest)
        return cls(frame, hu, smooth, _regions(coarse, chest), measured)


def implant_nodes(
    source: Volume | PreparedCt,
    seed: int,
    per_side: int,
    groups: GroupSettings | None = None,
    exclude: npt.NDArray[np.bool_] | None = None,
) -> ImplantedCt:
    """Implant nodes into each axilla that has room; the same arguments give the same volume.

    Args:
        source: a CT.
        seed: decides what is drawn and where.
        per_side: single nodes, or groups, for each axilla; fewer when there is no room.
        groups: how groups are implanted; None implants single nodes in fat with the usual point spread and without contrast.
        exclude: the shape of the source's voxels: no node is implanted there, such as on the patient's own nodes.
    """
    rng = np.random.default_rng([seed, 7])
    prepared = source if isinstance(source, PreparedCt) else PreparedCt.from_volume(source)
    measured = ct_properties.UNKNOWN_CT if groups is None else prepared.measured
    patient = replace(sample_patient(rng, PhantomSettings()), phase=measured.phase, psf=measured.edge_width_mm)
    work = _Implantation.into(prepared, measured, patient, rng, exclude)
    for side, region in prepared.regions:
        for _ in range(per_side):
            if groups is None:
                _implant_node(work, side, region, plan_node(rng, bool(rng.random() < 0.5), patient))
            else:
                _implant_group(work, side, region, groups)
    filled = prepared.hu + work.canvas.hu - work.smooth
    if groups is not None:
        filled += _missing_noise(work)
    dz, dy = work.canvas.thickness, work.canvas.spacing
    voxels = np.clip(np.rint(filled), -1024, 3071).astype(np.int16)
    refs = tuple(SliceRef("", "", None, (0.0, 0.0, n * dz)) for n in range(len(voxels)))
    return ImplantedCt(Volume(voxels, work.affine, refs, Dataset(), (dz, dy, dy)), work.labels, tuple(work.nodes))


@dataclass(frozen=True, slots=True)
class _Implantation:
    """A CT while nodes are implanted into it.

    Attributes:
        excluded: voxels in which no node may lie.
    """

    smooth: FloatArray
    canvas: Canvas
    measured: ct_properties.CtProperties
    patient: PatientParameters
    rng: np.random.Generator
    excluded: npt.NDArray[np.bool_] | None
    labels: npt.NDArray[np.uint16]
    nodes: list[ImplantedNode]
    affine: AffineMatrix

    @classmethod
    def into(
        cls,
        prepared: PreparedCt,
        measured: ct_properties.CtProperties,
        patient: PatientParameters,
        rng: np.random.Generator,
        exclude: npt.NDArray[np.bool_] | None,
    ) -> _Implantation:
        """Begin with an empty list of nodes."""
        dz, dy, _ = prepared.frame.spacing
        affine = np.eye(4)
        affine[:3, :3] = [[0, 0, dy], [0, dy, 0], [dz, 0, 0]]
        canvas = Canvas(prepared.smooth.copy(), (0.0, 0.0, 0.0), dy, dz)
        excluded = None if exclude is None else prepared.frame.canonical(exclude)
        labels = np.zeros(prepared.hu.shape, np.uint16)
        return cls(prepared.smooth, canvas, measured, patient, rng, excluded, labels, [], affine)


def _regions(coarse: Coarse, chest: Chest | None) -> list[tuple[Side, Region]]:
    """Return the voxels (z, y, x) of the search region of each side, one for each coarse grid point."""
    if chest is None:
        return []
    return [
        (axilla.side, np.argwhere(axilla.mask) * np.array(coarse.step))
        for axilla in anatomy.find_axillae(coarse, chest)
        if axilla.mask.any()
    ]


def _implant_node(work: _Implantation, side: Side, region: Region, plan: NodePlan) -> None:
    canvas = work.canvas
    margin = 0.8 + 2.5 * plan.lobulation
    for _ in range(TRIES):
        centre = _random_place(work, region)
        node = PlannedNode(plan, sample_orientation(work.rng), (0.0, 0.0, 0.0))
        if not canvas.contains_sphere(centre, plan.semi[0] + 2) or not _is_free(work, (node,), centre, margin, CLEAR):
            continue
        painted = draw_node(canvas, plan, centre, node.rotation, ct_properties.UNKNOWN_CT.edge_width_mm)
        _record_node(work, side, plan, painted, len(work.nodes) + 1)
        return


def _implant_group(work: _Implantation, side: Side, region: Region, groups: GroupSettings) -> None:
    rng = work.rng
    group = plan_group(rng, work.patient, groups.clusters)
    not_fat = groups.not_fat if rng.random() < groups.touching else CLEAR
    reach = max(group_extent(group))
    for _ in range(TRIES):
        centre = _random_place(work, region)
        if not work.canvas.contains_sphere(centre, reach) or not _is_free(work, group, centre, 0.8, not_fat):
            continue
        first = len(work.nodes) + 1
        for node, painted in zip(group, draw_group(work.canvas, group, centre, work.patient.psf), strict=True):
            _record_node(work, side, node.plan, painted, first)
        return


def _random_place(work: _Implantation, region: Region) -> Point:
    z, y, x = (float(v) for v in region[work.rng.integers(len(region))])
    return x * work.canvas.spacing, y * work.canvas.spacing, z * work.canvas.thickness


def _is_free(work: _Implantation, group: tuple[PlannedNode, ...], centre: Point, margin: float, not_fat: float) -> bool:
    """Return whether a group has room.

    At most the share ``not_fat`` of its voxels is something else than fat; none is bone, excluded or part of another node.
    """
    samples = []
    for node in group:
        at = (centre[0] + node.offset[0], centre[1] + node.offset[1], centre[2] + node.offset[2])
        patch = work.canvas.patch(at, node.plan.semi[0] + 3)
        if patch is None:
            return False
        local = to_node_coordinates(replace(patch, z=patch.z[1::3]), at, node.rotation)
        r = sum((axis / (s + margin)) ** 2 for axis, s in zip((local.p, local.q, local.s), node.plan.semi, strict=True))
        inside = np.asarray(r) < 1
        if work.labels[patch.where][inside].any() or (work.excluded is not None and work.excluded[patch.where][inside].any()):
            return False
        samples.append(work.smooth[patch.where][inside])
    values = np.concatenate(samples)
    return bool(values.size and np.mean(~fat_mask(values)) < not_fat and (not_fat == CLEAR or values.max() < DENSE_HU))


def _missing_noise(work: _Implantation) -> FloatArray:
    """Return the low-frequency noise within the nodes, which were drawn over the smoothed CT; other voxels still have it."""
    added = np.zeros(work.smooth.shape, np.float32)
    if not work.nodes:
        return added
    (box,) = ndimage.find_objects((work.labels > 0).astype(np.uint8))
    inside = ndimage.gaussian_filter((work.labels[box] > 0).astype(np.float32), [0, 0.7, 0.7])
    sigma = SMOOTH_MM / work.canvas.spacing
    slow = ndimage.gaussian_filter(work.rng.standard_normal(inside.shape, dtype=np.float32), [0, sigma, sigma])
    added[box] = inside * slow * (work.measured.missing_noise_hu / max(float(slow.std()), 1e-6))
    return added


def _record_node(work: _Implantation, side: Side, plan: NodePlan, painted: tuple[Patch, FloatArray], first: int) -> None:
    """Label the voxels of a drawn node and add its truth to the list; ``first`` is the number of the first node of its group."""
    patch, cover = painted
    mask = node_mask(cover)
    number = len(work.nodes) + 1
    work.labels[patch.where][mask] = number
    largest = int(np.argmax(mask.sum(axis=(1, 2))))
    _, short_axis = diameters(mask[largest], float(work.affine[0, 2]))
    start = np.array([part.start for part in patch.where])
    x, y, z = (float(v) for v in (work.affine @ np.array([*(start + np.argwhere(mask).mean(axis=0)), 1.0]))[:3])
    work.nodes.append(ImplantedNode(number, side, plan.malignant, short_axis, (x, y, z), group=first, fatty=plan.fatty))
