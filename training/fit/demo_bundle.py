"""Train the demonstration bundle on phantoms: cohorts, both networks in parallel, calibration, metrics on held-out phantoms."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from queue import Empty
from typing import TYPE_CHECKING

import torch

from alnnode.imaging.crop import CropSettings
from alnnode.model import network
from alnnode.phantom import PhantomSettings
from alnnode.records import Crop
from training.data import cohort as cohorts
from training.evaluate import bundle_metrics, calibration, operating_points
from training.fit.bundle_contents import BundleContents
from training.fit.member import Trainer, TrainingData, TrainSettings
from training.networks.inference import half_precision, mean_probability, predict_logits, stack_logits

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.queues import Queue
    from pathlib import Path

    from training.data.cohort import Cohort
    from training.fit.bundle_contents import DetectorFiles
    from training.networks.inference import Weights

SENSITIVITY_TARGET = 0.95
# Training phantoms have many nodes, because drawing a chest takes longer than drawing a node; held-out ones have 0 to 12 per axilla.
CROWDED = PhantomSettings(min_nodes_per_side=6)


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """The options of ``python -m training demo``.

    Attributes:
        seed: of the training phantoms; validation uses seed + 1 and test seed + 2.
        patients: number of training phantoms.
        held_out: number of validation phantoms, and of test phantoms.
        work: folder of crops and checkpoints.
    """

    seed: int
    patients: int
    held_out: int
    work: Path
    training: TrainSettings
    crops: CropSettings = field(default_factory=CropSettings)


def draw_cohorts(plan: DemoPlan, report: Callable[[str, int], Callable[[], None]]) -> dict[str, Cohort]:
    """Return the cohorts "train", "validation" and "test".

    Raises:
        LeakageError: a patient is in two of them.
    """
    wanted = {
        "train": (plan.seed, plan.patients, CROWDED),
        "validation": (plan.seed + 1, plan.held_out, PhantomSettings()),
        "test": (plan.seed + 2, plan.held_out, PhantomSettings()),
    }
    parts = {
        name: cohorts.collect_cohort(
            cohorts.PhantomSource(seed, settings, plan.crops), count, plan.work / "crops", report(f"{name} phantoms", count)
        )
        for name, (seed, count, settings) in wanted.items()
    }
    cohorts.check_leakage(**parts)
    return parts


def train_members(
    plan: DemoPlan, parts: dict[str, Cohort], report: Callable[[str, int], Callable[[], None]]
) -> dict[Crop, Weights]:
    """Train both networks in one process each, and return their weights in half precision."""
    context = get_context("spawn")
    data = TrainingData(parts["train"], parts["validation"])
    with context.Manager() as manager, ProcessPoolExecutor(len(Crop), mp_context=context) as pool:
        done: Queue[str] = manager.Queue()  # type: ignore[assignment]  # a proxy of one
        bars = {crop.value: report(f"epochs, {crop.value}", plan.training.epochs) for crop in Crop}
        folder = plan.work / f"seed-{plan.seed}"
        futures = {crop: pool.submit(_fit, crop, data, plan.training, folder, done) for crop in Crop}
        while not all(future.done() for future in futures.values()):
            try:
                bars[done.get(timeout=1)]()
            except Empty:
                continue
        return {crop: half_precision(future.result()) for crop, future in futures.items()}


def _fit(crop: Crop, data: TrainingData, settings: TrainSettings, folder: Path, done: Queue[str]) -> Weights:
    return Trainer(crop, data, settings, folder).fit(lambda: done.put(crop.value))


def train_demo_bundle(
    plan: DemoPlan, detector: DetectorFiles | None, report: Callable[[str, int], Callable[[], None]]
) -> BundleContents:
    """Return the contents of the bundle; its half-precision networks are evaluated on the held-out phantoms."""
    parts = draw_cohorts(plan, report)
    members = train_members(plan, parts, report)
    stride, device = plan.training.output_stride, plan.training.device
    models = {crop: network.restore(plan.crops.channels, stride, weights).to(device) for crop, weights in members.items()}
    logits = stack_logits({crop: predict_logits(model, parts["validation"], crop, device) for crop, model in models.items()})
    temperature = calibration.fit_temperature(parts["validation"].malignant, logits)
    probability = mean_probability(logits, temperature)
    threshold = operating_points.threshold_for_sensitivity(parts["validation"].malignant, probability, SENSITIVITY_TARGET)
    figures = bundle_metrics.evaluate_ensemble(parts["test"], models, temperature, threshold, device)
    train = parts["train"]
    return BundleContents(
        name="alnnode-demo",
        version="0.1.0",
        demonstration=True,
        training_data=f"synthetic phantoms only: {len(train)} nodes of {len(train.patients)} phantoms, seed {plan.seed}",
        crops=plan.crops,
        output_stride=stride,
        architectures=dict.fromkeys(Crop, "densenet121"),
        members=members,
        temperature=temperature,
        prevalence=float(parts["validation"].malignant.mean()),
        figures=figures,
        test_set=f"held-out synthetic phantoms, seed {plan.seed + 2}, n = {figures.nodes} nodes of {figures.patients} phantoms",
        detector=detector,
        command=f"python -m training demo --seed {plan.seed} --patients {plan.patients} --held-out {plan.held_out} "
        f"--epochs {plan.training.epochs}",
        provenance={
            "seed": plan.seed,
            "phantom_code": cohorts.phantom_code(),
            "device": device,
            "torch_threads": torch.get_num_threads(),
        },
    )
