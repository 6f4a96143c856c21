"""Locate phantom nodes that are implanted into the marked series of patients, with networks that were trained without the patient.

No node is implanted near a mark of a reader, and a box on a marked place is left out: the patient's own nodes are neither found nor false.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from alnnode.phantom import PhantomSettings
from training.data.ct_implants import GroupSettings, implant_nodes
from training.data.prepared_ct import PreparedCt
from training.detection.case_series import volume_of
from training.detection.implanted_series import excluded_voxels
from training.detection.score import LocatedBox
from training.evaluate.detection_matching import Truth
from training.evaluate.detection_run import DetectionPlan, detect_in_volume

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
        run = DetectionPlan(detectors.for_case(name), plan.seed, PhantomSettings(), plan.bundle)
        for repetition in range(plan.repetitions):
            seed = plan.seed + number + len(cases) * repetition
            made = implant_nodes(prepared, seed, plan.per_side, plan.groups, excluded)
            truth = Truth(made.labels, made.volume.affine, made.nodes, made.volume.spacing[0], "real CT")
            counts = partial(_counts, made=made, places=places)
            yield detect_in_volume(run, number + len(cases) * repetition, made.volume, truth, counts)


def _canonical_places(reference: Reference, frame: Frame, volume: Volume) -> list[MarkedPlace]:
    """Return the marked nodes of a series at their positions in its canonical voxels."""
    shape = volume.voxels.shape
    return [
        replace(place, centre=frame.canonical_position(place.centre, shape))
        for place in (*reference.nodes, *reference.uncertain)
    ]


def _counts(node: Node, made: ImplantedCt, places: list[MarkedPlace]) -> bool:
    """Return whether a box holds an implanted node, or no marked place."""
    box = LocatedBox.of_node(node)
    inside = tuple(slice(low, high) for low, high in zip(node.box.low, node.box.high, strict=True))
    return bool(made.labels[inside].any()) or not any(box.contains(place, made.volume.spacing) for place in places)
