"""Metrics of a bundle on nodes that were implanted into real CT, beside the same nodes implanted into phantoms, and the drop between them.

All intervals are percentile intervals of a bootstrap; both scores of a node are drawn together, so the interval of the drop is paired. Nodes
of one series share scanner and patient, so an interval over series is the one to quote; the one over nodes is narrower.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from alnnode.records import Crop, Interval
from training.evaluate import roc
from training.networks.inference import mean_probability, predict_logits, stack_logits

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt
    import torch

    from training.data.cohort import Cohort

    Scores = npt.NDArray[np.floating[Any]]
    Labels = npt.NDArray[np.bool_]
    Names = npt.NDArray[np.str_]
    Pair = tuple[Scores, Scores]  # in the CT and in phantoms

RESAMPLES: Final = 2000
ENSEMBLE: Final = "ensemble"
FEWEST: Final = 2  # of series, and of nodes of a class


@dataclass(frozen=True, slots=True)
class Drop:
    """One figure of the same nodes in real CT and in phantoms.

    Attributes:
        drop: phantoms less real CT.
    """

    ct: Interval
    phantoms: Interval
    drop: Interval


@dataclass(frozen=True, slots=True)
class ImplantSubset:
    """The nodes of all series, of a contrast phase, of a kind of place, or of a series.

    Attributes:
        auroc: of the ensemble, with intervals over nodes.
        sensitivity, specificity: at the operating point of the bundle, likewise.
    """

    name: str
    nodes: int
    malignant: int
    auroc: Drop | None
    sensitivity: Drop | None
    specificity: Drop | None


@dataclass(frozen=True, slots=True)
class ImplantFigures:
    """The metrics of one evaluation.

    Attributes:
        by_series: each figure with intervals over series; empty with fewer than `FEWEST` series.
        by_node: the same with intervals over nodes.
        subsets: the figures of the ensemble in subsets, all nodes first.
    """

    nodes: int
    malignant: int
    series: int
    threshold: float
    by_series: dict[str, Drop]
    by_node: dict[str, Drop]
    subsets: tuple[ImplantSubset, ...]


def bundle_scores(
    both: tuple[Cohort, Cohort], models: Mapping[Crop, torch.nn.Module], temperature: float, *, blood: bool
) -> tuple[dict[str, Scores], dict[str, Scores]]:
    """Return the scores of the same nodes in the CT and in phantoms.

    They are those of the ensemble (its probability), of each network, of the ensemble with shifted boxes, and the short axis.

    Args:
        both: the nodes in the CT, and in phantoms.
        models: the networks of the bundle.
        temperature: of the bundle.
        blood: whether the last channel holds the attenuation of the blood; then each cohort is also scored with the value of the other.
    """

    def scores(cohort: Cohort, other: Cohort) -> dict[str, Scores]:
        logits = {crop: predict_logits(model, cohort, crop) for crop, model in models.items()}
        shifted = {crop: predict_logits(model, cohort, crop, variant=1) for crop, model in models.items()}
        found: dict[str, Scores] = {
            ENSEMBLE: np.round(mean_probability(stack_logits(logits), temperature), 4),
            **{crop.value.upper(): logits[crop] for crop in Crop},
            f"{ENSEMBLE}, boxes as a detector might give them": mean_probability(stack_logits(shifted), temperature),
        }
        if blood:
            exchanged = {crop: predict_logits(model, _with_blood(cohort, other), crop) for crop, model in models.items()}
            found[f"{ENSEMBLE}, attenuation of the blood exchanged"] = mean_probability(stack_logits(exchanged), temperature)
        return found | {"short axis alone": cohort.short_axis.astype(np.float64)}

    return scores(both[0], both[1]), scores(both[1], both[0])


def _with_blood(cohort: Cohort, other: Cohort) -> Cohort:
    """Return a cohort with the last channel, the attenuation of the blood, of another cohort of the same nodes."""
    fsc, asc = (
        np.concatenate([mine[:, :, :-1], theirs[:, :, -1:]], axis=2)
        for mine, theirs in ((cohort.fsc, other.fsc), (cohort.asc, other.asc))
    )
    return replace(cohort, fsc=fsc, asc=asc)


def implant_figures(
    cohort: Cohort, ct: Mapping[str, Scores], phantoms: Mapping[str, Scores], threshold: float, groups: Mapping[str, Names]
) -> ImplantFigures:
    """Return the metrics.

    Args:
        cohort: the nodes in the real CT; the patient of a node is its series.
        ct: their scores (`bundle_scores`).
        phantoms: those of the same nodes in phantoms.
        threshold: operating point of the ensemble.
        groups: name of the subset (N,) of each node, by kind of subset.
    """
    labels, series = cohort.malignant, cohort.patient
    pairs = {name: (ct[name], phantoms[name]) for name in ct}
    many = len(np.unique(series)) >= FEWEST
    every = [("all", np.ones(len(labels), bool))]
    every += [(str(value), names == value) for names in groups.values() for value in np.unique(names)]
    return ImplantFigures(
        nodes=len(labels),
        malignant=int(labels.sum()),
        series=len(np.unique(series)),
        threshold=threshold,
        by_series=_figures(labels, pairs, threshold, series) if many else {},
        by_node=_figures(labels, pairs, threshold, _each(labels)),
        subsets=tuple(
            _subset(name, labels[rows], (ct[ENSEMBLE][rows], phantoms[ENSEMBLE][rows]), threshold) for name, rows in every
        ),
    )


def _figures(labels: Labels, pairs: Mapping[str, Pair], threshold: float, clusters: Names) -> dict[str, Drop]:
    found = {f"AUROC, {name}": auroc_drop(labels, scores, clusters) for name, scores in pairs.items()}
    ct, phantoms = (scores >= threshold for scores in pairs[ENSEMBLE])
    found[f"sensitivity at {threshold:g}"] = share_drop(ct[labels], phantoms[labels], clusters[labels])
    found[f"specificity at {threshold:g}"] = share_drop(~ct[~labels], ~phantoms[~labels], clusters[~labels])
    return found


def _subset(name: str, labels: Labels, scores: Pair, threshold: float) -> ImplantSubset:
    each = _each(labels)
    malignant, benign = int(labels.sum()), int((~labels).sum())
    ct, phantoms = (one >= threshold for one in scores)
    return ImplantSubset(
        name=name,
        nodes=len(labels),
        malignant=malignant,
        auroc=auroc_drop(labels, scores, each) if min(malignant, benign) >= FEWEST else None,
        sensitivity=share_drop(ct[labels], phantoms[labels], each[labels]) if malignant else None,
        specificity=share_drop(~ct[~labels], ~phantoms[~labels], each[~labels]) if benign else None,
    )


def _each(labels: Labels) -> Names:
    """Return a name for each node, for a bootstrap over nodes."""
    return np.arange(len(labels)).astype(np.str_)


def auroc_drop(labels: Labels, scores: Pair, clusters: Names) -> Drop:
    """Return the AUROCs of two scores of the same nodes; clusters (N,) are resampled together."""
    values = [float(roc.pairwise_wins(labels, one).mean()) for one in scores]
    return _drop(values, [roc.bootstrap_aurocs(labels, one, clusters) for one in scores])


def share_drop(ct: Labels, phantoms: Labels, clusters: Names) -> Drop:
    """Return the shares of hits among the same nodes; clusters (N,) are resampled together."""
    weights = np.array(list(roc.resample_patients(clusters, RESAMPLES)), np.float64)
    values = [float(hits.mean()) for hits in (ct, phantoms)]
    return _drop(values, [weights @ hits / weights.sum(axis=1) for hits in (ct, phantoms)])


def _drop(values: list[float], drawn: list[npt.NDArray[np.float64]]) -> Drop:
    ct, phantoms = (_interval(value, samples) for value, samples in zip(values, drawn, strict=True))
    return Drop(ct, phantoms, _interval(values[1] - values[0], drawn[1] - drawn[0]))


def _interval(value: float, samples: npt.NDArray[np.float64]) -> Interval:
    low, high = np.quantile(samples, [0.025, 0.975])
    return Interval(value, float(low), float(high))
