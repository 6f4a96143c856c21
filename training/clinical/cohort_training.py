"""Train on a hospital's own nodes: split by patient, train every family under both crops, select on validation, test once, export."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from alnnode.imaging.crop import CropSettings
from alnnode.model import bundle as bundles
from alnnode.model import network
from alnnode.records import Crop
from training.clinical import bundle_patients, node_crops
from training.clinical.cohort_page import evaluation_page
from training.clinical.cohort_split import NODES, fold_data, fold_data_permuted, split_by_patient
from training.data import cohort as cohorts
from training.evaluate import bundle_metrics, roc, tables
from training.fit import grid, protocol, selection
from training.fit.bundle_contents import BundleContents, detector_of
from training.fit.grid import TrainingTask
from training.report import bundle_export, page
from training.report.checklists import StudyFacts, checklists

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

    from alnnode.records import Interval
    from training.clinical.node_crops import NodeCrops
    from training.clinical.starting_bundle import StartingBundle
    from training.evaluate.bundle_metrics import BundleMetrics
    from training.fit.member import TrainSettings
    from training.fit.protocol import FoldRows, SelectedModels

    Report = Callable[[str, int], Callable[[], None]]


@dataclass(frozen=True, slots=True)
class CohortPlan:
    """The options of ``python -m training cohort train``.

    Attributes:
        name: of the bundle, as reports show it.
        work: folder of crops, checkpoints and scores.
        folds: number of folds, of the four, on which each network is trained; their validation nodes decide the selection.
        synthetic: some nodes are of phantoms, so the bundle is marked as a demonstration.
        detector: "demo" or the folder of a bundle whose detector is copied into the new bundle.
        start: the bundle from whose networks the training starts; None: random weights.
    """

    name: str
    work: Path
    families: tuple[str, ...]
    folds: int
    epochs: int
    batch: int
    output_stride: int
    seed: int
    device: str
    processes: int
    synthetic: bool
    detector: str = "demo"
    averaging: float = protocol.AVERAGING
    crops: CropSettings = CropSettings()  # noqa: RUF009 - frozen
    start: StartingBundle | None = None

    def tasks(self) -> list[TrainingTask]:
        """Return every network to train."""
        return [
            TrainingTask(family, crop, fold, self.settings(family, crop))
            for fold in range(self.folds)
            for family in self.families
            for crop in Crop
        ]

    @property
    def command(self) -> str:
        """The command for the model card, without names and paths of the site."""
        families = " ".join(f"--family {family}" for family in self.families)
        crops = f"--pixels {self.crops.pixels} --slices {self.crops.slices}" + " --blood" * self.crops.blood_pool
        return (
            f"python -m training cohort train --table TABLE --data FOLDER {families} --folds {self.folds} --epochs {self.epochs} "
            f"--batch {self.batch} --output-stride {self.output_stride} --seed {self.seed} {'--from-bundle BUNDLE' if self.start else crops}"
        )

    def settings(self, family: str, crop: Crop) -> TrainSettings:
        """Return the settings with which a family is trained under a crop, as in the reproduction."""
        options = protocol.TrainingOptions(
            self.epochs, self.batch, self.output_stride, self.seed, self.device, self.averaging, int(self.crops.blood_pool)
        )
        return options.for_family(family, self.start.weights(family, crop) if self.start else None)

    def network_folder(self, nodes: NodeCrops) -> Path:
        """Return the folder of the networks; other nodes and other settings have another folder."""
        identity = repr(
            (
                nodes.digest,
                nodes.held_out.tolist(),
                self.folds,
                [self.settings(*one).identity for one in product(self.families, Crop)],
            )
        )
        return self.work / f"networks-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


@dataclass(frozen=True, slots=True)
class CohortResult:
    """The result of a run.

    Attributes:
        digest: of the bundle.
        figures: metrics on the test nodes at the operating point.
        page: HTML.
    """

    digest: str
    figures: BundleMetrics
    selected: SelectedModels
    test: NodeCrops
    page: str


@dataclass(frozen=True, slots=True)
class _Trained:
    """The selected models, the networks of the served pair, and the AUROC on permuted labels of a network that was trained on them."""

    selected: SelectedModels
    models: dict[Crop, torch.nn.Module]
    chance: Interval


def train_on_cohort(plan: CohortPlan, nodes: NodeCrops, report: Report, out: Path) -> CohortResult:
    """Run every step whose result is not on disk yet, and write the bundle to ``out``.

    Raises:
        TableError: there are too few patients.
        LeakageError: a crop is in two parts under different names of patients.
    """
    splits = split_by_patient(nodes, plan.seed)[: plan.folds]
    steps = plan.epochs * max(min(len(rows.train) for rows in splits) // plan.batch, 1)
    plan = replace(plan, averaging=protocol.averaging_for(steps))
    folder = plan.network_folder(nodes)
    folder.mkdir(parents=True, exist_ok=True)
    node_crops.save_nodes(nodes, folder / NODES)
    trained = _train_and_select(plan, nodes, splits, folder, report)
    selected, models = trained.selected, trained.models
    test = node_crops.select_nodes(nodes, splits[0].test)
    contents = _contents(plan, nodes, splits[0], selected, models)
    digest = bundle_export.write_bundle(contents, out)
    bundle_patients.write_split(out.parent / bundle_patients.SPLIT, nodes, splits[0])
    facts = StudyFacts(
        digest=digest,
        nodes=len(nodes),
        malignant=int(nodes.cohort.malignant.sum()),
        patients=len(nodes.cohort.patients),
        seed=plan.seed,
        folds=plan.folds,
        settings=plan.settings(plan.families[0], Crop.FSC),
        chosen=selected.best.name,
        exported=selected.pair.name,
        reserved=bool(nodes.held_out.any()),
    )
    (out.parent / "checklists.md").write_text(checklists(contents, facts), encoding="utf-8")
    rows = {row.name: row for row in selected.rows}
    shown = evaluation_page(
        bundles.load(out), models, test, f"{plan.name} ({digest[:12]}) on its held-out patients", plan.device
    )
    comparisons = [
        tables.describe_comparison(test.cohort.malignant, test.cohort.patient, rows[selected.chosen], rows[name])
        for name in (selected.single, protocol.SHORT_AXIS)
    ]
    comparisons.append(
        f"Permuted labels: the labels of all nodes were permuted before the split, and {plan.families[0]} under FSC was trained and judged on "
        f"them. AUROC {tables.format_interval(trained.chance)}; without a leak about 0.5."
    )
    validating = len(np.unique(nodes.cohort.patient[np.concatenate([part.validation for part in splits])]))
    if validating < selection.FEW_PATIENTS:
        comparisons.append(
            f"Only {validating} patients validate, so networks are combined by the mean alone: weights of a rule would be fitted to chance. "
            "The operating point and the temperature rest on the same patients; measure them on other patients before any use."
        )
    text = page.render_page(replace(shown, models=selected.rows, comparisons=comparisons))
    return CohortResult(digest, contents.figures, selected, test, text)


def _train_and_select(plan: CohortPlan, nodes: NodeCrops, splits: list[FoldRows], folder: Path, report: Report) -> _Trained:
    """Train all networks and the control with permuted labels, and select."""
    tasks = plan.tasks()
    grid.train_networks(partial(fold_data, folder, plan.seed), tasks, folder, report("networks", len(tasks)), plan.processes)
    control = TrainingTask(plan.families[0], Crop.FSC, 0, plan.settings(plan.families[0], Crop.FSC))
    permuted, progress = folder / "shuffled", report("networks, permuted labels", 1)
    grid.train_networks(partial(fold_data_permuted, folder, plan.seed), [control], permuted, progress, plan.processes)
    validated = cohorts.select_nodes(nodes.cohort, np.concatenate([rows.validation for rows in splits]))
    costs = protocol.family_costs(plan.families, plan.output_stride, plan.crops)
    selected = protocol.select_models(validated.malignant, validated.patient, tasks, folder, costs)
    selected.rows.append(protocol.short_axis_row(nodes.cohort, splits[0]))
    test = cohorts.select_nodes(protocol.permute_labels(nodes.cohort, plan.seed), splits[0].test)
    chance = roc.auroc(test.malignant, control.scores(permuted)["test"], test.patient)
    first = {(task.family, task.crop): task for task in tasks if task.fold == 0}
    channels = plan.crops.channels
    models = {
        member[1]: protocol.restore_calibrated(first[member], folder, channels, selected.scales[member])
        for member in selected.pair.members
    }
    return _Trained(selected, models, chance)


def _contents(
    plan: CohortPlan, nodes: NodeCrops, rows: FoldRows, selected: SelectedModels, models: dict[Crop, torch.nn.Module]
) -> BundleContents:
    """Return the contents of the bundle with the served pair."""
    source = bundles.load(bundles.resolve(plan.detector))
    cohort, digest = nodes.cohort, nodes.digest
    train, test = (cohorts.select_nodes(cohort, part) for part in (rows.train, rows.test))
    pair = protocol.calibrate_pair(selected)
    figures = bundle_metrics.evaluate_ensemble(test, models, pair.temperature, pair.threshold, plan.device)
    return BundleContents(
        name=plan.name,
        version="1",
        demonstration=plan.synthetic,
        training_data=f"{'synthetic phantoms: ' * plan.synthetic}{len(train)} nodes of {len(train.patients)} patients, cohort {digest[:12]}{_start(plan)}",
        crops=plan.crops,
        output_stride=plan.output_stride,
        architectures={crop: next(a for a in network.ARCHITECTURES if a == family) for family, crop in selected.pair.members},
        members={crop: dict(model.state_dict()) for crop, model in models.items()},
        temperature=pair.temperature,
        prevalence=float(selected.labels.mean()),
        figures=figures,
        test_set=f"held-out patients of cohort {digest[:12]}, n = {figures.nodes} nodes of {figures.patients} patients",
        detector=detector_of(source),
        command=plan.command,
        notes=(pair.note(protocol.SENSITIVITY),),
        provenance={
            "cohort": {
                "digest": digest,
                "nodes": len(nodes),
                "malignant": int(cohort.malignant.sum()),
                "patients": len(cohort.patients),
                "used": bundle_patients.used_series(nodes, rows),
            },
            "selection": {"chosen": selected.best.name, "exported": selected.pair.name, "folds": plan.folds},
            "detector": f"{source.manifest.name} {source.manifest.version}",
            "start": plan.start.name if plan.start else None,
            "training_seed": plan.seed,
            "device": plan.device,
        },
    )


def _start(plan: CohortPlan) -> str:
    """Return from which bundle the networks started, for the model card."""
    return f"; the networks started from those of {plan.start.name}" if plan.start else ""
