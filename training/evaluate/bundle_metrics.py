"""Metrics of a bundle on a cohort that was not used for training; the node's own code crops and classifies the nodes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alnnode.records import Crop, Interval
from training.evaluate import calibration, operating_points, roc
from training.networks.inference import mean_probability, predict_logits, stack_logits

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from training.data.cohort import Cohort


@dataclass(frozen=True, slots=True)
class BundleMetrics:
    """The metrics of one evaluation with 95 % intervals.

    AUROC intervals are DeLong's, clustered by patient; those of proportions are as in `operating_points.operating_point_at`.

    Attributes:
        auroc: of the ensemble, each network, the ensemble with shifted boxes, and the short axis alone as the baseline.
    """

    nodes: int
    malignant: int
    patients: int
    auroc: dict[str, Interval]
    threshold: float
    sensitivity: Interval
    specificity: Interval
    accuracy: Interval
    expected_calibration_error: float
    brier: float

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def evaluate_ensemble(
    cohort: Cohort, models: Mapping[Crop, torch.nn.Module], temperature: float, threshold: float, device: str = "cpu"
) -> BundleMetrics:
    """Return the metrics of an ensemble on a cohort."""
    labels, patients = cohort.malignant, cohort.patient
    logits = {crop: predict_logits(model, cohort, crop, device) for crop, model in models.items()}
    probability = np.round(mean_probability(stack_logits(logits), temperature), 4)
    shifted = stack_logits({crop: predict_logits(model, cohort, crop, device, variant=1) for crop, model in models.items()})
    point = operating_points.operating_point_at(labels, probability, patients, threshold)
    rows = {"ensemble": probability, **{crop.value: logits[crop] for crop in Crop}}
    rows["ensemble, boxes as a detector might give them"] = mean_probability(shifted, temperature)
    rows["short axis alone"] = cohort.short_axis.astype(np.float64)
    return BundleMetrics(
        nodes=len(cohort),
        malignant=int(labels.sum()),
        patients=len(cohort.patients),
        auroc={name: roc.auroc(labels, scores, patients) for name, scores in rows.items()},
        threshold=threshold,
        sensitivity=point.sensitivity,
        specificity=point.specificity,
        accuracy=point.accuracy,
        expected_calibration_error=calibration.expected_calibration_error(labels, probability),
        brier=calibration.brier_score(labels, probability),
    )


def metrics_table(figures: BundleMetrics) -> str:
    """Return the metrics as a Markdown table."""
    lines = ["| figure | value | 95 % interval |", "|---|---|---|"]
    lines += [f"| AUROC, {name} | {_row(value)} |" for name, value in figures.auroc.items()]
    for name in ("sensitivity", "specificity", "accuracy"):
        lines.append(f"| {name} at {figures.threshold:g} | {_row(getattr(figures, name))} |")
    lines.append(f"| expected calibration error | {figures.expected_calibration_error:.3f} | |")
    lines.append(f"| Brier score | {figures.brier:.3f} | |")
    return "\n".join(lines)


def _row(value: Interval) -> str:
    return f"{value.value:.3f} | {value.low:.3f} to {value.high:.3f}"
