"""What each input and method adds: the same two networks with parts left out, compared on the validation patients of the first fold.

The test set is not used, so that it stays scored once (`training.fit.ledger`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from safetensors.torch import load_file

from alnnode.model import network
from alnnode.records import Crop
from training.data import cohort as cohorts
from training.evaluate import roc
from training.fit import grid, reproduce, selection
from training.fit import reproduction_terms as terms
from training.fit.grid import FoldData, TrainingTask
from training.networks.inference import crops_of_kind, mean_probability, predict_logits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from alnnode.imaging.crop import CropSettings
    from alnnode.records import Interval
    from training.data.cohort import Cohort
    from training.evaluate.roc import AurocComparison
    from training.fit.reproduction_terms import ReproductionPlan

    Scores = npt.NDArray[np.floating[Any]]

FLIPPED: Final = "the first networks, mean over left-right flips"


@dataclass(frozen=True, slots=True)
class Variant:
    """The networks with or without a part.

    Attributes:
        name: in the table.
        slices: number of slices that the networks see, odd.
        blood_pool: whether they see the attenuation of the blood.
        averaging: whether the weights are averaged; otherwise the epoch with the lowest validation loss is taken.
        pretrained: whether the networks start from the pretrained weights of the reproduction; otherwise from random ones.
    """

    name: str
    slices: int
    blood_pool: bool
    averaging: bool = True
    pretrained: bool = False

    @property
    def folder(self) -> str:
        """The name of the folder of its networks."""
        return f"slices-{self.slices}-blood-{int(self.blood_pool)}-averaging-{int(self.averaging)}-pretrained-{int(self.pretrained)}"


@dataclass(frozen=True, slots=True)
class AblationRow:
    """One variant on the validation nodes.

    Attributes:
        name: of the variant.
        areas: AUROC of the FSC network, of the ASC network, and of the mean of both.
        less_complete: this mean less that of the complete networks, a paired comparison; None for the complete networks.
    """

    name: str
    areas: tuple[Interval, ...]
    less_complete: AurocComparison | None


@dataclass(frozen=True, slots=True)
class AblationResult:
    """The rows of the table, and the number of validation nodes."""

    rows: list[AblationRow]
    nodes: int


def variants(crops: CropSettings, *, pretraining: bool = False) -> list[Variant]:
    """Return the complete networks first, then those without a part: without pretraining, or each without one of the other parts.

    The other parts are left out of networks that start from random weights, because pretrained weights fit only the complete inputs.
    """
    if pretraining:
        return [
            Variant("complete, pretrained", crops.slices, crops.blood_pool, pretrained=True),
            Variant("complete, random initial weights", crops.slices, crops.blood_pool),
        ]
    return [
        Variant("complete", crops.slices, crops.blood_pool),
        Variant("without the attenuation of the blood", crops.slices, blood_pool=False),
        Variant("one slice", 1, crops.blood_pool),
        Variant("one slice, without the attenuation of the blood", 1, blood_pool=False),
        Variant("epoch with the lowest validation loss, no averaged weights", crops.slices, crops.blood_pool, averaging=False),
    ]


def channels_of(variant: Variant, crops: CropSettings) -> list[int]:
    """Return which channels of a crop a variant sees (`CropSettings.slices` gives their order)."""
    seen = list(range(len(crops.windows) * variant.slices))
    return [*seen, crops.channels - 1] if variant.blood_pool else seen


def variant_data(plan: ReproductionPlan, variant: Variant, fold: int) -> FoldData:
    """Return training and validation nodes with the channels that a variant sees; validation takes the place of the test."""
    parts = terms.fold_data(plan, fold)
    channels = channels_of(variant, plan.crops)
    train, validation = (_with_channels(part, channels) for part in (parts.train, parts.validation))
    return FoldData(train, validation, validation)


def _with_channels(cohort: Cohort, channels: Sequence[int]) -> Cohort:
    return replace(cohort, fsc=cohort.fsc[:, :, channels], asc=cohort.asc[:, :, channels])


def run_ablation(
    plan: ReproductionPlan,
    family: str,
    epochs: int,
    report: Callable[[str, int], Callable[[], None]],
    *,
    pretraining: bool = False,
) -> AblationResult:
    """Train every variant that is not trained yet and compare all on validation.

    Args:
        plan: the cohort, its crops and the device.
        family: of both networks.
        epochs: of each network.
        report: returns a function that is called after each network.
        pretraining: compare pretrained networks with those that start from random weights.
    """
    wanted = variants(plan.crops, pretraining=pretraining)
    nodes = terms.reproduction_cohort(plan, lambda: None)
    if pretraining:
        reproduce.pretrain(plan, nodes.cohort, report)
    progress = report("networks", len(wanted) * len(Crop))
    work = plan.folder / "ablation"
    for variant in wanted:
        data = partial(variant_data, plan, variant)
        grid.train_networks(data, _tasks(plan, variant, family, epochs), work / variant.folder, progress, plan.processes)
    rows = terms.split_by_patient(nodes, 0, plan.seed)
    validation = cohorts.select_nodes(nodes.cohort, rows.validation)
    scores: dict[str, list[Scores]] = {
        variant.name: [task.scores(work / variant.folder)["validation"] for task in _tasks(plan, variant, family, epochs)]
        for variant in wanted
    }
    scores[FLIPPED] = [
        _flipped_logits(plan, task, work / wanted[0].folder, validation) for task in _tasks(plan, wanted[0], family, epochs)
    ]
    return AblationResult(compare_variants(validation, scores), len(validation))


def compare_variants(validation: Cohort, scores: dict[str, list[Scores]]) -> list[AblationRow]:
    """Return the rows of the table; the first variant is the complete one.

    Args:
        validation: the nodes.
        scores: by variant, the logits of the FSC and of the ASC network.
    """
    labels, patients = validation.malignant, validation.patient
    means = {
        name: mean_probability(np.stack([selection.cross_fit(labels, member, patients) for member in members]), 1.0)
        for name, members in scores.items()
    }
    complete = next(iter(means))
    return [
        AblationRow(
            name,
            tuple(roc.auroc(labels, values, patients) for values in (*members, means[name])),
            None if name == complete else roc.compare_aurocs(labels, means[name], means[complete], patients),
        )
        for name, members in scores.items()
    ]


def _tasks(plan: ReproductionPlan, variant: Variant, family: str, epochs: int) -> list[TrainingTask]:
    found = []
    for crop in Crop:
        settings = replace(terms.training_settings(plan, family, crop, pretrained=variant.pretrained), epochs=epochs)
        if not variant.averaging:
            settings = replace(settings, averaging=0.0)
        found.append(TrainingTask(family, crop, 0, settings))
    return found


def _flipped_logits(plan: ReproductionPlan, task: TrainingTask, work: Path, validation: Cohort) -> Scores:
    """Return the mean logits of each validation node and of its mirror image."""
    weights = load_file(task.folder(work) / f"{task.crop.value}-weights.safetensors")
    family = next(a for a in network.ARCHITECTURES if a == task.family)
    model = network.restore(plan.crops.channels, task.settings.output_stride, weights, family).to(plan.device)
    mirrored = np.ascontiguousarray(crops_of_kind(validation, task.crop)[..., ::-1])
    other = replace(validation, fsc=mirrored, asc=mirrored)
    seen = [predict_logits(model, part, task.crop, plan.device) for part in (validation, other)]
    return np.asarray(np.mean(seen, axis=0))
