"""What the node finds on fresh phantoms, and how it classifies what it found: the whole way of a study, measured against truth."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from scipy import ndimage

from alnnode import phantom
from alnnode.imaging.crop import crops_for
from alnnode.locate.chest_anatomy import ChestAnatomy
from alnnode.locate.search import SearchLimits, locate_nodes
from alnnode.model import bundle as bundles
from alnnode.model.ensemble import Ensemble
from training.data.cohort import as_volume
from training.data.implant import Prepared, implant
from training.evaluate.froc import LEAST_MM, Examined, Mark, Target

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from alnnode.locate.detector import Detector
    from alnnode.phantom import Phantom, PhantomSettings
    from alnnode.records import AffineMatrix, Level, Node, Side, Volume
    from training.data.implant import Groups

HIT_OVERLAP = 0.25  # intersection over union of a mark with the true node that it hits
LEAST_SCORE = 0.05
MOST = 60  # marks of one volume


@dataclass(frozen=True, slots=True)
class Plan:
    """What is examined: a detector on phantoms of a seed; and the classifiers of a bundle (its folder), when there is one."""

    detector: Detector
    seed: int
    phantoms: PhantomSettings
    bundle: str | None = None


class TrueNode(Protocol):
    """What must be known of a node to match marks with it."""

    @property
    def number(self) -> int:
        """Its value in the labels; from 1."""

    @property
    def side(self) -> Side:
        """Of the patient."""

    @property
    def level(self) -> Level | None:
        """Axillary level; None where it is not known."""

    @property
    def malignant(self) -> bool:
        """As drawn."""

    @property
    def short_axis_mm(self) -> float:
        """On the slice with the largest cross-section."""

    @property
    def centre_mm(self) -> tuple[float, float, float]:
        """Centre of gravity, patient coordinates."""


@dataclass(frozen=True, slots=True)
class Truth:
    """The true nodes of one volume.

    Attributes:
        labels: uint16, the shape of the voxels: 0, or the number of the node; ``affine`` as `records.Volume`.
    """

    labels: npt.NDArray[np.uint16]
    affine: AffineMatrix
    nodes: Sequence[TrueNode]
    thickness_mm: float
    position: str

    @classmethod
    def of(cls, made: Phantom) -> Truth:
        """That of a phantom."""
        return cls(made.labels, made.affine, made.nodes, made.patient.thickness, made.patient.position.value)


@dataclass(frozen=True, slots=True)
class _Hit:
    """One mark and the true node that it overlaps most."""

    node: Node
    number: int
    overlap: float  # intersection over union
    dice: float
    distance_mm: float


def examine(plan: Plan, patients: int, processes: int) -> Iterator[Examined]:
    """One result per phantom, in order."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(partial(examine_patient, plan), range(patients))


def examine_patient(plan: Plan, index: int) -> Examined:
    """Locate and classify on one phantom."""
    torch.set_num_threads(1)
    made = phantom.make_patient(plan.seed, index, plan.phantoms)
    volume = as_volume(made)
    return _examined(plan, index, volume, Truth.of(made))


def examine_implants(
    plan: Plan, sources: Sequence[Volume], repetitions: int, per_side: int, groups: Groups | None = None
) -> Iterator[Examined]:
    """One result per real CT and repetition: phantom nodes, or groups of them, are put into it anew each time, then located."""
    prepared = [Prepared.of(source) for source in sources]
    for index in range(repetitions * len(sources)):
        made = implant(prepared[index % len(sources)], plan.seed + index, per_side, groups)
        truth = Truth(made.labels, made.volume.affine, made.nodes, made.volume.spacing[0], "real CT")
        yield _examined(plan, index, made.volume, truth)


def _examined(plan: Plan, index: int, volume: Volume, truth: Truth) -> Examined:
    nodes = locate_nodes(ChestAnatomy(volume), plan.detector, SearchLimits(0.0, MOST, LEAST_SCORE))
    return compare(truth, index, nodes, _probabilities(plan.bundle, volume, nodes))


def _probabilities(bundle: str | None, volume: Volume, nodes: list[Node]) -> list[float]:
    if bundle is None:
        return [0.0] * len(nodes)
    loaded = bundles.load(bundles.resolve(bundle))
    ensemble = Ensemble(loaded, "cpu")
    return [found.probability for found in ensemble.predict([crops_for(volume, node, loaded.crop_settings) for node in nodes])]


def compare(truth: Truth, index: int, nodes: list[Node], probabilities: list[float]) -> Examined:
    """Match marks with the truth: each node takes the best scored mark that hits it; other marks on it are false."""
    targets = {
        node.number: Target(index, node.number, node.short_axis_mm, node.malignant, truth.thickness_mm, truth.position)
        for node in truth.nodes
    }
    numbered = {node.number: node for node in truth.nodes}
    marks = []
    sizes = np.bincount(truth.labels.ravel(), minlength=len(targets) + 1)
    order = sorted(range(len(nodes)), key=lambda n: -nodes[n].score)
    for n in order:
        hit, probability = _hit(truth, nodes[n], sizes), probabilities[n]
        score = nodes[n].score
        if hit is None:
            marks.append(Mark(index, score, None, probability=probability))
            continue
        target = targets[hit.number]
        first = target.score == 0.0
        counts = target.short_axis_mm >= LEAST_MM
        marks.append(Mark(index, score, hit.number if first else None, ignored=not counts, probability=probability))
        if first:
            true = numbered[hit.number]
            targets[hit.number] = replace(
                target,
                score=score,
                dice=hit.dice,
                distance_mm=hit.distance_mm,
                short_axis_error_mm=hit.node.short_axis.length_mm - true.short_axis_mm,
                side_is_right=hit.node.side is true.side,
                level_is_right=None if None in {hit.node.level, true.level} else hit.node.level is true.level,
                probability=probability,
            )
    return Examined(1, tuple(marks), tuple(targets.values()), tuple((index, *pair) for pair in touching(truth.labels)))


def touching(labels: npt.NDArray[np.uint16]) -> list[tuple[int, int]]:
    """Numbers of the nodes that share a voxel's face, each pair once."""
    pairs: set[tuple[int, int]] = set()
    for axis in range(3):
        one, other = (np.take(labels, range(a, labels.shape[axis] + a - 1), axis=axis) for a in (0, 1))
        meet = (one != other) & (one > 0) & (other > 0)
        pairs |= {(int(min(a, b)), int(max(a, b))) for a, b in zip(one[meet], other[meet], strict=True)}
    return sorted(pairs)


def _hit(truth: Truth, node: Node, sizes: npt.NDArray[np.int64]) -> _Hit | None:
    mask = node.mask
    if mask is None:
        return None
    box = node.box
    shared = np.bincount(truth.labels[box.k0 : box.k1, box.j0 : box.j1, box.i0 : box.i1][mask], minlength=len(sizes))
    shared[0] = 0
    number = int(shared.argmax())
    inter, union = int(shared[number]), int(mask.sum() + sizes[number] - shared[number])
    if not inter or inter / union < HIT_OVERLAP:
        return None
    centre = np.array([box.k0, box.j0, box.i0]) + np.array(ndimage.center_of_mass(mask))
    there = (truth.affine @ np.array([*centre, 1.0]))[:3]
    distance = float(np.linalg.norm(there - np.array(next(node.centre_mm for node in truth.nodes if node.number == number))))
    return _Hit(node, number, inter / union, 2 * inter / (inter + union), distance)
