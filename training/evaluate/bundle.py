"""What a bundle is worth on phantoms that nobody trained on: located by truth, classified by the node's own code."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alnnode.records import Crop, Interval
from training.evaluate import auroc, operating_points
from training.fit.member import logits

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt
    import torch

    from training.data.cohort import Cohort

    Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one evaluation, with 95 % intervals: AUROCs' by DeLong with clusters of patients, proportions' as `statistics.at`."""

    nodes: int
    malignant: int
    patients: int
    auroc: dict[str, Interval]  # ensemble, each member, other boxes, and short axis alone as the baseline
    threshold: float
    sensitivity: Interval
    specificity: Interval
    accuracy: Interval
    expected_calibration_error: float
    brier: float

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def evaluate(
    cohort: Cohort, models: Mapping[Crop, torch.nn.Module], temperature: float, threshold: float, device: str = "cpu"
) -> Figures:
    """Return the figures of an ensemble on a cohort."""
    labels, patients = cohort.malignant, cohort.patient
    member_logits = {crop: logits(model, cohort, crop, device) for crop, model in models.items()}
    probability = np.round(operating_points.mean_probability(operating_points.stack(member_logits), temperature), 4)
    shifted = operating_points.stack({crop: logits(model, cohort, crop, device, variant=1) for crop, model in models.items()})
    point = operating_points.at(labels, probability, patients, threshold)
    rows = {"ensemble": probability, **{crop.value: member_logits[crop] for crop in Crop}}
    rows["ensemble, boxes as a detector might give them"] = operating_points.mean_probability(shifted, temperature)
    rows["short axis alone"] = cohort.short_axis.astype(np.float64)
    return Figures(
        nodes=len(cohort),
        malignant=int(labels.sum()),
        patients=len(cohort.patients),
        auroc={name: auroc.interval(labels, scores, patients) for name, scores in rows.items()},
        threshold=threshold,
        sensitivity=point.sensitivity,
        specificity=point.specificity,
        accuracy=point.accuracy,
        expected_calibration_error=operating_points.expected_calibration_error(labels, probability),
        brier=operating_points.brier(labels, probability),
    )


def table(figures: Figures) -> str:
    """Return the figures as a Markdown table."""
    lines = ["| figure | value | 95 % interval |", "|---|---|---|"]
    lines += [f"| AUROC, {name} | {_row(value)} |" for name, value in figures.auroc.items()]
    for name in ("sensitivity", "specificity", "accuracy"):
        lines.append(f"| {name} at {figures.threshold:g} | {_row(getattr(figures, name))} |")
    lines.append(f"| expected calibration error | {figures.expected_calibration_error:.3f} | |")
    lines.append(f"| Brier score | {figures.brier:.3f} | |")
    return "\n".join(lines)


def _row(value: Interval) -> str:
    return f"{value.value:.3f} | {value.low:.3f} to {value.high:.3f}"
