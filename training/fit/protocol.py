"""The protocol of phantom and hospital cohorts: collect the scores of the networks, select and combine on validation, test once.

`training.fit.reproduce` runs it on phantoms and `training.clinical.cohort_training` on a hospital's own nodes.
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
from training.evaluate import calibration, operating_points, roc, tables
from training.fit import selection
from training.fit.grid import FoldData
from training.fit.member import TrainSettings
from training.networks import build
from training.networks.inference import half_precision, mean_probability

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from alnnode.imaging.crop import CropSettings
    from training.data.cohort import Cohort
    from training.evaluate.tables import ModelRow
    from training.fit.grid import TrainingTask
    from training.fit.selection import Combination, Member, PlattScale

    Scores = npt.NDArray[np.floating[Any]]
    Labels = npt.NDArray[np.bool_]
    Indices = npt.NDArray[np.intp]

PAPER: Final = ("densenet121", "DenseNet121 FSC + ASC, mean (the paper's networks, our rule)")
CHOSEN: Final = "chosen on validation"
SHORT_AXIS: Final = "short axis alone"
AVERAGING: Final = 0.98  # an average over about 50 steps, two epochs of the reproduction
FINE_TUNING: Final = 3e-4  # learning rate of a network that starts from trained weights
SENSITIVITY: Final = 0.98  # of the bundle's operating point, on validation


@dataclass(frozen=True, slots=True)
class FoldRows:
    """The rows of the cohort in each part of one fold; the test rows are the same in every fold."""

    train: Indices
    validation: Indices
    test: Indices


@dataclass(frozen=True, slots=True)
class SelectedModels:
    """The models that validation selects, and their scores on the test set.

    Attributes:
        labels: of the validation nodes of all folds.
        patients: of the same nodes.
        validation: logits of each network, cross-fitted: no node took part in fitting its own scale.
        tested: logits of each network of the first fold on the test nodes, on the scale that was fitted on all its validation nodes.
        scales: those of the networks of the first fold.
        best: the best combination on validation.
        pair: the pair for the bundle, the mean of one FSC and one ASC network (`selection.served_pair`).
        rows: single networks, both crops of each family, the paper's pair if it was trained, the best combination.
        single: name of the best single network on validation.
    """

    labels: Labels
    patients: npt.NDArray[np.str_]
    validation: Mapping[Member, Scores]
    tested: Mapping[Member, Scores]
    scales: Mapping[Member, PlattScale]
    best: Combination
    pair: Combination
    rows: list[ModelRow]
    single: str

    @property
    def chosen(self) -> str:
        """The name of the row of the best combination."""
        return f"{CHOSEN}: {self.best.name}"


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """The options of a run that apply to all families (`TrainSettings` explains them)."""

    epochs: int
    batch: int
    output_stride: int
    seed: int
    device: str
    averaging: float = AVERAGING
    numbers: int = 0

    def for_family(self, family: str, weights: Path | None = None) -> TrainSettings:
        """Return the settings with which a family is trained, from these weights or from random ones."""
        return TrainSettings(
            architecture=family,
            weights=str(weights) if weights else "",
            learning_rate=FINE_TUNING if weights else TrainSettings().learning_rate,
            numbers=self.numbers,
            epochs=self.epochs,
            batch=self.batch,
            averaging=self.averaging,
            output_stride=self.output_stride,
            seed=self.seed,
            device=self.device,
            # On CPUs, bfloat16 makes depthwise convolutions slower and everything else faster.
            bf16=self.device != "cpu" or not family.startswith("efficientnet"),
        )


def averaging_for(steps: int) -> float:
    """Return the decay of the averaged weights for a training of this many steps.

    With a fixed decay, the average of a short training would be mostly the untrained network: 0.98 gives the first step of 30 a weight
    of more than a half. So the average never spans more than a tenth of the steps.
    """
    return min(AVERAGING, max(0.0, 1 - 10 / steps))


def fold_data(cohort: Cohort, rows: FoldRows) -> FoldData:
    """Return the cohorts of a fold.

    Raises:
        LeakageError: a patient or a crop is in two parts.
    """
    train, validation, test = (cohorts.select_nodes(cohort, part) for part in (rows.train, rows.validation, rows.test))
    cohorts.check_leakage(train=train, validation=validation, test=test)
    return FoldData(train, validation, test)


def permute_labels(cohort: Cohort, seed: int, permutation: int = 0) -> Cohort:
    """Return the cohort with permuted labels, before it is split.

    A network that is trained on such labels and judged on such labels learns only what leaks: a node that the split puts into two parts
    has the same permuted label in both.
    """
    rng = np.random.default_rng([seed, 13, permutation])
    return replace(cohort, malignant=rng.permutation(cohort.malignant))


def select_models(
    labels: Labels, patients: npt.NDArray[np.str_], tasks: Sequence[TrainingTask], work: Path, costs: Mapping[str, float]
) -> SelectedModels:
    """Select and combine networks on validation, and score every model on the test set.

    Args:
        labels: of the validation nodes, fold after fold.
        patients: of the same nodes.
        tasks: the networks, which are all trained.
        work: folder of their scores.
        costs: of each family (`family_costs`).
    """
    first = {(task.family, task.crop): task for task in tasks if task.fold == 0}
    families = tuple(dict.fromkeys(task.family for task in tasks))
    # The network of each fold has its own scale.
    validation = {
        member: _pooled(labels, patients, [t.scores(work)["validation"] for t in tasks if (t.family, t.crop) == member])
        for member in first
    }
    # The bundle contains the network of the first fold, so that network is tested.
    scales = {member: _scale(labels, task.scores(work)["validation"]) for member, task in first.items()}
    tested = {member: scales[member].apply(task.scores(work)["test"]) for member, task in first.items()}
    ranked = selection.rank_combinations(labels, validation, selection.rules_for(patients))
    best = ranked[0]
    rows = _singles(labels, validation, tested, families)
    single = max(rows[: len(validation)], key=lambda r: _area(labels, validation, r.name)).name
    if PAPER[0] in families:
        mean = paper_combination(labels, validation)
        rows.append(tables.row_at_youden(PAPER[1], labels, mean.apply(validation), mean.apply(tested)))
    rows.append(tables.row_at_youden(f"{CHOSEN}: {best.name}", labels, best.apply(validation), best.apply(tested)))
    pair = selection.served_pair(labels, patients, validation, costs)
    return SelectedModels(labels, patients, validation, tested, scales, best, pair, rows, single)


def _pooled(labels: Labels, patients: npt.NDArray[np.str_], folds: Sequence[Scores]) -> Scores:
    """Return the logits of all folds in order, each fold on a cross-fitted scale of its own."""
    ends = np.cumsum([len(scores) for scores in folds])[:-1]
    parts = zip(folds, np.split(labels, ends), np.split(patients, ends), strict=True)
    return np.concatenate([selection.cross_fit(part, scores, names) for scores, part, names in parts])


def _scale(labels: Labels, scores: Scores) -> PlattScale:
    """Return the scale of the first fold's network."""
    return selection.fit_platt_scale(labels[: len(scores)], scores)


