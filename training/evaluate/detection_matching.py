"""Match the marks of a detector on one volume with its true nodes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy import ndimage

from training.evaluate.froc import MIN_SHORT_AXIS_MM, DetectionResult, Mark, Target

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from alnnode.phantom import Phantom
    from alnnode.records import AffineMatrix, Level, Node, Side

HIT_OVERLAP = 0.25  # smallest intersection over union of a mark with the true node that it hits


class TrueNode(Protocol):
    """The properties of a true node that matching needs."""

    @property
    def number(self) -> int:
        """Label value of the node; from 1."""

    @property
    def side(self) -> Side:
        """Side of the patient."""

    @property
    def level(self) -> Level | None:
        """Axillary level; None when it is not known."""

    @property
    def malignant(self) -> bool:
        """True for a metastatic node."""

    @property
    def short_axis_mm(self) -> float:
        """Short axis on the slice with the largest cross-section."""

    @property
    def centre_mm(self) -> tuple[float, float, float]:
        """Centre of gravity in patient coordinates."""


@dataclass(frozen=True, slots=True)
class Truth:
    """The true nodes of one volume.

    Attributes:
        labels: uint16, the shape of the voxels: 0, or the number of the node.
        affine: as in `records.Volume`.
    """

    labels: npt.NDArray[np.uint16]
    affine: AffineMatrix
    nodes: Sequence[TrueNode]
    thickness_mm: float
    position: str

    @classmethod
    def of_phantom(cls, made: Phantom) -> Truth:
        """Return the truth of a phantom."""
        return cls(made.labels, made.affine, made.nodes, made.patient.thickness, made.patient.position.value)


@dataclass(frozen=True, slots=True)
class _Hit:
    """One mark and the true node with which it overlaps most."""

    node: Node
    number: int
    overlap: float  # intersection over union
    dice: float
    distance_mm: float


def match_marks(truth: Truth, index: int, nodes: list[Node], probabilities: list[float]) -> DetectionResult:
    """Match the marks of one volume: the mark with the highest score on a true node hits it, further marks are false positives."""
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
        counts = target.short_axis_mm >= MIN_SHORT_AXIS_MM
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
    pairs = tuple((index, *pair) for pair in touching_pairs(truth.labels))
    return DetectionResult(1, tuple(marks), tuple(targets.values()), pairs)


def touching_pairs(labels: npt.NDArray[np.uint16]) -> list[tuple[int, int]]:
    """Return the numbers of the nodes that share the face of a voxel, each pair once."""
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
