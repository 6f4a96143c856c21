"""Run the reproduction: draw the cohort, train every family under both crops, select, combine, test once."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional

from alnnode import phantom
from alnnode.model import bundle as bundles
from alnnode.model import network
from alnnode.records import Crop
from training.data import cohort as cohorts
from training.data import node_features
from training.evaluate import calibration, operating_points, roc, subgroups, tables
from training.fit import grid, protocol, selection
from training.fit import reproduction_terms as terms
from training.fit.bundle_contents import BundleContents, detector_of
from training.fit.demo_bundle import SENSITIVITY_TARGET
from training.fit.protocol import CHOSEN, PAPER, SHORT_AXIS
from training.networks import build
from training.networks.inference import predict_logits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from training.data.cohort import Cohort
    from training.data.node_features import FeatureCohort
    from training.evaluate.tables import ModelRow
    from training.fit.grid import TrainingTask
    from training.fit.protocol import FoldRows, SelectedModels
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
        chance: AUROC on the true labels of networks trained on permuted labels, one for each permutation.
        shifted: the nodes of the harder cohort, and the rows over them.
        groups: subgroups of the best combination.
        calibration: expected calibration error and Brier score of the best combination.
        bundle: the contents of the bundle.
        exported: name of the pair of networks in the bundle.
        choice: the comparison of this pair with the best pair on validation, in words.
        seconds: duration of all runs that contributed to this result.
    """

    test: Cohort
    rows: list[ModelRow]
    best: str
    single: str
    member: str
    chance: tuple[float, ...]
    shifted: tuple[Cohort, list[ModelRow]]
    groups: list[subgroups.Subgroup]
    calibration: tuple[float, float]
    bundle: BundleContents
    exported: str
    choice: str
    nodes: FeatureCohort
    seconds: float


def estimate_seconds(plan: ReproductionPlan) -> float:
    """Estimate the duration of a complete run on this machine by timing one phantom and one step of each family."""
    profile = plan.profile
    begun = time.perf_counter()
    phantom.make_patient(plan.seed, 0, plan.phantoms)
    drawing = 1.6 * (time.perf_counter() - begun) * (profile.patients + profile.shifted) / max(plan.processes, 1)
    batch = torch.rand(profile.batch, plan.crops.channels, profile.pixels, profile.pixels, device=plan.device)
    steps = 0.6 * profile.nodes / profile.batch * profile.epochs * profile.folds * len(Crop)
    learning = 0.0
    torch.set_num_threads(1)
    for family in profile.families:
        model = build.build(family, batch.shape[1], profile.output_stride).to(plan.device)
        for warm in (False, True):
            begun = time.perf_counter()
            with torch.autocast(plan.device, torch.bfloat16, enabled=terms.training_settings(plan, family).bf16):
                loss = functional.softplus(model(batch).float()).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            loss.item()
            learning += (time.perf_counter() - begun) * steps * warm
    return drawing + 1.15 * learning / max(plan.processes, 1)


def run_reproduction(plan: ReproductionPlan, report: Report) -> ReproductionResult:
    """Run every step whose result is not on disk yet."""
    begun, profile = time.perf_counter(), plan.profile
    nodes = terms.reproduction_cohort(plan, report("phantoms", profile.patients))
    tasks = terms.training_tasks(plan)
    grid.train_networks(
        partial(terms.fold_data, plan), tasks, plan.work / profile.name, report("networks", len(tasks)), plan.processes
    )
    first = next(task for task in tasks if task.family == profile.families[0] and task.crop is Crop.FSC)
    control = [replace(first, fold=permutation) for permutation in range(PERMUTATIONS)]
    folder = plan.work / profile.name / "shuffled"
    grid.train_networks(
        partial(terms.fold_data_permuted, plan),
        control,
        folder,
        report("networks, permuted labels", PERMUTATIONS),
        plan.processes,
    )
    harder = node_features.collect_features(
        plan.source(shifted=True),
        profile.shifted,
        plan.work / "crops",
        report("harder phantoms", profile.shifted),
        plan.processes,
    )
    chance = [task.scores(folder)["test"] for task in control]
    result = _evaluate(plan, nodes, harder.cohort, tasks, chance)
    return replace(result, seconds=_elapsed(plan.work / profile.name / "seconds", time.perf_counter() - begun))


def _elapsed(path: Path, seconds: float) -> float:
    """Add the duration of this run to that of earlier runs, whose results it reuses, and return the sum."""
    before = float(path.read_text(encoding="utf-8")) if path.exists() else 0.0
    path.write_text(f"{before + seconds:.1f}", encoding="utf-8")
    return before + seconds


