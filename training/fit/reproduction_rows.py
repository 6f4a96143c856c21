"""Rows of the reproduction's tables beside the selected models: further seeds, baselines without a network, and what pretraining taught."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from training.data.node_features import GENERATOR_PARAMETERS
from training.evaluate import tables
from training.fit import protocol, selection
from training.fit import reproduction_terms as terms
from training.networks.inference import mean_probability

if TYPE_CHECKING:
    from alnnode.records import Crop
    from training.data.cohort import Cohort
    from training.data.node_features import FeatureCohort
    from training.evaluate.tables import ModelRow
    from training.fit.protocol import FoldRows
    from training.fit.reproduction_terms import ReproductionPlan


def baseline_rows(nodes: FeatureCohort, rows: FoldRows) -> list[ModelRow]:
    """Return the rows of baselines: the short axis, and logistic regressions on features and on the generator's parameters."""
    labels = nodes.cohort.malignant
    found = [protocol.short_axis_row(nodes.cohort, rows)]
    kinds = (
        ("one slice and the box", nodes.boxed),
        ("measured morphology", nodes.measured),
        ("the generator's parameters", nodes.drawn),
    )
    for name, columns in kinds:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000)).fit(
            columns[rows.train], labels[rows.train]
        )
        scores = [model.decision_function(columns[part]) for part in (rows.validation, rows.test)]
        found.append(tables.row_at_youden(f"logistic regression on {name}", labels[rows.validation], scores[0], scores[1]))
    return found


def explained_variance(plan: ReproductionPlan) -> dict[Crop, dict[str, float]]:
    """Return, for each crop of the paper's family and each parameter, what pretraining taught the network: R squared in held-out phantoms."""
    found = {}
    for task in terms.pretraining_tasks(plan):
        if task.family == protocol.PAPER[0]:
            with (task.folder(plan.folder) / f"{task.crop.value}.csv").open(encoding="utf-8", newline="") as source:
                *_, last = csv.DictReader(source)
            columns = {name: f"r2 {name}".replace(",", "") for name in GENERATOR_PARAMETERS}
            found[task.crop] = {name: float(last[column]) for name, column in columns.items()}
    return found


def repeated_rows(plan: ReproductionPlan, cohort: Cohort, rows: FoldRows) -> list[ModelRow]:
    """Return the rows of the networks with further seeds, each alone and the mean of both crops."""
    labels, found = cohort.malignant[rows.validation], []
    tasks, work = terms.repeated_tasks(plan), plan.folder
    for fsc, asc in zip(tasks[::2], tasks[1::2], strict=True):
        scores = [task.scores(work) for task in (fsc, asc)]
        name = f"second training, seed {fsc.settings.seed}"
        for task, its in zip((fsc, asc), scores, strict=True):
            member = protocol.member_name((task.family, task.crop))
            found.append(tables.row_at_youden(f"{member}, {name}", labels, its["validation"], its["test"]))
        scales = [selection.fit_platt_scale(labels, its["validation"]) for its in scores]
        patients = cohort.patient[rows.validation]
        fitted = [
            [selection.cross_fit(labels, its["validation"], patients) for its in scores],
            [scale.apply(its["test"]) for scale, its in zip(scales, scores, strict=True)],
        ]
        both = [mean_probability(np.stack(part), 1.0) for part in fitted]
        found.append(tables.row_at_youden(f"{fsc.family} FSC + ASC, mean, {name}", labels, both[0], both[1]))
    return found
