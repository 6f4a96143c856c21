"""Which networks to combine, and how: decided on validation alone (Park et al. take the two best families of each crop)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from alnnode.records import Crop
from training.evaluate import auroc
from training.evaluate.operating_points import soft_targets

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    Scores = npt.NDArray[np.floating[Any]]
    Labels = npt.NDArray[np.bool_]
    Patients = npt.NDArray[np.str_]
    Member = tuple[str, Crop]  # family, crop

RULES: Final = ("mean", "weighted", "stacked")
KEPT: Final = 2  # families of each crop
TOLD_APART: Final = 0.05  # p below which validation tells two from each other
MAX_LOSS: Final = 0.01  # of AUROC on validation: with few nodes nothing is told apart


@dataclass(frozen=True, slots=True)
class Combination:
    """Members and a rule: sigmoid(intercept + weights x logits) when stacked, else the weighted mean of the probabilities."""

    members: tuple[Member, ...]
    rule: str
    weights: tuple[float, ...]
    intercept: float
    validation_auroc: float

    def apply(self, logits: Mapping[Member, Scores]) -> npt.NDArray[np.float64]:
        """Return the probability of each node from its members' logits."""
        stacked = np.stack([logits[member] for member in self.members])
        weights = np.array(self.weights)[:, None]
        if self.rule == "stacked":
            return np.asarray(_sigmoid((weights * stacked).sum(0) + self.intercept))
        return np.asarray((weights * _sigmoid(stacked)).sum(0))

    @property
    def name(self) -> str:
        """Members and rule in words."""
        return " + ".join(f"{family} {crop.value.upper()}" for family, crop in self.members) + f", {self.rule}"


def best_families(labels: Labels, validation: Mapping[Member, Scores]) -> dict[Crop, list[str]]:
    """Return the `KEPT` best families of each crop by AUROC on validation, the best first."""
    ranked = sorted(validation, key=lambda member: (-float(roc_auc_score(labels, validation[member])), member[0]))
    return {crop: [family for family, of in ranked if of is crop][:KEPT] for crop in Crop}


def combinations(labels: Labels, validation: Mapping[Member, Scores]) -> list[Combination]:
    """Return every pair of a kept FSC and a kept ASC network, and all four together, under each rule; the best on validation first."""
    kept = best_families(labels, validation)
    pairs: list[tuple[Member, ...]] = [
        ((one, Crop.FSC), (other, Crop.ASC)) for one, other in product(kept[Crop.FSC], kept[Crop.ASC])
    ]
    every = tuple((family, crop) for crop in Crop for family in kept[crop])
    found = [fit(labels, validation, members, rule) for members in [*pairs, every] for rule in RULES]
    return sorted(found, key=lambda c: -c.validation_auroc)


def served(labels: Labels, patients: Patients, validation: Mapping[Member, Scores], costs: Mapping[str, float]) -> Combination:
    """Return the pair that a node serves: the cheapest of those that validation cannot tell from the best (docs/adr/0005).

    A pair is the mean of one FSC and one ASC network. Each of its networks must be one that validation cannot tell from the best of its
    crop, or a network that learned nothing would do beside a good one; and so must the pair itself, of the best pair, and its AUROC
    may not be more than `MAX_LOSS` below.

    Args:
        labels: (N,) of the validation nodes.
        patients: (N,), for the tests (clustered DeLong, paired).
        validation: logits of every network.
        costs: of each family, in whatever unit.
    """
    kept = []
    for crop in Crop:
        members = [member for member in validation if member[1] is crop]
        kept.append([members[n] for n in _like_the_best(labels, patients, [validation[member] for member in members])])
    pairs = [fit(labels, validation, members, "mean") for members in product(*kept)]
    alike = [pairs[n] for n in _like_the_best(labels, patients, [pair.apply(validation) for pair in pairs])]
    best = max(pair.validation_auroc for pair in pairs)
    good = [pair for pair in alike if pair.validation_auroc >= best - MAX_LOSS]
    return min(good, key=lambda pair: (sum(costs[family] for family, _ in pair.members), -pair.validation_auroc))


def _like_the_best(labels: Labels, patients: Patients, scores: list[Scores]) -> list[int]:
    """Return the rows that a paired test does not tell from the best one."""
    best = scores[int(np.argmax([roc_auc_score(labels, row) for row in scores]))]
    return [n for n, row in enumerate(scores) if auroc.compare(labels, row, best, patients).p >= TOLD_APART]


def fit(labels: Labels, validation: Mapping[Member, Scores], members: tuple[Member, ...], rule: str) -> Combination:
    """Return the combination with its weights fitted on validation."""
    intercept = 0.0
    stacked = np.stack([validation[member] for member in members])
    weights = np.full(len(members), 1 / len(members))
    if rule == "weighted":
        # By how far each is better than chance: one number per member, so that little can be overfitted.
        gains = np.array([max(float(roc_auc_score(labels, row)) - 0.5, 1e-3) for row in stacked]) ** 2
        weights = gains / gains.sum()
    elif rule == "stacked":
        model = LogisticRegression(C=1.0).fit(stacked.T, labels)
        weights, intercept = model.coef_[0], float(model.intercept_[0])
    combination = Combination(members, rule, tuple(float(w) for w in weights), intercept, 0.0)
    area = float(roc_auc_score(labels, combination.apply(validation)))
    return Combination(members, rule, combination.weights, intercept, area)


@dataclass(frozen=True, slots=True)
class Scale:
    """What turns the logits of one network into those of a calibrated one: ``slope`` x logit + ``intercept``."""

    slope: float = 1.0
    intercept: float = 0.0

    def apply(self, logits: Scores) -> npt.NDArray[np.float64]:
        """Return the logits on the calibrated scale."""
        return np.asarray(self.slope * logits + self.intercept, dtype=np.float64)


def platt(labels: Labels, scores: Scores) -> Scale:
    """Return the scale fitted on the scores of one network or baseline (Platt 1999, with his targets).

    Networks are trained on as many malignant as benign nodes: the intercept gives back how many of each there are. And networks of
    several folds, each on its own scale, can be pooled afterwards. What ranks no better than chance keeps its scale.
    """
    target = soft_targets(labels)
    twice, once = np.concatenate([scores, scores])[:, None], np.ones(len(labels), dtype=int)
    weights = np.concatenate([target, 1 - target])
    model = LogisticRegression(C=1e3, max_iter=1000).fit(twice, np.concatenate([once, 1 - once]), weights)
    slope = float(model.coef_[0, 0])
    return Scale(slope, float(model.intercept_[0])) if slope > 0 else Scale()


def _sigmoid(logits: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    return np.asarray(1 / (1 + np.exp(-logits)))
