"""One HTML page of an evaluation: tables, curves, subgroups, where the networks look, and the worst mistakes as pictures; no other file."""

from __future__ import annotations

import base64
import html
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from training.evaluate import auroc, operating_points, tables

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from training.data.cohort import Cohort
    from training.evaluate.cam import Shares
    from training.evaluate.tables import Row

    Scores = npt.NDArray[np.floating[Any]]

WORST: Final = 8
SENSITIVITIES: Final = 0.98


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the page is about.

    Attributes:
        title: bundle and data in words; notice: what the figures do not say.
        scores: of the ensemble (first, probabilities) and of whatever it is set beside.
        threshold: the bundle's own operating point.
        groups: attribute to the value of each node.
        gaze: name of network and weights to its shares of Grad-CAM energy.
        likeness: name of network to the rank correlation of its maps with those of weights drawn anew.
        models: every model that was trained, in the paper's layout; comparisons: in words.
    """

    title: str
    notice: str
    cohort: Cohort
    scores: Mapping[str, Scores]
    threshold: float
    groups: Mapping[str, npt.NDArray[np.str_]]
    gaze: Mapping[str, Shares]
    likeness: Mapping[str, float]
    models: Sequence[Row] = ()
    comparisons: Sequence[str] = field(default=())


def render(evaluation: Evaluation) -> str:
    """Return the page."""
    cohort = evaluation.cohort
    name, probability = next(iter(evaluation.scores.items()))
    parts = [
        f"<h1>{html.escape(evaluation.title)}</h1><p class='notice'>{html.escape(evaluation.notice)}</p>",
        (
            f"<p>{len(cohort)} nodes ({int(cohort.malignant.sum())} malignant) of {len(cohort.patients)} patients. Intervals of 95 %: AUROC by DeLong "
            "with clusters of patients, proportions Wilson's with the patients' design effect, average precision by bootstrap over patients.</p>"
        ),
        "<h2>Ranking</h2>",
        _table(("", "AUROC", "average precision", f"less {name}"), _ranking(evaluation)),
        *_models(evaluation),
        "<h2>Operating points</h2>",
        _table(("threshold", "", "sensitivity", "specificity", "accuracy"), _points(evaluation, probability)),
        "<h2>Curves</h2>",
        _picture(_curves(evaluation)),
        (
            f"<p>{html.escape(name)}: expected calibration error {operating_points.expected_calibration_error(cohort.malignant, probability):.3f}, "
            f"Brier score {operating_points.brier(cohort.malignant, probability):.3f}.</p>"
        ),
        "<h2>Subgroups</h2>",
        _table(("subgroup", "nodes", "malignant", "AUROC"), _subgroups(evaluation, probability)),
        "<h2>Where the networks look</h2>",
        (
            "<p>Share of Grad-CAM energy by region, and in brackets that share over the region's share of the area: 1 is no preference. Beneath each "
            "network the same with its weights drawn anew; the rank correlation of both maps is near 0 where the weights decide what is shown.</p>"
        ),
        _table(("network", *cam_regions(evaluation), "maps", "correlation"), _gaze(evaluation)),
        "<h2>The worst mistakes</h2>",
        "<p>Above FSC, below ASC; first window of the bundle.</p>",
        _picture(_mistakes(cohort, probability)),
    ]
    return _PAGE.format(title=html.escape(evaluation.title), body="\n".join(parts))


def _models(evaluation: Evaluation) -> list[str]:
    if not evaluation.models:
        return []
    labels, patients = evaluation.cohort.malignant, evaluation.cohort.patient
    rows = [(model.name, *map(tables.cell, tables.figures(labels, patients, model))) for model in evaluation.models]
    return [
        "<h2>Every model that was trained</h2>",
        "<p>Operating point: Youden's index on validation. Families, members and rule were chosen on validation, too.</p>",
        _table(("", *tables.COLUMNS), rows),
        *(f"<p>{html.escape(line)}</p>" for line in evaluation.comparisons),
    ]


def cam_regions(evaluation: Evaluation) -> list[str]:
    """Return the names of the regions that the shares are of."""
    return list(next(iter(evaluation.gaze.values())).share) if evaluation.gaze else []


def _ranking(evaluation: Evaluation) -> list[tuple[str, ...]]:
    labels, patients = evaluation.cohort.malignant, evaluation.cohort.patient
    first = next(iter(evaluation.scores.values()))
    found = []
    for name, scores in evaluation.scores.items():
        cells = [name, tables.cell(auroc.interval(labels, scores, patients))]
        cells.append(tables.cell(operating_points.average_precision(labels, scores, patients)))
        difference = auroc.compare(labels, scores, first, patients)
        shown = f"{difference.difference.value:+.3f}, p = {difference.p:.3f}, bootstrap p = {difference.p_bootstrap:.3f}"
        found.append((*cells, "" if scores is first else shown))
    return found


def _points(evaluation: Evaluation, probability: Scores) -> list[tuple[str, ...]]:
    labels, patients = evaluation.cohort.malignant, evaluation.cohort.patient
    points = {
        "the bundle's own, chosen on validation": evaluation.threshold,
        "Youden's index on these nodes, so too good": operating_points.youden(labels, probability),
        f"sensitivity of {SENSITIVITIES} on these nodes, so too good": operating_points.threshold_for(
            labels, probability, SENSITIVITIES
        ),
    }
    found = []
    for name, threshold in points.items():
        point = operating_points.at(labels, probability, patients, threshold)
        figures = (point.sensitivity, point.specificity, point.accuracy)
        found.append(
            (f"{threshold:.2g}" if threshold < 0.01 else f"{threshold:.2f}", name, *(tables.cell(figure) for figure in figures))
        )
    return found


def _subgroups(evaluation: Evaluation, probability: Scores) -> list[tuple[str, ...]]:
    cohort = evaluation.cohort
    groups = operating_points.subgroups(cohort.malignant, probability, cohort.patient, evaluation.groups)
    return [
        (g.name, str(g.nodes), str(g.malignant), tables.cell(g.auroc) if g.auroc else "too few of a class, or patients")
        for g in groups
    ]


def _gaze(evaluation: Evaluation) -> list[tuple[str, ...]]:
    return [
        (
            name,
            *(f"{shares.share[region]:.2f} ({shares.density[region]:.1f})" for region in shares.share),
            str(shares.nodes),
            f"{evaluation.likeness[name]:.2f}" if name in evaluation.likeness else "",
        )
        for name, shares in evaluation.gaze.items()
    ]


def _curves(evaluation: Evaluation) -> Figure:
    labels = evaluation.cohort.malignant
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    roc, recall, reliability = figure.subplots(1, 3)
    for name, scores in evaluation.scores.items():
        false, true, _ = roc_curve(labels, scores)
        roc.plot(false, true, label=name, linewidth=1.2)
        precision, found, _ = precision_recall_curve(labels, scores)
        recall.plot(found, precision, label=name, linewidth=1.2)
    roc.plot([0, 1], [0, 1], "k:", linewidth=0.8)
    roc.set(xlabel="1 - specificity", ylabel="sensitivity", title="ROC")
    roc.legend(fontsize=7, loc="lower right")
    recall.axhline(float(labels.mean()), color="k", linestyle=":", linewidth=0.8)
    recall.set(
        xlabel="sensitivity (recall)",
        ylabel="positive predictive value (precision)",
        title="precision and recall",
        ylim=(0, 1.02),
    )
    bins = operating_points.reliability(labels, next(iter(evaluation.scores.values())))
    middle = np.array([b.observed.value for b in bins])
    reach = np.abs(np.array([[b.observed.low for b in bins], [b.observed.high for b in bins]]) - middle)
    reliability.errorbar([b.predicted for b in bins], middle, reach, fmt="o-", markersize=4, linewidth=1, capsize=2)
    reliability.plot([0, 1], [0, 1], "k:", linewidth=0.8)
    reliability.set(
        xlabel="probability said", ylabel="share malignant", title="reliability (Wilson intervals)", xlim=(0, 1), ylim=(0, 1)
    )
    return figure


def _mistakes(cohort: Cohort, probability: Scores) -> Figure:
    worst = np.argsort(-np.abs(probability - cohort.malignant))[:WORST]
    figure = Figure(figsize=(1.7 * WORST, 4.0), layout="constrained")
    grid = figure.subplots(2, WORST, squeeze=False)
    for column, node in enumerate(worst):
        truth = "malignant" if cohort.malignant[node] else "benign"
        grid[0, column].set_title(f"{truth}, said {probability[node]:.2f}\n{cohort.short_axis[node]:.0f} mm", fontsize=8)
        for place, crops in zip(grid[:, column], (cohort.fsc, cohort.asc), strict=True):
            place.imshow(crops[node, 0, 0], cmap="gray", vmin=0, vmax=255)
    for place in grid.flat:
        place.set_axis_off()
    return figure


def _picture(figure: Figure) -> str:
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=90)
    return f"<img alt='' src='data:image/png;base64,{base64.b64encode(sink.getvalue()).decode()}'>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body{{font:15px/1.5 sans-serif;max-width:75em;margin:2em auto;padding:0 1em;color:#222}}table{{border-collapse:collapse;margin:1em 0}}
td,th{{border-bottom:1px solid #ccc;padding:.25em .7em;text-align:left;font-variant-numeric:tabular-nums}}img{{max-width:100%}}
.notice{{background:#fff3cd;padding:.6em 1em}}</style></head>
<body>
{body}
</body></html>
"""
