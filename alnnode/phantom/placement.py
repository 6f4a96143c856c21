"""Placement of nodes in the axilla: number of nodes, candidate positions, and the nodes that are already placed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alnnode.phantom.trunk_section import axilla_walls, section_at
from alnnode.records import Level, Side

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.phantom.canvas import Patch, Point
    from alnnode.phantom.node_plan import NodePlan
    from alnnode.phantom.patient_parameters import PatientParameters
    from alnnode.phantom.settings import PhantomSettings
    from alnnode.phantom.side_canvas import SideCanvas
    from alnnode.records import FloatArray

    VoxelBox = tuple[slice, slice, slice]

MAX_ATTEMPTS = 90
_FAT_HU = (-160.0, -45.0)  # below: air; above: tissue denser than fat with its noise
_LEVEL_SHARES = (0.70, 0.19, 0.11)


@dataclass(frozen=True, slots=True)
class PlacedNode:
    """A node that is drawn; ``mask`` is its label within the patch, ``centre`` its position in patient mm."""

    plan: NodePlan
    side: Side
    level: Level
    patch: Patch
    mask: npt.NDArray[np.bool_]
    centre: Point


def sample_node_count(target: SideCanvas, settings: PhantomSettings, involved: float, rng: np.random.Generator) -> int:
    """Return the number of nodes of one axilla, in which a node is metastatic with probability ``involved``."""
    if target.side not in settings.sides:
        return 0
    sampled = rng.poisson(5.2 if involved > 0.5 else 3.0)
    return int(np.clip(sampled, settings.min_nodes_per_side, settings.max_nodes_per_side))


def sample_involvement(target: SideCanvas, sides: tuple[Side, ...], rng: np.random.Generator) -> float:
    """Return the probability that a node of one axilla is metastatic; ``sides`` are the axillae that may hold nodes."""
    patient = target.patient
    involved = float(rng.beta(6, 1.6))
    if not patient.metastatic:
        return 0.0
    if target.side is patient.primary or patient.bilateral or len(sides) == 1:
        return involved
    return 0.08


def sample_level(rng: np.random.Generator) -> Level:
    """Return a random axillary level."""
    return Level(rng.choice(list(Level), p=_LEVEL_SHARES))


def sample_position(target: SideCanvas, wanted: Level, rng: np.random.Generator) -> tuple[Point, Level] | None:
    """Return a position (patient mm) between the walls of the axilla and its level.

    The level is usually ``wanted``. The result is None if the axilla has no room at the sampled height.
    """
    patient = target.patient
    middle, spread = {Level.I: (-12, 32), Level.II: (18, 22), Level.III: (46, 12)}[wanted]
    z = float(np.clip(rng.normal(middle, spread), -82, 62))
    section = section_at(z, patient)
    medial, minor = 0.78 * section.half_width, section.pectoralis_minor
    ends = {
        Level.I: (max(medial, minor[0] + 0.5 * minor[1]), section.posterior_fold + 12),
        Level.II: (max(medial, minor[0] - minor[1]), minor[0] + minor[1]),
        Level.III: (medial, max(medial + 6, minor[0] - minor[1])),
    }[wanted]
    if ends[1] <= ends[0]:
        return None
    u = float(rng.uniform(*ends))
    front, back = axilla_walls(patient, u, z)
    share = float(rng.uniform(0.04, 0.96))
    if back - front < 8:
        return None
    return target.to_patient(u, front + share * (back - front), z), level_at(patient, u, z)


def level_at(patient: PatientParameters, u: float, z: float) -> Level:
    """Return the level of a canonical position: I lateral to, II behind, III medial to the pectoralis minor."""
    centre, half, thick = section_at(z, patient).pectoralis_minor
    if thick <= 1.5 or half <= 2:
        return Level.I
    return Level.I if u > centre + half else Level.II if u > centre - half else Level.III


def node_mask(cover: FloatArray) -> npt.NDArray[np.bool_]:
    """Return the label of a node from its coverage: the voxels with a coverage above 0.5.

    A small node in thick slices may have no such voxel: the limit is then 0.6 of its largest coverage.
    """
    mask: npt.NDArray[np.bool_] = cover > min(0.5, 0.6 * float(cover.max()))
    return mask


def share_of_other_tissue(values: FloatArray) -> float:
    """Return the share of HU values that are not fat."""
    return float(np.mean((values > _FAT_HU[1]) | (values < _FAT_HU[0])))


def in_label_order(nodes: list[PlacedNode]) -> list[PlacedNode]:
    """Return the nodes of one axilla in the order of their label numbers: from the head down."""
    return sorted(nodes, key=lambda node: -node.centre[2])


def intersection(one: VoxelBox, other: VoxelBox) -> tuple[VoxelBox, VoxelBox]:
    """Return the common part of two boxes as slices of the first and as slices of the second."""
    low = [max(a.start, b.start) for a, b in zip(one, other, strict=True)]
    high = [max(o, min(a.stop, b.stop)) for o, a, b in zip(low, one, other, strict=True)]
    first, second = ([slice(o - p.start, h - p.start) for o, h, p in zip(low, high, box, strict=True)] for box in (one, other))
    return (first[0], first[1], first[2]), (second[0], second[1], second[2])
