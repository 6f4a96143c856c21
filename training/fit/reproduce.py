"""Run the reproduction: draw the cohort, train every family under both crops, select, combine, test once."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from alnnode.model import bundle as bundles
from alnnode.model import network
from alnnode.records import Crop
from training.data import cohort as cohorts
from training.data import near_duplicates, node_features
from training.evaluate import bundle_metrics, calibration, roc, subgroups, tables
from training.evaluate.fresh_phantoms import fresh_metrics
from training.fit import grid, pretraining, protocol, reproduction_rows, selection
from training.fit import reproduction_terms as terms
from training.fit.bundle_contents import BundleContents, detector_of
from training.fit.demo_bundle import SENSITIVITY_TARGET
from training.fit.protocol import CHOSEN, PAPER, SHORT_AXIS
from training.networks.inference import predict_logits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy.typing as npt
    import torch

    from training.data.cohort import Cohort
    from training.data.node_features import FeatureCohort
    from training.evaluate.fresh_phantoms import FreshMetrics
    from training.evaluate.tables import ModelRow
    from training.fit.protocol import CalibratedPair, SelectedModels
    from training.fit.reproduction_terms import ReproductionPlan

    Scores = npt.NDArray[np.floating[Any]]
    Labels = npt.NDArray[np.bool_]
    Report = Callable[[str, int], Callable[[], None]]


PERMUTATIONS: Final = 5  # of the labels, for the control


@dataclass(frozen=True, slots=True)
class ReproductionResult:
    """The result of one run; rows are over the test nodes.

    Attributes:
        best: name of the best combination on validation.
        single: name of the best single network on validation, with which the combination is compared.
        member: name of the better network of the paper's combination, on validation.
        chance: AUROC on the permuted labels of networks that were trained on permuted labels, one for each permutation.
        fresh: metrics of the bundle at its operating point on fresh phantoms, by contrast phase; "all" first.
        shifted: the nodes of the harder cohort, and the rows over them.
        groups: subgroups of the best combination.
        calibration: expected calibration error and Brier score of the best combination.
        bundle: the contents of the bundle.
        exported: name of the pair of networks in the bundle.
        choice: the comparison of this pair with the best pair on validation, in words.
        learned: what pretraining taught the network of the paper's family under each crop (`reproduction_rows.explained_variance`).
        seconds: duration of all runs that contributed to this result.
    """

    test: Cohort
    rows: list[ModelRow]
    best: str
    single: str
    member: str
    chance: tuple[float, ...]
    fresh: dict[str, FreshMetrics]
    shifted: tuple[Cohort, list[ModelRow]]
    groups: list[subgroups.Subgroup]
    calibration: tuple[float, float]
    bundle: BundleContents
    exported: str
    choice: str
    nodes: FeatureCohort
    learned: dict[Crop, dict[str, float]]
    seconds: float


@dataclass(frozen=True, slots=True)
class FurtherCohorts:
    """Phantoms on which nothing is trained, chosen or fitted."""

    fresh: FeatureCohort
    harder: Cohort


@dataclass(frozen=True, slots=True)
class ServedPair:
    """The networks of the pair for the bundle as the node runs them, and what validation determines for them."""

    models: Mapping[Crop, torch.nn.Module]
    calibrated: CalibratedPair


def run_reproduction(plan: ReproductionPlan, report: Report) -> ReproductionResult:
    """Run every step whose result is not on disk yet."""
    begun, profile = time.perf_counter(), plan.profile
    nodes = terms.reproduction_cohort(plan, report("phantoms", profile.patients))
    near_duplicates.check_cohort(nodes.cohort)
    pretrain(plan, nodes.cohort, report)
    tasks, repeated = terms.training_tasks(plan), terms.repeated_tasks(plan)
    grid.train_networks(
        partial(terms.fold_data, plan),
        [*tasks, *repeated],
        plan.folder,
        report("networks", len(tasks) + len(repeated)),
        plan.processes,
    )
    first = next(task for task in tasks if task.family == profile.families[0] and task.crop is Crop.FSC)
    # What leaks is learned in a few epochs.
    settings = replace(first.settings, epochs=max(profile.epochs // 4, 1))
    control = [replace(first, fold=permutation, settings=settings) for permutation in range(PERMUTATIONS)]
    folder = plan.folder / "shuffled"
    grid.train_networks(
        partial(terms.fold_data_permuted, plan),
        control,
        folder,
        report("networks, permuted labels", PERMUTATIONS),
        plan.processes,
    )
    fresh, harder = (
        node_features.collect_features(source, count, plan.work / "crops", report(name, count), plan.processes)
        for name, source, count in (
            ("fresh phantoms", plan.fresh_source, profile.fresh),
            ("harder phantoms", plan.shifted_source, profile.shifted),
        )
    )
    test = terms.split_by_patient(nodes, 0, plan.seed).test
    permuted = [protocol.permute_labels(nodes.cohort, plan.seed, task.fold).malignant[test] for task in control]
    chance = tuple(
        _area(labels, task.scores(folder)["test"])
        for labels, task in zip(permuted, control, strict=True)
        if labels.any() and not labels.all()  # in a tiny test set, a permutation can leave one class
    )
    result = _evaluate(plan, nodes, FurtherCohorts(fresh, harder.cohort), chance)
    return replace(result, seconds=_elapsed(plan.folder / "seconds", time.perf_counter() - begun))


def pretrain(plan: ReproductionPlan, cohort: Cohort, report: Report) -> None:
    """Pretrain the networks on auxiliary phantoms, where the profile says so.

    Raises:
        LeakageError: a patient or a crop of the cohort is among them.
    """
    tasks, count, cache = terms.pretraining_tasks(plan), plan.profile.pretraining, plan.work / "crops"
    if not tasks:
        return
    drawn = node_features.collect_features(
        plan.pretraining_source, count, cache, report("auxiliary phantoms", count), plan.processes
    )
    cohorts.check_leakage(pretraining=drawn.cohort, cohort=cohort)
    pretraining.pretrain_networks(tasks, cache, plan.folder, report("pretraining", len(tasks)), plan.processes)


def _elapsed(path: Path, seconds: float) -> float:
    """Add the duration of this run to that of earlier runs, whose results it reuses, and return the sum."""
    before = float(path.read_text(encoding="utf-8")) if path.exists() else 0.0
    path.write_text(f"{before + seconds:.1f}", encoding="utf-8")
    return before + seconds


def _evaluate(
    plan: ReproductionPlan, nodes: FeatureCohort, further: FurtherCohorts, chance: tuple[float, ...]
) -> ReproductionResult:
    profile, work = plan.profile, plan.folder
    tasks, harder = terms.training_tasks(plan), further.harder
    splits = [terms.split_by_patient(nodes, fold, plan.seed) for fold in range(profile.folds)]
    test = node_features.select_nodes(nodes, splits[0].test)
    validated = cohorts.select_nodes(nodes.cohort, np.concatenate([rows.validation for rows in splits]))
    labels = validated.malignant
    costs = protocol.family_costs(profile.families, profile.output_stride, plan.crops)
    selected = protocol.select_models(labels, validated.patient, tasks, work, costs)
    best, pair, validation = selected.best, selected.pair, selected.validation
    mean = protocol.paper_combination(labels, validation)
    rows = [
        *selected.rows,
        *reproduction_rows.repeated_rows(plan, nodes.cohort, splits[0]),
        *reproduction_rows.baseline_rows(nodes, splits[0]),
    ]
    first = {(task.family, task.crop): task for task in tasks if task.fold == 0}
    used = sorted({*best.members, *mean.members, *pair.members})
    models = {
        member: protocol.restore_calibrated(first[member], work, plan.crops.channels, selected.scales[member])
        for member in used
    }
    logits = {member: predict_logits(models[member], harder, member[1], plan.device) for member in used}
    shifted = [
        tables.row_at_youden(name, labels, one.apply(validation), one.apply(logits))
        for name, one in ((PAPER[1], mean), (CHOSEN, best))
    ]
    shifted.append(tables.ModelRow(SHORT_AXIS, harder.short_axis, harder.short_axis >= 10))
    probability = best.apply(selected.tested)
    calibrated = protocol.calibrate_pair(selected, SENSITIVITY_TARGET)
    served = ServedPair({crop: models[family, crop] for family, crop in pair.members}, calibrated)
    point = (calibrated.temperature, calibrated.threshold)
    measured = fresh_metrics(further.fresh, served.models, point, SENSITIVITY_TARGET, plan.device)
    return ReproductionResult(
        test=test.cohort,
        rows=rows,
        best=selected.chosen,
        single=selected.single,
        member=protocol.member_name(max(mean.members, key=lambda member: _area(labels, validation[member]))),
        chance=chance,
        fresh=measured,
        shifted=(harder, shifted),
        groups=subgroups.subgroup_aurocs(test.cohort.malignant, probability, test.cohort.patient, test.groups()),
        calibration=(
            calibration.expected_calibration_error(test.cohort.malignant, probability),
            calibration.brier_score(test.cohort.malignant, probability),
        ),
        bundle=_bundle(plan, further.fresh.cohort, selected, served, measured),
        exported=pair.name,
        choice=_choice(selected, validated.patient, costs),
        nodes=nodes,
        learned=reproduction_rows.explained_variance(plan),
        seconds=0.0,
    )


def _choice(selected: SelectedModels, patients: npt.NDArray[np.str_], costs: Mapping[str, float]) -> str:
    """Compare the pair in the bundle with the best pair on validation, in words."""
    by_crop = [[member for member in selected.validation if member[1] is crop] for crop in Crop]
    found = [selection.fit_combination(selected.labels, selected.validation, members, "mean") for members in product(*by_crop)]
    best = max(found, key=lambda pair: pair.validation_auroc)
    if best.members == selected.pair.members:
        return f"Its AUROC on validation is {best.validation_auroc:.3f}; no other pair was better"
    scores = [pair.apply(selected.validation) for pair in (selected.pair, best)]
    p = roc.compare_aurocs(selected.labels, scores[0], scores[1], patients).p
    described = [
        f"{pair.validation_auroc:.3f} with {sum(costs[family] for family, _ in pair.members):.0f} million multiply-adds a node"
        for pair in (selected.pair, best)
    ]
    return f"Its AUROC on validation is {described[0]}. The best pair, {best.name}, has {described[1]}; p = {p:.3f} (DeLong, clustered)"


def _area(labels: Labels, scores: Scores) -> float:
    return float(roc.pairwise_wins(labels, scores).mean())


def _bundle(
    plan: ReproductionPlan,
    fresh: Cohort,
    selected: SelectedModels,
    served: ServedPair,
    measured: Mapping[str, FreshMetrics],
) -> BundleContents:
    """Return the contents of the bundle with the served pair; its figures are those of fresh phantoms."""
    profile, models, pair = plan.profile, served.models, served.calibrated
    figures = bundle_metrics.evaluate_ensemble(fresh, models, pair.temperature, pair.threshold, plan.device)
    phases = ", ".join(f"{value.specificity.value:.2f} ({name})" for name, value in measured.items() if name != "all")
    return BundleContents(
        name=f"alnnode-reproduction-{profile.name}",
        version="0.1.0",
        demonstration=True,
        training_data=f"synthetic phantoms only: reproduction seed {plan.seed}, profile {profile.name}{_before(plan)}",
        crops=plan.crops,
        output_stride=profile.output_stride,
        architectures={crop: next(a for a in network.ARCHITECTURES if a == family) for family, crop in selected.pair.members},
        members={crop: dict(model.state_dict()) for crop, model in models.items()},
        temperature=pair.temperature,
        prevalence=float(selected.labels.mean()),
        figures=figures,
        test_set=f"fresh synthetic phantoms of seed {plan.fresh_seed}, n = {figures.nodes} nodes of {figures.patients} phantoms",
        detector=detector_of(bundles.load(bundles.resolve("demo"))),
        command=f"python -m training reproduce --profile {profile.name}",
        notes=(pair.note(SENSITIVITY_TARGET), f"Specificity by contrast phase: {phases}."),
        provenance={
            "seed": plan.seed,
            "pretraining_seed": plan.pretraining_seed if profile.pretraining else None,
            "phantom_code": cohorts.phantom_code(),
            "device": plan.device,
            "profile": profile.name,
        },
    )


def _before(plan: ReproductionPlan) -> str:
    """Return what the networks learned before, for the model card."""
    return f"; pretrained on phantoms of seed {plan.pretraining_seed}" if plan.profile.pretraining else ""
