"""Render an evaluation as one HTML page without other files: tables, curves, subgroups, Grad-CAM energy, and the largest errors."""

from __future__ import annotations

import base64
import html
import io
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from training.evaluate import calibration, decision_curve, operating_points, roc, subgroups, tables

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt
    from matplotlib.axes import Axes

    from alnnode.records import Interval
    from training.data.cohort import Cohort
    from training.evaluate.grad_cam import CamEnergy
    from training.evaluate.tables import ModelRow

    Scores = npt.NDArray[np.floating[Any]]

WORST: Final = 8
NO_FIGURE: Final = "-"
SENSITIVITY: Final = 0.98


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The content of the page.

    Attributes:
        title: bundle and data in words.
        notice: limits of the evaluation.
        scores: probabilities of the ensemble (first), and scores of the models with which it is compared.
        threshold: the operating point of the bundle.
        groups: the value of each node, by attribute.
        cam_energy: Grad-CAM energy by name of the network and its weights.
        cam_correlation: rank correlation of the maps of a network with those of randomised weights, by its name.
        models: all trained models, in the layout of the paper.
        comparisons: sentences about differences between models.
    """

    title: str
    notice: str
    cohort: Cohort
    scores: Mapping[str, Scores]
    threshold: float
    groups: Mapping[str, npt.NDArray[np.str_]]
    cam_energy: Mapping[str, CamEnergy]
    cam_correlation: Mapping[str, float]
    models: Sequence[ModelRow] = ()
    comparisons: Sequence[str] = field(default=())


def render_page(evaluation: Evaluation) -> str:
    """Return the page as HTML."""
    cohort = evaluation.cohort
    name, probability = next(iter(evaluation.scores.items()))
    parts = [
        f"<h1>{html.escape(evaluation.title)}</h1><p class='notice'>{html.escape(evaluation.notice)}</p>",
        (
            f"<p>{len(cohort)} nodes ({int(cohort.malignant.sum())} malignant) of {len(cohort.patients)} patients. 95 % intervals: AUROC by DeLong "
            "clustered by patient, proportions by Wilson with the design effect of patients, average precision by bootstrap over patients.</p>"
        ),
        "<h2>ROC and precision</h2>",
        _table(("", "AUROC", "average precision", f"minus {name}"), _roc_rows(evaluation)),
        *_models(evaluation),
        "<h2>Operating points</h2>",
        _table(("threshold", "", "sensitivity", "specificity", "accuracy"), _points(evaluation, probability)),
        "<h2>Curves</h2>",
        _picture(_curves(evaluation)),
        (
            "<p>The decision curve shows the net benefit in true positives per node; a false positive costs as much as the threshold probability "
            "says (Vickers &amp; Elkin 2006). It holds for the share of malignant nodes in this cohort only.</p>"
        ),
        (
            f"<p>{html.escape(name)}: expected calibration error {calibration.expected_calibration_error(cohort.malignant, probability):.3f}, "
            f"Brier score {calibration.brier_score(cohort.malignant, probability):.3f}.</p>"
        ),
        "<h2>Subgroups</h2>",
        _table(("subgroup", "nodes", "malignant", "AUROC"), _subgroups(evaluation, probability)),
        "<h2>Grad-CAM energy by region</h2>",
        (
            "<p>Share of Grad-CAM energy in each region with its 95 % interval (bootstrap over patients), and in brackets that share divided by the "
            "region's share of the area: 1 means no preference. Below each network: the same with randomised weights, and for occlusion, which hides parts "
            "of the crop and measures how much the logit changes. The rank correlation of trained and randomised maps is near 0 if the weights decide what "
            "a map shows. "
            "The column of nodes counts those whose map is not empty; a dash means that every map is empty, which happens after little training.</p>"
        ),
        _table(("network", *cam_regions(evaluation), "nodes with a map", "correlation"), _energy(evaluation)),
        "<h2>Largest errors</h2>",
        "<p>FSC crop above, ASC crop below; first window of the bundle.</p>",
        _picture(_largest_errors(cohort, probability)),
    ]
    return _PAGE.format(title=html.escape(evaluation.title), body="\n".join(parts))


def _models(evaluation: Evaluation) -> list[str]:
    if not evaluation.models:
        return []
    labels, patients = evaluation.cohort.malignant, evaluation.cohort.patient
    rows = [
        (model.name, *map(tables.format_interval, tables.model_metrics(labels, patients, model))) for model in evaluation.models
    ]
    return [
        "<h2>All trained models</h2>",
        "<p>Operating point: Youden's index on validation. Families, networks and rule were also chosen on validation.</p>",
        _table(("", *tables.COLUMNS), rows),
        *(f"<p>{html.escape(line)}</p>" for line in evaluation.comparisons),
    ]


def cam_regions(evaluation: Evaluation) -> list[str]:
    """Return the names of the regions."""
    return list(next(iter(evaluation.cam_energy.values())).share) if evaluation.cam_energy else []


def _roc_rows(evaluation: Evaluation) -> list[tuple[str, ...]]:
    labels, patients = evaluation.cohort.malignant, evaluation.cohort.patient
    first = next(iter(evaluation.scores.values()))
    found = []
    for name, scores in evaluation.scores.items():
        cells = [name, tables.format_interval(roc.auroc(labels, scores, patients))]
        cells.append(tables.format_interval(roc.average_precision(labels, scores, patients)))
        difference = roc.compare_aurocs(labels, scores, first, patients)
        shown = f"{difference.difference.value:+.3f}, p = {difference.p:.3f}, bootstrap p = {difference.p_bootstrap:.3f}"
        found.append((*cells, "" if scores is first else shown))
    return found


def _points(evaluation: Evaluation, probability: Scores) -> list[tuple[str, ...]]:
    labels, patients = evaluation.cohort.malignant, evaluation.cohort.patient
    points = {
        "operating point of the bundle, chosen on validation": evaluation.threshold,
        "Youden's index, optimistic: chosen on the same nodes": operating_points.youden_threshold(labels, probability),
        f"sensitivity of {SENSITIVITY}, optimistic: chosen on the same nodes": operating_points.threshold_for_sensitivity(
            labels, probability, SENSITIVITY
        ),
    }
    found = []
    for name, threshold in points.items():
        point = operating_points.operating_point_at(labels, probability, patients, threshold)
        figures = (point.sensitivity, point.specificity, point.accuracy)
        found.append(
            (
                f"{threshold:.2g}" if threshold < 0.01 else f"{threshold:.2f}",
                name,
                *(tables.format_interval(figure) for figure in figures),
            )
        )
    return found


def _subgroups(evaluation: Evaluation, probability: Scores) -> list[tuple[str, ...]]:
    cohort = evaluation.cohort
    groups = subgroups.subgroup_aurocs(cohort.malignant, probability, cohort.patient, evaluation.groups)
    return [
        (
            g.name,
            str(g.nodes),
            str(g.malignant),
            tables.format_interval(g.auroc) if g.auroc else "too few nodes of a class, or too few patients",
        )
        for g in groups
    ]


def _share(share: Interval, density: float) -> str:
    if math.isnan(share.value):
        return NO_FIGURE
    return f"{share.value:.2f} [{share.low:.2f}-{share.high:.2f}] ({_number(density, '.1f')})"


def _number(value: float, form: str) -> str:
    return NO_FIGURE if math.isnan(value) else format(value, form)


def _energy(evaluation: Evaluation) -> list[tuple[str, ...]]:
    return [
        (
            name,
            *(_share(energy.share[region], energy.density[region]) for region in energy.share),
            str(energy.nodes),
            _number(evaluation.cam_correlation.get(name, math.nan), ".2f"),
        )
        for name, energy in evaluation.cam_energy.items()
    ]


def _curves(evaluation: Evaluation) -> Figure:
    labels = evaluation.cohort.malignant
    figure = Figure(figsize=(17, 4.2), layout="constrained")
    roc_axes, recall, reliability, benefit = figure.subplots(1, 4)
    for name, scores in evaluation.scores.items():
        false, true, _ = roc_curve(labels, scores)
        roc_axes.plot(false, true, label=name, linewidth=1.2)
        precision, found, _ = precision_recall_curve(labels, scores)
        recall.plot(found, precision, label=name, linewidth=1.2)
    roc_axes.plot([0, 1], [0, 1], "k:", linewidth=0.8)
    roc_axes.set(xlabel="1 - specificity", ylabel="sensitivity", title="ROC")
    roc_axes.legend(fontsize=7, loc="lower right")
    recall.axhline(float(labels.mean()), color="k", linestyle=":", linewidth=0.8)
    recall.set(
        xlabel="sensitivity (recall)",
        ylabel="positive predictive value (precision)",
        title="precision and recall",
        ylim=(0, 1.02),
    )
    bins = calibration.reliability_bins(labels, next(iter(evaluation.scores.values())))
    middle = np.array([b.observed.value for b in bins])
    reach = np.abs(np.array([[b.observed.low for b in bins], [b.observed.high for b in bins]]) - middle)
    reliability.errorbar([b.predicted for b in bins], middle, reach, fmt="o-", markersize=4, linewidth=1, capsize=2)
    reliability.plot([0, 1], [0, 1], "k:", linewidth=0.8)
    reliability.set(
        xlabel="predicted probability",
        ylabel="observed share malignant",
        title="reliability (Wilson intervals)",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    _decision_curve(benefit, labels, next(iter(evaluation.scores.values())))
    return figure


def _decision_curve(axes: Axes, labels: npt.NDArray[np.bool_], probability: Scores) -> None:
    thresholds = decision_curve.THRESHOLDS
    axes.plot(thresholds, decision_curve.net_benefit(labels, probability), label="act on the ensemble", linewidth=1.2)
    axes.plot(thresholds, decision_curve.net_benefit_of_all(labels), "k--", linewidth=0.8, label="act on every node")
    axes.axhline(0, color="k", linestyle=":", linewidth=0.8, label="act on no node")
    share = float(labels.mean())
    axes.set(
        xlabel="threshold probability", ylabel="net benefit", title="decision curve", ylim=(-0.1 * share - 0.01, share + 0.02)
    )
    axes.legend(fontsize=7, loc="upper right")


def _largest_errors(cohort: Cohort, probability: Scores) -> Figure:
    worst = np.argsort(-np.abs(probability - cohort.malignant))[:WORST]
    figure = Figure(figsize=(1.7 * WORST, 4.0), layout="constrained")
    grid = figure.subplots(2, WORST, squeeze=False)
    for column, node in enumerate(worst):
        truth = "malignant" if cohort.malignant[node] else "benign"
        grid[0, column].set_title(f"{truth}, predicted {probability[node]:.2f}\n{cohort.short_axis[node]:.0f} mm", fontsize=8)
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
