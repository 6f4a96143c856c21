"""Train on a hospital's own nodes: split by patient, every family under both crops, select on validation, test once, export, report."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from alnnode.imaging.crop import CropSettings
from alnnode.model import bundle as bundles
from alnnode.model import network
from alnnode.records import Crop
from training.clinical import crops, seen
from training.clinical.table import TableError
from training.data import cohort as cohorts
from training.evaluate import gaze, operating_points, tables
from training.fit import grid, protocol
from training.fit.grid import Task
from training.fit.member import logits
from training.fit.protocol import Rows
from training.networks import export
from training.report import page

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy.typing as npt
    import torch

    from training.clinical.crops import Nodes
    from training.data.cohort import Cohort
    from training.evaluate.bundle import Figures
    from training.fit.grid import Parts
    from training.fit.member import TrainSettings
    from training.fit.protocol import Judgement

    Indices = npt.NDArray[np.intp]
    Report = Callable[[str, int], Callable[[], None]]

FIFTH: Final = 5  # one fifth of the patients tests
FOLDS: Final = 4  # of the rest, each validates in turn; so a fifth of the whole validates
FEWEST: Final = 3  # nodes of each class in every part


@dataclass(frozen=True, slots=True)
class Plan:
    """What ``python -m training cohort train`` was asked for.

    Attributes:
        folds: of the four; every network is trained once for each, and selection is made on the validation nodes of all of them.
        synthetic: some nodes are of phantoms, so the bundle says that it is a demonstration; never for patients alone.
        detector: "demo" or the folder of a bundle whose detector the new bundle takes over.
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
    crops: CropSettings = CropSettings()  # noqa: RUF009 - frozen

    def tasks(self) -> list[Task]:
        """Return every network to train."""
        return [
            Task(family, crop, fold, self.settings(family))
            for fold in range(self.folds)
            for family in self.families
            for crop in Crop
        ]

    @property
    def command(self) -> str:
        """The command for the model card, without names and paths of the site."""
        families = " ".join(f"--family {family}" for family in self.families)
        return (
            f"python -m training cohort train --table TABLE --data FOLDER {families} --folds {self.folds} --epochs {self.epochs} "
            f"--batch {self.batch} --output-stride {self.output_stride} --pixels {self.crops.pixels} --seed {self.seed}"
        )

    def settings(self, family: str) -> TrainSettings:
        """Return how a family is trained, the same as in the reproduction."""
        return protocol.settings(family, self.epochs, self.batch, self.output_stride, self.seed, self.device)

    def place(self, nodes: Nodes) -> Path:
        """Return where networks of these nodes and settings are kept: others are another place."""
        told = repr((nodes.digest, nodes.held_out.tolist(), self.folds, [self.settings(family) for family in self.families]))
        return self.work / f"networks-{hashlib.sha256(told.encode()).hexdigest()[:12]}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run found."""

    digest: str
    figures: Figures
    judgement: Judgement
    test: Nodes
    page: str


def split(nodes: Nodes, seed: int) -> list[Rows]:
    """Return the rows of the four folds, by patient; the test rows are those the table keeps, or a fifth.

    Raises:
        TableError: there are too few patients of either class.
    """
    cohort = nodes.cohort
    every = np.arange(len(nodes))
    test = np.flatnonzero(nodes.held_out) if nodes.held_out.any() else _parts(cohort, every, FIFTH, seed)[0]
    rest = np.setdiff1d(every, test)
    folds = _parts(cohort, rest, FOLDS, seed)
    found = [Rows(np.setdiff1d(rest, validation), validation, test) for validation in folds]
    for rows in found:
        for name in (field.name for field in fields(Rows)):
            malignant = cohort.malignant[getattr(rows, name)]
            fewest = min(int(malignant.sum()), int((~malignant).sum()))
            if fewest < FEWEST:
                raise TableError(
                    f"the {name} part would hold {fewest} nodes of one class, and needs {FEWEST}: more patients of that class are needed"
                )
    return found


def _parts(cohort: Cohort, rows: Indices, parts: int, seed: int) -> list[Indices]:
    """Return rows in so many parts of about as many nodes of each class, no patient in two."""
    labels, patients = cohort.malignant[rows], cohort.patient[rows]
    if min(int(labels.sum()), int((~labels).sum())) < parts or len(np.unique(patients)) < parts:
        raise TableError(f"{len(np.unique(patients))} patients are too few, or nearly all their nodes are of one class")
    splitter = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    return [rows[held] for _, held in splitter.split(labels, labels, patients)]


def parts(place: Path, seed: int, fold: int) -> Parts:
    """Return the nodes of a fold from the disk.

    Raises:
        LeakageError: a patient or a picture is in two parts.
    """
    nodes = crops.read(place / NODES)
    return protocol.parts_of(nodes.cohort, split(nodes, seed)[fold])


def shuffled(place: Path, seed: int, fold: int) -> Parts:
    """Return the same with the labels dealt out anew."""
    return protocol.shuffled(parts(place, seed, fold), seed)


NODES: Final = "nodes.npz"


