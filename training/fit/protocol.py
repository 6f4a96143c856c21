"""The protocol that phantoms and hospital cohorts share: gather the networks' scores, select and combine on validation, test once, export.

`training.fit.reproduce` runs it on phantoms and `training.clinical.study` on a hospital's own nodes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from safetensors.torch import load_file

from alnnode.model import network
from alnnode.records import Crop
from training.data import cohort as cohorts
from training.evaluate import auroc, bundle, operating_points, tables
from training.fit import selection
from training.fit.grid import Parts
from training.fit.member import TrainSettings
from training.networks import build, export

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from alnnode.imaging.crop import CropSettings
    from training.data.cohort import Cohort
    from training.evaluate.bundle import Figures
    from training.evaluate.tables import Row
    from training.fit.grid import Task
    from training.fit.selection import Combination, Member, Scale

    Scores = npt.NDArray[np.floating[Any]]
    Labels = npt.NDArray[np.bool_]
    Indices = npt.NDArray[np.intp]

PAPER: Final = ("densenet121", "DenseNet121 FSC + ASC, mean (the paper's)")
CHOSEN: Final = "chosen on validation"
SHUFFLED: Final = "labels shuffled (a check: about 0.5; one deal of labels scatters by more than this interval)"
SHORT_AXIS: Final = "short axis alone"
SENSITIVITY: Final = 0.98  # of the exported operating point, on validation


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one fold's parts; the test rows are the same in every fold."""

    train: Indices
    validation: Indices
    test: Indices


@dataclass(frozen=True, slots=True)
class Judgement:
    """What validation chose and what the test set says of it.

    Attributes:
        labels: of the validation nodes of all folds.
        validation, tested: logits of each network on the scale that was fitted on its validation nodes.
        scales: those of the networks of the first fold.
        best: of all combinations, on validation; ``pair`` is the one that a node serves, the mean of one FSC and one ASC network
            (`selection.served`).
        rows: single networks, both crops of each family, the paper's pair where it was trained, the chosen combination.
        single: name of the best single network on validation.
    """

    labels: Labels
    validation: Mapping[Member, Scores]
    tested: Mapping[Member, Scores]
    scales: Mapping[Member, Scale]
    best: Combination
    pair: Combination
    rows: list[Row]
    single: str

    @property
    def chosen(self) -> str:
        """The name of the chosen combination's row."""
        return f"{CHOSEN}: {self.best.name}"


