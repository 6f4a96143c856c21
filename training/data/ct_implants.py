"""Implant phantom nodes into a real CT, for training and to measure a detector or a classifier in real surroundings.

Single nodes lie in fat of the search region, apart from everything else, as on a plain phantom. `GroupSettings` asks for nodes of all
kinds, for clusters and for contact, with the point spread, noise and contrast phase of the CT (`training.data.ct_properties`). The
patient's own nodes are known only through ``exclude``: a mark on any other real node counts as a false positive.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from pydicom import Dataset

from alnnode.phantom.group_plan import plan_group
from alnnode.phantom.node_plan import plan_node
from alnnode.phantom.patient_parameters import sample_patient
from alnnode.phantom.settings import PhantomSettings
from alnnode.records import SliceRef, Volume
from training.data import ct_properties
from training.data.implantation import CLEAR, TOUCHING, Implantation
from training.data.prepared_ct import PreparedCt

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from alnnode.phantom.group_plan import PlannedNode
    from alnnode.records import Side
    from training.data.implantation import ImplantedNode


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
class PlannedGroup:
    """A group that is planned before a place is sought.

    Attributes:
        members: as `alnnode.phantom.group_plan.plan_group` returns them.
        side: of the axilla.
        not_fat: largest share of its voxels that may be something else than fat.
    """

    members: tuple[PlannedNode, ...]
    side: Side
    not_fat: float


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
    work = Implantation.into(prepared, measured, rng, exclude)
    for side, region in prepared.regions:
        for _ in range(per_side):
            if groups is None:
                work.place_node(side, region, plan_node(rng, bool(rng.random() < 0.5), patient))
                continue
            group = plan_group(rng, patient, groups.clusters)
            work.place_group(side, region, group, groups.not_fat if rng.random() < groups.touching else CLEAR)
    return _finish(work, noise=groups is not None)


def implant_groups(
    prepared: PreparedCt,
    groups: Sequence[PlannedGroup],
    rng: np.random.Generator,
    exclude: npt.NDArray[np.bool_] | None = None,
) -> tuple[ImplantedCt, tuple[int, ...]]:
    """Implant planned groups, and return also which of them found a place.

    The nodes of the result are the members of these groups, in their order.

    Args:
        prepared: a CT.
        groups: what is implanted; a group whose side the CT does not show finds no place.
        rng: decides where.
        exclude: as for `implant_nodes`.
    """
    work = Implantation.into(prepared, prepared.measured, rng, exclude)
    regions = dict(prepared.regions)
    placed = [
        n
        for n, group in enumerate(groups)
        if group.side in regions and work.place_group(group.side, regions[group.side], group.members, group.not_fat)
    ]
    return _finish(work, noise=True), tuple(placed)


def _finish(work: Implantation, *, noise: bool) -> ImplantedCt:
    dz, dy = work.canvas.thickness, work.canvas.spacing
    voxels = work.voxels(noise=noise)
    refs = tuple(SliceRef("", "", None, (0.0, 0.0, n * dz)) for n in range(len(voxels)))
    return ImplantedCt(Volume(voxels, work.affine, refs, Dataset(), (dz, dy, dy)), work.labels, tuple(work.nodes))
