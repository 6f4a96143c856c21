"""Select and combine networks on validation alone (Park et al. combine the two best families of each crop)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from alnnode.records import Crop
from training.evaluate import roc
from training.evaluate.calibration import platt_targets

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    Scores = npt.NDArray[np.floating[Any]]
    Labels = npt.NDArray[np.bool_]
    Patients = npt.NDArray[np.str_]
    Member = tuple[str, Crop]  # family, crop

RULES: Final = ("mean", "weighted", "stacked")
BEST_FAMILIES: Final = 2  # of each crop
SIGNIFICANT: Final = 0.05  # two AUROCs differ significantly on validation when p is lower
FEW_PATIENTS: Final = 60  # with fewer for validation, weights of a rule would be fitted to chance
MAX_LOSS: Final = 0.01  # of AUROC on validation, because with few nodes no difference is significant


@dataclass(frozen=True, slots=True)
class Combination:
    """Networks and a rule: "stacked" is sigmoid(intercept + weights x logits), others are the weighted mean of the probabilities."""

    members: tuple[Member, ...]
    rule: str
    weights: tuple[float, ...]
    intercept: float
    validation_auroc: float

    def apply(self, logits: Mapping[Member, Scores]) -> npt.NDArray[np.float64]:
        """Return the probability of each node from the logits of the networks."""
        stacked = np.stack([logits[member] for member in self.members])
        weights = np.array(self.weights)[:, None]
        if self.rule == "stacked":
            return np.asarray(_sigmoid((weights * stacked).sum(0) + self.intercept))
        return np.asarray((weights * _sigmoid(stacked)).sum(0))

    @property
    def name(self) -> str:
        """The networks and the rule as text."""
        return " + ".join(f"{family} {crop.value.upper()}" for family, crop in self.members) + f", {self.rule}"


def best_families(labels: Labels, validation: Mapping[Member, Scores]) -> dict[Crop, list[str]]:
    """Return the `BEST_FAMILIES` best families of each crop by AUROC on validation, the best first."""
    ranked = sorted(validation, key=lambda member: (-float(roc_auc_score(labels, validation[member])), member[0]))
    return {crop: [family for family, kind in ranked if kind is crop][:BEST_FAMILIES] for crop in Crop}


def rules_for(patients: Patients) -> tuple[str, ...]:
    """Return the rules that the validation patients allow: with fewer than `FEW_PATIENTS`, only the mean, which has no weights to fit."""
    return RULES if len(np.unique(patients)) >= FEW_PATIENTS else RULES[:1]


def rank_combinations(labels: Labels, validation: Mapping[Member, Scores], rules: tuple[str, ...] = RULES) -> list[Combination]:
    """Return every pair of one of the best FSC and one of the best ASC networks, and all four networks, under each rule; the best first."""
    best = best_families(labels, validation)
    pairs: list[tuple[Member, ...]] = [
        ((one, Crop.FSC), (other, Crop.ASC)) for one, other in product(best[Crop.FSC], best[Crop.ASC])
    ]
    every = tuple((family, crop) for crop in Crop for family in best[crop])
    found = [fit_combination(labels, validation, members, rule) for members in [*pairs, every] for rule in rules]
    return sorted(found, key=lambda c: -c.validation_auroc)


def served_pair(
    labels: Labels, patients: Patients, validation: Mapping[Member, Scores], costs: Mapping[str, float]
) -> Combination:
    """Return the pair for the bundle: the cheapest one that is not significantly worse than the best on validation (docs/adr/0005).

    A pair is the mean of one FSC and one ASC network. Neither network may be significantly worse than the best of its crop; otherwise a
    network that learned nothing could be combined with a good one. Nor may the pair be significantly worse than the best pair, and its
    AUROC may be at most `MAX_LOSS` lower.

    Args:
        labels: (N,) of the validation nodes.
        patients: (N,), for the tests (clustered DeLong, paired).
        validation: logits of every network.
        costs: of each family, in any unit.
    """
    candidates = []
    for crop in Crop:
        members = [member for member in validation if member[1] is crop]
        candidates.append(
            [members[n] for n in _not_worse_than_best(labels, patients, [validation[member] for member in members])]
        )
    pairs = [fit_combination(labels, validation, members, "mean") for members in product(*candidates)]
    alike = [pairs[n] for n in _not_worse_than_best(labels, patients, [pair.apply(validation) for pair in pairs])]
    best = max(pair.validation_auroc for pair in pairs)
    good = [pair for pair in alike if pair.validation_auroc >= best - MAX_LOSS]
    return min(good, key=lambda pair: (sum(costs[family] for family, _ in pair.members), -pair.validation_auroc))


def _not_worse_than_best(labels: Labels, patients: Patients, scores: list[Scores]) -> list[int]:
    """Return the numbers of the scores that do not differ significantly from the best ones (paired test)."""
    best = scores[int(np.argmax([roc_auc_score(labels, row) for row in scores]))]
    return [n for n, row in enumerate(scores) if roc.compare_aurocs(labels, row, best, patients).p >= SIGNIFICANT]


def fit_combination(labels: Labels, validation: Mapping[Member, Scores], members: tuple[Member, ...], rule: str) -> Combination:
    """Return a combination whose weights are fitted on validation."""
    intercept = 0.0
    stacked = np.stack([validation[member] for member in members])
    weights = np.full(len(members), 1 / len(members))
    if rule == "weighted":
        # Weights follow from how much better than chance each network is: one number for each, so that little can be overfitted.
        gains = np.array([max(float(roc_auc_score(labels, row)) - 0.5, 1e-3) for row in stacked]) ** 2
        weights = gains / gains.sum()
    elif rule == "stacked":
        model = LogisticRegression(C=1.0).fit(stacked.T, labels)
        weights, intercept = model.coef_[0], float(model.intercept_[0])
    combination = Combination(members, rule, tuple(float(w) for w in weights), intercept, 0.0)
    area = float(roc_auc_score(labels, combination.apply(validation)))
    return Combination(members, rule, combination.weights, intercept, area)


@dataclass(frozen=True, slots=True)
class PlattScale:
    """Platt scaling of the logits of one network: ``slope`` x logit + ``intercept``."""

    slope: float = 1.0
    intercept: float = 0.0

    def apply(self, logits: Scores) -> npt.NDArray[np.float64]:
        """Return the logits on the calibrated scale."""
        return np.asarray(self.slope * logits + self.intercept, dtype=np.float64)


def fit_platt_scale(labels: Labels, scores: Scores) -> PlattScale:
    """Return the scale fitted on the scores of one network or baseline (Platt 1999, with his targets).

    Networks are trained on as many malignant as benign nodes; the intercept restores the prevalence. After scaling, the scores of
    several folds can be pooled. Scores that rank no better than chance are not scaled.
    """
    target = platt_targets(labels)
    twice, once = np.concatenate([scores, scores])[:, None], np.ones(len(labels), dtype=int)
    weights = np.concatenate([target, 1 - target])
    model = LogisticRegression(C=1e3, max_iter=1000).fit(twice, np.concatenate([once, 1 - once]), weights)
    slope = float(model.coef_[0, 0])
    return PlattScale(slope, float(model.intercept_[0])) if slope > 0 else PlattScale()


def cross_fit(labels: Labels, scores: Scores, patients: Patients) -> npt.NDArray[np.float64]:
    """Return calibrated logits in which no node takes part in fitting its own scale.

    Every second patient forms one half; the scale that is fitted on one half is applied to the other. What is then chosen on these logits
    (members, temperature, threshold) does not see a scale that was fitted on the same nodes. A half without both classes cannot be
    fitted; then one scale is fitted on all nodes.
    """
    _, patient = np.unique(patients, return_inverse=True)
    second = patient % 2 == 1
    if any(len(np.unique(labels[half])) < 2 for half in (second, ~second)):
        return fit_platt_scale(labels, scores).apply(scores)
    found = np.empty(len(scores), np.float64)
    for half in (second, ~second):
        found[half] = fit_platt_scale(labels[~half], scores[~half]).apply(scores[half])
    return found


def _sigmoid(logits: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    return np.asarray(1 / (1 + np.exp(-logits)))