def settings(family: str, epochs: int, batch: int, output_stride: int, seed: int, device: str) -> TrainSettings:
    """Return how a family is trained."""
    return TrainSettings(
        architecture=family,
        epochs=epochs,
        batch=batch,
        patience=max(epochs // 3, 4),
        output_stride=output_stride,
        seed=seed,
        device=device,
        # Depthwise convolutions are slower in bfloat16 on processors, everything else faster.
        bf16=device != "cpu" or not family.startswith("efficientnet"),
    )


def parts_of(cohort: Cohort, rows: Rows) -> Parts:
    """Return the nodes of a fold.

    Raises:
        LeakageError: a patient or a picture is in two parts.
    """
    train, validation, test = (cohorts.take(cohort, part) for part in (rows.train, rows.validation, rows.test))
    cohorts.check_leakage(train=train, validation=validation, test=test)
    return Parts(train, validation, test)


def shuffled(whole: Parts, seed: int, deal: int = 0) -> Parts:
    """Return the parts with the labels of each dealt out anew: nothing can be learned but what leaks, or what a deal has by chance."""
    rng = np.random.default_rng([seed, 13, deal])
    train, validation, test = (
        replace(part, malignant=rng.permutation(part.malignant)) for part in (whole.train, whole.validation, whole.test)
    )
    return Parts(train, validation, test)


def judge(
    labels: Labels, patients: npt.NDArray[np.str_], tasks: Sequence[Task], work: Path, costs: Mapping[str, float]
) -> Judgement:
    """Select and combine on validation, and set every model beside the others on the test set.

    Args:
        labels: of the validation nodes, fold after fold.
        patients: of the same nodes.
        tasks: the networks, all trained.
        work: where their scores are.
        costs: of each family (`costs`).
    """
    first = {(task.family, task.crop): task for task in tasks if task.fold == 0}
    families = tuple(dict.fromkeys(task.family for task in tasks))
    # Every fold's network has a scale of its own.
    validation = {
        member: _pooled(labels, [t.scores(work)["validation"] for t in tasks if (t.family, t.crop) == member])
        for member in first
    }
    # The network of the first fold is the one that is shipped, so it is the one that is tested.
    scales = {member: _scale(labels, task.scores(work)["validation"]) for member, task in first.items()}
    tested = {member: scales[member].apply(task.scores(work)["test"]) for member, task in first.items()}
    ranked = selection.combinations(labels, validation)
    best = ranked[0]
    rows = _singles(labels, validation, tested, families)
    single = max(rows[: len(validation)], key=lambda r: _area(labels, validation, r.name)).name
    if PAPER[0] in families:
        mean = paper(labels, validation)
        rows.append(tables.row(PAPER[1], labels, mean.apply(validation), mean.apply(tested)))
    rows.append(tables.row(f"{CHOSEN}: {best.name}", labels, best.apply(validation), best.apply(tested)))
    pair = selection.served(labels, patients, validation, costs)
    return Judgement(labels, validation, tested, scales, best, pair, rows, single)


def _pooled(labels: Labels, folds: Sequence[Scores]) -> Scores:
    """Return the logits of fold after fold, each on the scale fitted on it."""
    ends = np.cumsum([len(scores) for scores in folds])
    parts = zip(folds, np.split(labels, ends[:-1]), strict=True)
    return np.concatenate([selection.platt(of_fold, scores).apply(scores) for scores, of_fold in parts])


def _scale(labels: Labels, scores: Scores) -> Scale:
    """Return the scale of the first fold's network."""
    return selection.platt(labels[: len(scores)], scores)


def costs(families: Sequence[str], output_stride: int, crops: CropSettings) -> dict[str, float]:
    """Return what one crop costs each family."""
    return {family: build.multiply_adds(family, len(crops.windows), output_stride, crops.pixels) for family in families}


def paper(labels: Labels, validation: Mapping[Member, Scores]) -> Combination:
    """Return the paper's combination: both crops of its family, mean."""
    return selection.fit(labels, validation, ((PAPER[0], Crop.FSC), (PAPER[0], Crop.ASC)), "mean")


def named(member: Member) -> str:
    """Return a network's name in the tables."""
    return f"{member[0]}, {member[1].value.upper()}"


def _area(labels: Labels, validation: Mapping[Member, Scores], name: str) -> float:
    return float(auroc.order(labels, next(scores for member, scores in validation.items() if named(member) == name)).mean())


def _singles(
    labels: Labels, validation: Mapping[Member, Scores], tested: Mapping[Member, Scores], families: tuple[str, ...]
) -> list[Row]:
    found = [
        tables.row(named((family, crop)), labels, validation[family, crop], tested[family, crop])
        for crop in Crop
        for family in families
    ]
    for family in families:
        both = selection.fit(labels, validation, ((family, Crop.FSC), (family, Crop.ASC)), "mean")
        if family != PAPER[0]:
            found.append(tables.row(both.name, labels, both.apply(validation), both.apply(tested)))
    return found


def short_axis(cohort: Cohort, rows: Rows) -> Row:
    """Return the row of the baseline that needs no network."""
    size = cohort.short_axis
    return tables.row(SHORT_AXIS, cohort.malignant[rows.validation], size[rows.validation], size[rows.test])


def chance(family: str, cohort: Cohort, rows: Rows, scores: Mapping[str, Scores]) -> Row:
    """Return the row of a network that learned shuffled labels, judged on the right ones."""
    return tables.row(f"{family} FSC, {SHUFFLED}", cohort.malignant[rows.validation], scores["validation"], scores["test"])


def restore(task: Task, work: Path, channels: int, scale: Scale) -> torch.nn.Module:
    """Return a trained network as the node would run it: from weights in half precision, its scale part of its last layer."""
    weights = load_file(task.folder(work) / f"{task.crop.value}-best.safetensors")
    family = next(a for a in network.ARCHITECTURES if a == task.family)
    model = network.restore(channels, task.settings.output_stride, weights, family)
    *_, last = (module for module in model.modules() if isinstance(module, torch.nn.Linear))
    with torch.no_grad():
        last.weight.mul_(scale.slope)
        last.bias.mul_(scale.slope).add_(scale.intercept)
    halves = export.halved(model.state_dict())
    return network.restore(channels, task.settings.output_stride, halves, family).to(task.settings.device)


def calibrate(
    judgement: Judgement, models: Mapping[Crop, torch.nn.Module], test: Cohort, device: str, sensitivity: float = SENSITIVITY
) -> tuple[float, Figures]:
    """Return the temperature of the pair that is exported, and its figures on the test set at the operating point; both from validation.

    ``sensitivity`` is what the operating point has on validation at least.
    """
    stacked = np.stack([judgement.validation[member] for member in judgement.pair.members])
    temperature = operating_points.temperature_for(judgement.labels, stacked)
    probability = operating_points.mean_probability(stacked, temperature)
    threshold = operating_points.threshold_for(judgement.labels, probability, sensitivity)
    return temperature, bundle.evaluate(test, models, temperature, threshold, device)