def _evaluate(
    plan: ReproductionPlan, nodes: FeatureCohort, harder: Cohort, tasks: list[TrainingTask], chance: Sequence[Scores]
) -> ReproductionResult:
    profile, work = plan.profile, plan.work / plan.profile.name
    splits = [terms.split_by_patient(nodes, fold, plan.seed) for fold in range(profile.folds)]
    test = node_features.select_nodes(nodes, splits[0].test)
    validated = cohorts.select_nodes(nodes.cohort, np.concatenate([rows.validation for rows in splits]))
    labels = validated.malignant
    costs = protocol.family_costs(profile.families, profile.output_stride, plan.crops)
    selected = protocol.select_models(labels, validated.patient, tasks, work, costs)
    best, pair, validation = selected.best, selected.pair, selected.validation
    mean = protocol.paper_combination(labels, validation)
    rows = [*selected.rows, *_baselines(nodes, splits[0])]
    first = {(task.family, task.crop): task for task in tasks if task.fold == 0}
    used = sorted({*best.members, *mean.members, *pair.members})
    models = {
        member: protocol.restore_calibrated(first[member], work, plan.crops.channels, selected.scales[member])
        for member in used
    }
    logits = {member: predict_logits(models[member], harder, member[1], plan.device) for member in used}
    shifted = [
        tables.ModelRow(
            PAPER[1],
            mean.apply(logits),
            mean.apply(logits) >= operating_points.youden_threshold(labels, mean.apply(validation)),
        ),
        tables.ModelRow(
            CHOSEN, best.apply(logits), best.apply(logits) >= operating_points.youden_threshold(labels, best.apply(validation))
        ),
        tables.ModelRow(SHORT_AXIS, harder.short_axis, harder.short_axis >= 10),
    ]
    probability = best.apply(selected.tested)
    return ReproductionResult(
        test=test.cohort,
        rows=rows,
        best=selected.chosen,
        single=selected.single,
        member=protocol.member_name(max(mean.members, key=lambda member: _area(labels, validation[member]))),
        chance=tuple(_area(test.cohort.malignant, scores) for scores in chance),
        shifted=(harder, shifted),
        groups=subgroups.subgroup_aurocs(test.cohort.malignant, probability, test.cohort.patient, test.groups()),
        calibration=(
            calibration.expected_calibration_error(test.cohort.malignant, probability),
            calibration.brier_score(test.cohort.malignant, probability),
        ),
        bundle=_bundle(plan, nodes, selected, {crop: models[family, crop] for family, crop in pair.members}),
        exported=pair.name,
        choice=_choice(selected, validated.patient, costs),
        nodes=nodes,
        seconds=0.0,
    )


def _choice(selected: SelectedModels, patients: npt.NDArray[np.str_], costs: Mapping[str, float]) -> str:
    """Compare the pair in the bundle with the best pair on validation, in words."""
    by_crop = [[member for member in selected.validation if member[1] is crop] for crop in Crop]
    found = [selection.fit_combination(selected.labels, selected.validation, members, "mean") for members in product(*by_crop)]
    best = max(found, key=lambda pair: pair.validation_auroc)
    scores = [pair.apply(selected.validation) for pair in (selected.pair, best)]
    p = roc.compare_aurocs(selected.labels, scores[0], scores[1], patients).p
    described = [
        f"{pair.validation_auroc:.3f} with {sum(costs[family] for family, _ in pair.members):.0f} million multiply-adds a node"
        for pair in (selected.pair, best)
    ]
    return f"Its AUROC on validation is {described[0]}. The best pair, {best.name}, has {described[1]}; p = {p:.3f} (DeLong, clustered)"


def _area(labels: Labels, scores: Scores) -> float:
    return float(roc.pairwise_wins(labels, scores).mean())


def _baselines(nodes: FeatureCohort, rows: FoldRows) -> list[ModelRow]:
    """Return the rows of baselines: the short axis, and regressions on measured features and on the generator's parameters."""
    labels = nodes.cohort.malignant
    found = [protocol.short_axis_row(nodes.cohort, rows)]
    for name, columns in (("measured morphology", nodes.measured), ("the generator's parameters", nodes.drawn)):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000)).fit(
            columns[rows.train], labels[rows.train]
        )
        scores = [model.decision_function(columns[part]) for part in (rows.validation, rows.test)]
        found.append(tables.row_at_youden(f"logistic regression on {name}", labels[rows.validation], scores[0], scores[1]))
    return found


def _bundle(
    plan: ReproductionPlan, nodes: FeatureCohort, selected: SelectedModels, models: dict[Crop, torch.nn.Module]
) -> BundleContents:
    """Return the contents of the bundle with the served pair."""
    profile = plan.profile
    rows = terms.split_by_patient(nodes, 0, plan.seed)
    test = cohorts.select_nodes(nodes.cohort, rows.test)
    temperature, figures = protocol.calibrate_pair(selected, models, test, plan.device, SENSITIVITY_TARGET)
    return BundleContents(
        name=f"alnnode-reproduction-{profile.name}",
        version="0.1.0",
        demonstration=True,
        training_data=f"synthetic phantoms only: {len(rows.train)} nodes, reproduction seed {plan.seed}, profile {profile.name}",
        crops=plan.crops,
        output_stride=profile.output_stride,
        architectures={crop: next(a for a in network.ARCHITECTURES if a == family) for family, crop in selected.pair.members},
        members={crop: dict(model.state_dict()) for crop, model in models.items()},
        temperature=temperature,
        prevalence=float(selected.labels.mean()),
        figures=figures,
        test_set=f"held-out synthetic phantoms of the reproduction, n = {figures.nodes} nodes of {figures.patients} phantoms",
        detector=detector_of(bundles.load(bundles.resolve("demo"))),
        command=f"python -m training reproduce --profile {profile.name}",
        provenance={"seed": plan.seed, "phantom_code": cohorts.phantom_code(), "device": plan.device, "profile": profile.name},
    )