def family_costs(families: Sequence[str], output_stride: int, crops: CropSettings) -> dict[str, float]:
    """Return the cost of one crop for each family, in million multiply-adds."""
    return {family: build.multiply_adds(family, crops.channels, output_stride, crops.pixels) for family in families}


def paper_combination(labels: Labels, validation: Mapping[Member, Scores]) -> Combination:
    """Return the combination of the paper: the mean of both crops of its family."""
    return selection.fit_combination(labels, validation, ((PAPER[0], Crop.FSC), (PAPER[0], Crop.ASC)), "mean")


def member_name(member: Member) -> str:
    """Return the name of a network in the tables."""
    return f"{member[0]}, {member[1].value.upper()}"


def _area(labels: Labels, validation: Mapping[Member, Scores], name: str) -> float:
    return float(
        roc.pairwise_wins(labels, next(scores for member, scores in validation.items() if member_name(member) == name)).mean()
    )


def _singles(
    labels: Labels, validation: Mapping[Member, Scores], tested: Mapping[Member, Scores], families: tuple[str, ...]
) -> list[ModelRow]:
    found = [
        tables.row_at_youden(member_name((family, crop)), labels, validation[family, crop], tested[family, crop])
        for crop in Crop
        for family in families
    ]
    for family in families:
        both = selection.fit_combination(labels, validation, ((family, Crop.FSC), (family, Crop.ASC)), "mean")
        if family != PAPER[0]:
            found.append(tables.row_at_youden(both.name, labels, both.apply(validation), both.apply(tested)))
    return found


def short_axis_row(cohort: Cohort, rows: FoldRows) -> ModelRow:
    """Return the row of the short axis, the baseline without a network."""
    size = cohort.short_axis
    return tables.row_at_youden(SHORT_AXIS, cohort.malignant[rows.validation], size[rows.validation], size[rows.test])


def restore_calibrated(task: TrainingTask, work: Path, channels: int, scale: PlattScale) -> torch.nn.Module:
    """Return a trained network as the node runs it: in half precision, with its Platt scale merged into the last layer."""
    weights = load_file(task.folder(work) / f"{task.crop.value}-weights.safetensors")
    family = next(a for a in network.ARCHITECTURES if a == task.family)
    model = network.restore(channels, task.settings.output_stride, weights, family)
    *_, last = (module for module in model.modules() if isinstance(module, torch.nn.Linear))
    with torch.no_grad():
        last.weight.mul_(scale.slope)
        last.bias.mul_(scale.slope).add_(scale.intercept)
    halves = half_precision(model.state_dict())
    return network.restore(channels, task.settings.output_stride, halves, family).to(task.settings.device)


@dataclass(frozen=True, slots=True)
class CalibratedPair:
    """What validation determines for the pair in a bundle.

    Attributes:
        temperature: of the logits.
        threshold: the highest one with the target sensitivity on validation.
        specificity: 95 % range of the specificity on all validation nodes, when the threshold is chosen on bootstrap samples of the validation
            patients. It is wide when few nodes are malignant. It does not contain the sampling of the benign nodes.
    """

    temperature: float
    threshold: float
    specificity: tuple[float, float]

    def note(self, sensitivity: float) -> str:
        """Return a sentence for the model card on how sure the operating point is."""
        low, high = self.specificity
        return (
            f"The threshold aims at a sensitivity of {sensitivity:.2f} on validation. Over bootstrap samples of the validation patients the "
            f"threshold varies; its specificity on the validation nodes themselves is then {low:.2f} to {high:.2f}. On other nodes it can lie outside: "
            "the table above has the measured one."
        )


def calibrate_pair(selected: SelectedModels, sensitivity: float = SENSITIVITY) -> CalibratedPair:
    """Return the temperature and the operating point of the pair for the bundle, determined on cross-fitted validation logits.

    Args:
        selected: of the selection.
        sensitivity: least sensitivity of the operating point on validation.
    """
    stacked = np.stack([selected.validation[member] for member in selected.pair.members])
    temperature = calibration.fit_temperature(selected.labels, stacked)
    probability = mean_probability(stacked, temperature)
    threshold = operating_points.threshold_for_sensitivity(selected.labels, probability, sensitivity)
    spread = operating_points.specificity_range(selected.labels, probability, selected.patients, sensitivity)
    return CalibratedPair(temperature, threshold, spread)
