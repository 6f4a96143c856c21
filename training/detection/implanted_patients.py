"""Locate phantom nodes that are implanted into the marked series of patients, with networks that were trained without the patient.

No node is implanted near a mark of a reader, and a box on a marked place is left out: the patient's own nodes are neither found nor false.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from alnnode.locate.chest_anatomy import ChestAnatomy
from alnnode.locate.search import SearchLimits, locate_nodes
from training.data.ct_implants import GroupSettings, implant_nodes
from training.data.prepared_ct import PreparedCt
from training.detection.case_series import volume_of
from training.detection.implanted_series import excluded_voxels
from training.detection.score import LocatedBox
from training.evaluate.detection_matching import Truth, match_marks
from training.evaluate.detection_run import LEAST_SCORE, MAX_MARKS, probabilities_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from alnnode.locate.grid import Frame
    from alnnode.records import Node, Volume
    from training.data.ct_implants import ImplantedCt
    from training.detection.fold_detectors import FoldDetectors
    from training.detection.reference import MarkedPlace, Reference
    from training.evaluate.froc import DetectionResult


@dataclass(frozen=True, slots=True)
class ImplantPlan:
    """What is implanted.

    Attributes:
        seed: of the nodes.
        repetitions: number of times that nodes are implanted into each series.
        per_side: number of nodes, or of groups, implanted into each axilla.
        groups: how groups are implanted; None implants single nodes in fat.
        bundle: "demo" or the folder of the bundle whose networks classify the located nodes; None: nodes are not classified.
    """

    seed: int
    repetitions: int
    per_side: int
    groups: GroupSettings | None
    bundle: str | None = None


def detect_on_patients(
    cases: Mapping[str, tuple[Path, Reference]], detectors: FoldDetectors, plan: ImplantPlan
) -> Iterator[DetectionResult]:
    """Yield one result for each repetition of each case; the patient of a result is the number of the case.

    Args:
        cases: folder and reference of each case.
        detectors: the detector of each case.
        plan: what is implanted.
    """
    for number, (name, (folder, reference)) in enumerate(cases.items()):
        volume = volume_of(folder)
        prepared, excluded = PreparedCt.from_volume(volume), excluded_voxels(volume, reference)
        places = _canonical_places(reference, prepared.frame, volume)
        detector = detectors.for_case(name)
        for repetition in range(plan.repetitions):
            seed = plan.seed + number + len(cases) * repetition
            made = implant_nodes(prepared, seed, plan.per_side, plan.groups, excluded)
            anatomy = ChestAnatomy(made.volume)
            located = locate_nodes(anatomy, detector, SearchLimits(0.0, MAX_MARKS, LEAST_SCORE))
            nodes = [node for node in located if not _on_own_node(node, made, places)]
            truth = Truth(made.labels, made.volume.affine, made.nodes, made.volume.spacing[0], "real CT")
            probabilities = probabilities_of(plan.bundle, anatomy, nodes)
            yield match_marks(truth, number + len(cases) * repetition, nodes, probabilities)


def _canonical_places(reference: Reference, frame: Frame, volume: Volume) -> list[MarkedPlace]:
    """Return the marked nodes of a series at their positions in its canonical voxels."""
    shape = volume.voxels.shape
    return [
        replace(place, centre=frame.canonical_position(place.centre, shape))
        for place in (*reference.nodes, *reference.uncertain)
    ]


def _on_own_node(node: Node, made: ImplantedCt, places: list[MarkedPlace]) -> bool:
    """Return whether a box holds a marked place and no implanted node."""
    box = LocatedBox.of_node(node)
    inside = tuple(slice(low, high) for low, high in zip(node.box.low, node.box.high, strict=True))
    return not made.labels[inside].any() and any(box.contains(place, made.volume.spacing) for place in places)
