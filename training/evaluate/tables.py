"""Tables in the layout of Park et al.: a model a row; AUROC, accuracy, sensitivity and specificity, each with its interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from training.evaluate import auroc, operating_points

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
class Row:
    """One model on the test nodes: its scores, and what it called positive at the operating point that validation gave."""

    name: str
    scores: Scores
    called: Labels


def row(name: str, labels: Labels, validation: Scores, test: Scores) -> Row:
    """Return a model's row, its operating point the one of Youden's index on validation."""
    return Row(name, test, test >= operating_points.youden(labels, validation))


def pooled(rows: Sequence[Row]) -> Row:
    """Return one row of the rows of several folds, in their order."""
    return Row(rows[0].name, np.concatenate([r.scores for r in rows]), np.concatenate([r.called for r in rows]))


def table(labels: Labels, patients: Patients, rows: Sequence[Row]) -> str:
    """Return the rows as Markdown."""
    return "\n".join([HEADER, *(_line(labels, patients, r) for r in rows)])


def figures(labels: Labels, patients: Patients, r: Row) -> tuple[Interval, ...]:
    """Return a model's figures, in the order of `COLUMNS`."""
    return (
        auroc.interval(labels, r.scores, patients),
        operating_points.clustered_proportion(r.called == labels, patients),
        operating_points.clustered_proportion(r.called[labels], patients[labels]),
        operating_points.clustered_proportion(~r.called[~labels], patients[~labels]),
    )


def _line(labels: Labels, patients: Patients, r: Row) -> str:
    return f"| {r.name} | " + " | ".join(cell(figure) for figure in figures(labels, patients, r)) + " |"


def cell(figure: Interval) -> str:
    """Return a figure with its interval."""
    return f"{figure.value:.3f} ({figure.low:.3f}-{figure.high:.3f})"


def comparison(labels: Labels, patients: Patients, one: Row, other: Row) -> str:
    """Return in words how two models differ."""
    found = auroc.compare(labels, one.scores, other.scores, patients)
    difference = found.difference
    return (
        f"{one.name} less {other.name}: {difference.value:+.3f} ({difference.low:+.3f} to {difference.high:+.3f}), "
        f"p {_p(found.p)} (DeLong, clustered), p {_p(found.p_bootstrap)} (bootstrap by patient)"
    )


def _p(value: float) -> str:
    return f"= {value:.3f}" if value >= 0.001 else "< 0.001"
