"""Locate and classify nodes on phantoms, or on real CT with implanted nodes, and match the result with the truth."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING

import torch

from alnnode import phantom
from alnnode.imaging.crop import crops_for
from alnnode.locate.chest_anatomy import ChestAnatomy
from alnnode.locate.search import SearchLimits, locate_nodes
from alnnode.model import bundle as bundles
from alnnode.model.ensemble import Ensemble
from training.data.cohort import as_volume
from training.data.ct_implants import implant_nodes
from training.data.prepared_ct import PreparedCt
from training.evaluate.detection_matching import Truth, match_marks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from alnnode.locate.detector import Detector
    from alnnode.phantom import PhantomSettings
    from alnnode.records import Node, Volume
    from training.data.ct_implants import GroupSettings
    from training.evaluate.froc import DetectionResult

LEAST_SCORE = 0.05
MAX_MARKS = 60  # marks of one volume


@dataclass(frozen=True, slots=True)
class DetectionPlan:
    """What is evaluated.

    Attributes:
        detector: locates the nodes.
        seed: seed of the phantoms, or of the implanted nodes.
        phantoms: how phantoms are drawn.
        bundle: "demo" or the folder of the bundle whose networks classify the located nodes; None: nodes are not classified.
    """

    detector: Detector
    seed: int
    phantoms: PhantomSettings
    bundle: str | None = None


def detect_on_phantoms(plan: DetectionPlan, patients: int, processes: int) -> Iterator[DetectionResult]:
    """Yield one result for each phantom, in order."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(partial(detect_on_phantom, plan), range(patients))


def detect_on_phantom(plan: DetectionPlan, index: int) -> DetectionResult:
    """Locate and classify the nodes of one phantom."""
    torch.set_num_threads(1)
    made = phantom.make_patient(plan.seed, index, plan.phantoms)
    return detect_in_volume(plan, index, as_volume(made), Truth.of_phantom(made))


def detect_on_implants(
    plan: DetectionPlan, sources: Sequence[Volume], repetitions: int, per_side: int, groups: GroupSettings | None = None
) -> Iterator[DetectionResult]:
    """Yield one result for each repetition and CT; each repetition implants other nodes, or groups of nodes, into the CT."""
    prepared = [PreparedCt.from_volume(source) for source in sources]
    for index in range(repetitions * len(sources)):
        made = implant_nodes(prepared[index % len(sources)], plan.seed + index, per_side, groups)
        truth = Truth(made.labels, made.volume.affine, made.nodes, made.volume.spacing[0], "real CT")
        yield detect_in_volume(plan, index, made.volume, truth)


def detect_in_volume(
    plan: DetectionPlan, index: int, volume: Volume, truth: Truth, counts: Callable[[Node], bool] = lambda _: True
) -> DetectionResult:
    """Locate and classify the nodes of one volume.

    Args:
        plan: the detector and the bundle.
        index: identifies the volume in the result.
        volume: the images.
        truth: its nodes.
        counts: whether a located node counts; by default, each does.
    """
    anatomy = ChestAnatomy(volume)
    located = locate_nodes(anatomy, plan.detector, SearchLimits(0.0, MAX_MARKS, LEAST_SCORE))
    nodes = [node for node in located if counts(node)]
    return match_marks(truth, index, nodes, _probabilities(plan.bundle, anatomy, nodes))


def _probabilities(bundle: str | None, anatomy: ChestAnatomy, nodes: list[Node]) -> list[float]:
    """Return the probability of "metastatic" of each node by the networks of a bundle; 0 without a bundle."""
    if bundle is None:
        return [0.0] * len(nodes)
    loaded = bundles.load(bundles.resolve(bundle))
    ensemble = Ensemble(loaded, "cpu")
    settings = loaded.crop_settings
    blood_hu = anatomy.blood_hu if settings.blood_pool else None
    crops = [crops_for(anatomy.volume, node, settings, blood_hu) for node in nodes]
    return [found.probability for found in ensemble.predict(crops)]