def run(plan: Plan, nodes: Nodes, report: Report, out: Path) -> Outcome:
    """Do everything that is not on disk yet, and export the bundle to ``out``.

    Raises:
        TableError: there are too few patients.
        LeakageError: a picture is in two parts under different names of patients.
    """
    splits = split(nodes, plan.seed)[: plan.folds]
    place = plan.place(nodes)
    place.mkdir(parents=True, exist_ok=True)
    crops.save(nodes, place / NODES)
    tasks = plan.tasks()
    grid.train(partial(parts, place, plan.seed), tasks, place, report("networks", len(tasks)), plan.processes)
    check = [Task(plan.families[0], Crop.FSC, 0, plan.settings(plan.families[0]))]
    apart = place / "shuffled"
    grid.train(partial(shuffled, place, plan.seed), check, apart, report("networks, labels shuffled", 1), plan.processes)
    validated = cohorts.take(nodes.cohort, np.concatenate([rows.validation for rows in splits]))
    costs = protocol.costs(plan.families, plan.output_stride, plan.crops)
    judged = protocol.judge(validated.malignant, validated.patient, tasks, place, costs)
    chance = protocol.chance(plan.families[0], nodes.cohort, splits[0], check[0].scores(apart))
    judged.rows.extend([protocol.short_axis(nodes.cohort, splits[0]), chance])
    first = {(task.family, task.crop): task for task in tasks if task.fold == 0}
    channels = len(plan.crops.windows)
    models = {
        member[1]: protocol.restore(first[member], place, channels, judged.scales[member]) for member in judged.pair.members
    }
    test = crops.take(nodes, splits[0].test)
    temperature, figures = protocol.calibrate(judged, models, test.cohort, plan.device)
    digest = export.write(_export(plan, nodes, splits[0], judged, models, temperature, figures), out)
    seen.keep(out.parent / seen.SPLIT, nodes, splits[0])
    loaded = bundles.load(out)
    title = f"{plan.name} ({digest[:12]}) on its held-out patients"
    rows = {row.name: row for row in judged.rows}
    comparisons = [
        tables.comparison(test.cohort.malignant, test.cohort.patient, rows[judged.chosen], rows[name])
        for name in (judged.single, protocol.SHORT_AXIS)
    ]
    text = page.render(evaluation(loaded, models, test, title, plan.device, judged, comparisons))
    return Outcome(digest, figures, judged, test, text)


def evaluation(
    loaded: bundles.Bundle,
    models: Mapping[Crop, torch.nn.Module],
    nodes: Nodes,
    title: str,
    device: str,
    judged: Judgement | None = None,
    comparisons: tuple[str, ...] | list[str] = (),
) -> page.Evaluation:
    """Return what the page of a bundle on a hospital's nodes shows."""
    scores = {crop: logits(model, nodes.cohort, crop, device) for crop, model in models.items()}
    probability = operating_points.mean_probability(operating_points.stack(scores), loaded.manifest.temperature)
    places = {crop: nodes.regions[:, n] for n, crop in enumerate(crops.CROPS)}
    shares, likeness = gaze.count(nodes.cohort, places, models)
    beside: dict[str, Any] = {crop.value.upper(): scores[crop] for crop in Crop} | {
        protocol.SHORT_AXIS: nodes.cohort.short_axis
    }
    return page.Evaluation(
        title=title,
        notice=f"{loaded.identity.banner.capitalize()}. This page holds pictures of patients: keep it where their images may be kept.",
        cohort=nodes.cohort,
        scores={"ensemble": probability, **beside},
        threshold=loaded.identity.operating_point.threshold,
        groups=nodes.groups(),
        gaze=shares,
        likeness=likeness,
        models=judged.rows if judged else (),
        comparisons=comparisons,
    )


def _export(
    plan: Plan,
    nodes: Nodes,
    rows: Rows,
    judged: Judgement,
    models: dict[Crop, torch.nn.Module],
    temperature: float,
    figures: Figures,
) -> export.Export:
    giver = bundles.load(bundles.resolve(plan.detector))
    cohort, digest = nodes.cohort, nodes.digest
    train = cohorts.take(cohort, rows.train)
    return export.Export(
        name=plan.name,
        version="1",
        demonstration=plan.synthetic,
        training_data=f"{'synthetic phantoms: ' * plan.synthetic}{len(train)} nodes of {len(train.patients)} patients, cohort {digest[:12]}",
        crops=plan.crops,
        output_stride=plan.output_stride,
        architectures={crop: next(a for a in network.ARCHITECTURES if a == family) for family, crop in judged.pair.members},
        members={crop: dict(model.state_dict()) for crop, model in models.items()},
        temperature=temperature,
        prevalence=float(judged.labels.mean()),
        figures=figures,
        test_set=f"held-out patients of cohort {digest[:12]}, n = {figures.nodes} nodes of {figures.patients} patients",
        detector=(giver.contents[export.DETECTOR], giver.detector_settings),
        command=plan.command,
        provenance={
            "cohort": {
                "digest": digest,
                "nodes": len(nodes),
                "malignant": int(cohort.malignant.sum()),
                "patients": len(cohort.patients),
                "used": seen.of_split(nodes, rows),
            },
            "selection": {"chosen": judged.best.name, "exported": judged.pair.name, "folds": plan.folds},
            "detector": f"{giver.manifest.name} {giver.manifest.version}",
            "training_seed": plan.seed,
            "device": plan.device,
        },
    )
