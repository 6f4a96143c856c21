"""Tables in the layout of Park et al.: one row for each model with AUROC, accuracy, sensitivity and specificity and their intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from training.evaluate import operating_points, roc

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from alnnode.records import Interval

    Scores = npt.NDArray[np.floating[Any]]
    Labels = npt.NDArray[np.bool_]
    Patients = npt.NDArray[np.str_]

COLUMNS = ("AUROC", "accuracy", "sensitivity", "specificity")
HEADER = f"| model | {' | '.join(COLUMNS)} |\n|---|---|---|---|---|"


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model on the test nodes: its scores, and which nodes it calls positive at the operating point chosen on validation."""

    name: str
    scores: Scores
    called: Labels


def row_at_youden(name: str, labels: Labels, validation: Scores, test: Scores) -> ModelRow:
    """Return the row of a model whose operating point maximises Youden's index on validation."""
    return ModelRow(name, test, test >= operating_points.youden_threshold(labels, validation))


def pool_rows(rows: Sequence[ModelRow]) -> ModelRow:
    """Return one row from the rows of several folds, in their order."""
    return ModelRow(rows[0].name, np.concatenate([r.scores for r in rows]), np.concatenate([r.called for r in rows]))


def model_table(labels: Labels, patients: Patients, rows: Sequence[ModelRow]) -> str:
    """Return the rows as a Markdown table."""
    return "\n".join([HEADER, *(_line(labels, patients, r) for r in rows)])


def model_metrics(labels: Labels, patients: Patients, r: ModelRow) -> tuple[Interval, ...]:
    """Return the metrics of a model in the order of `COLUMNS`."""
    return (
        roc.auroc(labels, r.scores, patients),
        operating_points.clustered_proportion(r.called == labels, patients),
        operating_points.clustered_proportion(r.called[labels], patients[labels]),
        operating_points.clustered_proportion(~r.called[~labels], patients[~labels]),
    )


def _line(labels: Labels, patients: Patients, r: ModelRow) -> str:
    return f"| {r.name} | " + " | ".join(format_interval(figure) for figure in model_metrics(labels, patients, r)) + " |"


def format_interval(figure: Interval) -> str:
    """Return a value with its interval as text."""
    return f"{figure.value:.3f} ({figure.low:.3f}-{figure.high:.3f})"


def describe_comparison(labels: Labels, patients: Patients, one: ModelRow, other: ModelRow) -> str:
    """Return a sentence with the difference between the AUROCs of two models."""
    found = roc.compare_aurocs(labels, one.scores, other.scores, patients)
    return (
        f"{one.name} less {other.name}: {format_difference(found.difference)}, "
        f"p {format_p(found.p)} (DeLong, clustered), p {format_p(found.p_bootstrap)} (bootstrap by patient)"
    )


def format_difference(difference: Interval) -> str:
    """Return a difference with its sign and its interval as text."""
    return f"{difference.value:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})"


def format_p(value: float) -> str:
    """Return a p value with its sign as text."""
    return f"= {value:.3f}" if value >= 0.001 else "< 0.001"
