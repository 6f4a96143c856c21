"""``make reproduce``: draw the cohort, train every family under both crops, select, combine, test once, export, write the document."""

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
from training.data import described
from training.evaluate import auroc, operating_points, tables
from training.fit import grid, protocol, selection
from training.fit import reproduction as terms
from training.fit.demo import SENSITIVITY_TARGET
from training.fit.member import logits
from training.fit.protocol import CHOSEN, PAPER, SHORT_AXIS
from training.networks import build, export

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from training.data.cohort import Cohort
    from training.data.described import Described
    from training.evaluate.tables import Row
    from training.fit.grid import Task
    from training.fit.protocol import Judgement, Rows
    from training.fit.reproduction import Plan

    Scores = npt.NDArray[np.floating[Any]]
    Labels = npt.NDArray[np.bool_]
    Report = Callable[[str, int], Callable[[], None]]


DEALS: Final = 5  # of shuffled labels


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run found; rows are over the test nodes.

    Attributes:
        best: of the combinations, on validation.
        single: the best single network on validation; what the combination has to beat.
        member: the better network of the paper's combination, on validation.
        chance: AUROC on the right labels of networks that learned labels dealt out anew, one for each deal.
        shifted: rows over the nodes of the harder cohort, with their labels and patients.
        groups: subgroups of the chosen combination.
        digest: of the exported bundle.
        exported: the pair of networks in it.
        choice: why this pair and not the best on validation.
        seconds: of all runs that led here.
    """

    test: Cohort
    rows: list[Row]
    best: str
    single: str
    member: str
    chance: tuple[float, ...]
    shifted: tuple[Cohort, list[Row]]
    groups: list[operating_points.Subgroup]
    calibration: tuple[float, float]
    digest: str
    exported: str
    choice: str
    nodes: Described
    seconds: float


def expected_seconds(plan: Plan) -> float:
    """Return about how long the whole takes here: one phantom and one step of each family are timed."""
    profile = plan.profile
    begun = time.perf_counter()
    phantom.make_patient(plan.seed, 0, plan.phantoms)
    drawing = 1.6 * (time.perf_counter() - begun) * (profile.patients + profile.shifted) / max(plan.processes, 1)
    batch = torch.rand(profile.batch, len(plan.crops.windows), profile.pixels, profile.pixels, device=plan.device)
    steps = 0.6 * profile.nodes / profile.batch * profile.epochs * profile.folds * len(Crop)
    learning = 0.0
    torch.set_num_threads(1)
    for family in profile.families:
        model = build.build(family, batch.shape[1], profile.output_stride).to(plan.device)
        for warm in (False, True):
            begun = time.perf_counter()
            with torch.autocast(plan.device, torch.bfloat16, enabled=terms.settings(plan, family).bf16):
                loss = functional.softplus(model(batch).float()).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            loss.item()
            learning += (time.perf_counter() - begun) * steps * warm
    return drawing + 1.15 * learning / max(plan.processes, 1)


def run(plan: Plan, report: Report, out: Path) -> Outcome:
    """Do everything that is not on disk yet, and export the bundle to ``out``."""
    begun, profile = time.perf_counter(), plan.profile
    nodes = terms.cohort(plan, report("phantoms", profile.patients))
    tasks = terms.tasks(plan)
    grid.train(partial(terms.parts, plan), tasks, plan.work / profile.name, report("networks", len(tasks)), plan.processes)
    first = next(task for task in tasks if task.family == profile.families[0] and task.crop is Crop.FSC)
    check = [replace(first, fold=deal) for deal in range(DEALS)]
    place = plan.work / profile.name / "shuffled"
    grid.train(partial(terms.shuffled, plan), check, place, report("networks, labels shuffled", DEALS), plan.processes)
    harder = described.collect(
        plan.source(shifted=True),
        profile.shifted,
        plan.work / "crops",
        report("harder phantoms", profile.shifted),
        plan.processes,
    )
    chance = [task.scores(place)["test"] for task in check]
    outcome = _judge(plan, nodes, harder.cohort, tasks, chance, out)
    return replace(outcome, seconds=_elapsed(plan.work / profile.name / "seconds", time.perf_counter() - begun))


def _elapsed(kept: Path, seconds: float) -> float:
    """Add the seconds of this run to those of the runs before it, which did what it found done."""
    before = float(kept.read_text(encoding="utf-8")) if kept.exists() else 0.0
    kept.write_text(f"{before + seconds:.1f}", encoding="utf-8")
    return before + seconds


def _judge(plan: Plan, nodes: Described, harder: Cohort, tasks: list[Task], chance: Sequence[Scores], out: Path) -> Outcome:
    profile, work = plan.profile, plan.work / plan.profile.name
    splits = [terms.split(nodes, fold, plan.seed) for fold in range(profile.folds)]
    test = described.take(nodes, splits[0].test)
    validated = cohorts.take(nodes.cohort, np.concatenate([rows.validation for rows in splits]))
    labels = validated.malignant
    costs = protocol.costs(profile.families, profile.output_stride, plan.crops)
    judged = protocol.judge(labels, validated.patient, tasks, work, costs)
    best, pair, validation = judged.best, judged.pair, judged.validation
    mean = protocol.paper(labels, validation)
    rows = [*judged.rows, *_baselines(nodes, splits[0])]
    first = {(task.family, task.crop): task for task in tasks if task.fold == 0}
    used = sorted({*best.members, *mean.members, *pair.members})
    models = {member: protocol.restore(first[member], work, len(plan.crops.windows), judged.scales[member]) for member in used}
    apart = {member: logits(models[member], harder, member[1], plan.device) for member in used}
    shifted = [
        tables.Row(PAPER[1], mean.apply(apart), mean.apply(apart) >= operating_points.youden(labels, mean.apply(validation))),
        tables.Row(CHOSEN, best.apply(apart), best.apply(apart) >= operating_points.youden(labels, best.apply(validation))),
        tables.Row(SHORT_AXIS, harder.short_axis, harder.short_axis >= 10),
    ]
    probability = best.apply(judged.tested)
    return Outcome(
        test=test.cohort,
        rows=rows,
        best=judged.chosen,
        single=judged.single,
        member=protocol.named(max(mean.members, key=lambda member: _area(labels, validation[member]))),
        chance=tuple(_area(test.cohort.malignant, scores) for scores in chance),
        shifted=(harder, shifted),
        groups=operating_points.subgroups(test.cohort.malignant, probability, test.cohort.patient, test.groups()),
        calibration=(
            operating_points.expected_calibration_error(test.cohort.malignant, probability),
            operating_points.brier(test.cohort.malignant, probability),
        ),
        digest=_export(plan, nodes, judged, {crop: models[family, crop] for family, crop in pair.members}, out),
        exported=pair.name,
        choice=_choice(judged, validated.patient, costs),
        nodes=nodes,
        seconds=0.0,
    )


def _choice(judged: Judgement, patients: npt.NDArray[np.str_], costs: Mapping[str, float]) -> str:
    """Set the exported pair beside the pair that is best on validation."""
    by_crop = [[member for member in judged.validation if member[1] is crop] for crop in Crop]
    found = [selection.fit(judged.labels, judged.validation, members, "mean") for members in product(*by_crop)]
    best = max(found, key=lambda pair: pair.validation_auroc)
    scores = [pair.apply(judged.validation) for pair in (judged.pair, best)]
    p = auroc.compare(judged.labels, scores[0], scores[1], patients).p
    said = [
        f"{pair.validation_auroc:.3f} with {sum(costs[family] for family, _ in pair.members):.0f} million multiply-adds a node"
        for pair in (judged.pair, best)
    ]
    return f"Its AUROC on validation is {said[0]}. The best pair, {best.name}, has {said[1]}; p = {p:.3f} (DeLong, clustered)"


def _area(labels: Labels, scores: Scores) -> float:
    return float(auroc.order(labels, scores).mean())


def _baselines(nodes: Described, rows: Rows) -> list[Row]:
    """What an easy phantom would give away: size alone, and regressions on what can be measured and on what was drawn."""
    labels = nodes.cohort.malignant
    found = [protocol.short_axis(nodes.cohort, rows)]
    for name, columns in (("measured morphology", nodes.measured), ("the generator's parameters", nodes.drawn)):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000)).fit(
            columns[rows.train], labels[rows.train]
        )
        scores = [model.decision_function(columns[part]) for part in (rows.validation, rows.test)]
        found.append(tables.row(f"logistic regression on {name}", labels[rows.validation], scores[0], scores[1]))
    return found


def _export(plan: Plan, nodes: Described, judged: Judgement, models: dict[Crop, torch.nn.Module], out: Path) -> str:
    """Write the bundle of the pair that a node serves and return its digest."""
    profile = plan.profile
    rows = terms.split(nodes, 0, plan.seed)
    test = cohorts.take(nodes.cohort, rows.test)
    temperature, figures = protocol.calibrate(judged, models, test, plan.device, SENSITIVITY_TARGET)
    demo = bundles.load(bundles.resolve("demo"))
    made = export.Export(
        name=f"alnnode-reproduction-{profile.name}",
        version="0.1.0",
        demonstration=True,
        training_data=f"synthetic phantoms only: {len(rows.train)} nodes, reproduction seed {plan.seed}, profile {profile.name}",
        crops=plan.crops,
        output_stride=profile.output_stride,
        architectures={crop: next(a for a in network.ARCHITECTURES if a == family) for family, crop in judged.pair.members},
        members={crop: dict(model.state_dict()) for crop, model in models.items()},
        temperature=temperature,
        prevalence=float(judged.labels.mean()),
        figures=figures,
        test_set=f"held-out synthetic phantoms of the reproduction, n = {figures.nodes} nodes of {figures.patients} phantoms",
        detector=(demo.contents[export.DETECTOR], demo.detector_settings),
        command=f"python -m training reproduce --profile {profile.name}",
        provenance={"seed": plan.seed, "phantom_code": cohorts.phantom_code(), "device": plan.device, "profile": profile.name},
    )
    digest = export.write(made, out)
    if not plan.detection:
        return digest
    return export.attach(bundles.load(out), (demo.contents[export.DETECTOR], demo.detector_settings), out, plan.detection)
