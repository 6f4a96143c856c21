"""Metrics of a bundle on fresh phantoms, together and by contrast phase."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import typer

from training.evaluate import operating_points, roc
from training.networks.inference import mean_probability, predict_logits, stack_logits

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from alnnode.model.bundle import Bundle
    from alnnode.records import Crop, Interval
    from training.data.node_features import FeatureCohort


@dataclass(frozen=True, slots=True)
class FreshMetrics:
    """Metrics of a bundle on fresh phantoms, or on those of one contrast phase.

    Attributes:
        sensitivity, specificity: at the operating point of the bundle.
        at_target: specificity where the ROC curve of these nodes reaches the target sensitivity.
    """

    nodes: int
    malignant: int
    auroc: Interval
    sensitivity: Interval
    specificity: Interval
    at_target: float


def fresh_metrics(
    fresh: FeatureCohort, models: Mapping[Crop, torch.nn.Module], point: tuple[float, float], target: float, device: str = "cpu"
) -> dict[str, FreshMetrics]:
    """Return the metrics of a pair of networks on fresh phantoms: of all nodes ("all"), and of each contrast phase.

    Args:
        fresh: nodes of phantoms on which nothing was trained, chosen or fitted.
        models: the networks of the pair.
        point: temperature and threshold of the pair.
        target: sensitivity at which ``at_target`` gives the specificity.
        device: of the networks.
    """
    temperature, threshold = point
    cohort = fresh.cohort
    logits = stack_logits({crop: predict_logits(model, cohort, crop, device) for crop, model in models.items()})
    scores = np.round(mean_probability(logits, temperature), 4)
    phases = fresh.groups()["phase"]
    found = {}
    for name in ("all", *np.unique(phases)):
        rows = np.ones(len(cohort), bool) if name == "all" else phases == name
        labels, patients = cohort.malignant[rows], cohort.patient[rows]
        if labels.any() and not labels.all():
            found_point = operating_points.operating_point_at(labels, scores[rows], patients, threshold)
            found[str(name)] = FreshMetrics(
                len(labels),
                int(labels.sum()),
                roc.auroc(labels, scores[rows], patients),
                found_point.sensitivity,
                found_point.specificity,
                operating_points.specificity_at_sensitivity(labels, scores[rows], target),
            )
    return found


def refuse_used_seed(loaded: Bundle, seed: int) -> None:
    """Refuse a seed whose phantoms made the bundle.

    Raises:
        typer.BadParameter: the seed is one of those in the manifest.
    """
    used, before = (loaded.manifest.provenance.get(name) for name in ("seed", "pretraining_seed"))
    if isinstance(used, int) and used <= seed <= used + 2:
        raise typer.BadParameter(
            f"seed {seed} was used to make this bundle ({used} to {used + 2}); choose another seed", param_hint="--seed"
        )
    if seed == before:
        raise typer.BadParameter(f"seed {seed} was used to pretrain this bundle; choose another seed", param_hint="--seed")
