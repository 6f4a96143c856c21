"""AUROC within subgroups of the nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from training.evaluate import roc

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from alnnode.records import Interval

    Scores = npt.NDArray[np.floating[Any]]
    Labels = npt.NDArray[np.bool_]
    Patients = npt.NDArray[np.str_]

SMALLEST_SUBGROUP = 5  # nodes of each class, and patients; an AUROC of fewer is not informative


@dataclass(frozen=True, slots=True)
class Subgroup:
    """The AUROC within one subgroup; None when a class has fewer than `SMALLEST_SUBGROUP` nodes."""

    name: str
    nodes: int
    malignant: int
    auroc: Interval | None


def subgroup_aurocs(
    labels: Labels, scores: Scores, patients: Patients, groups: Mapping[str, npt.NDArray[np.str_]]
) -> list[Subgroup]:
    """Return the AUROC within each value of each attribute in ``groups``."""
    found = []
    for attribute, values in groups.items():
        for value in np.unique(values):
            rows = values == value
            positive = int(labels[rows].sum())
            enough = min(positive, int(rows.sum()) - positive, len(np.unique(patients[rows]))) >= SMALLEST_SUBGROUP
            area = roc.auroc(labels[rows], scores[rows], patients[rows]) if enough else None
            found.append(Subgroup(f"{attribute}: {value}", int(rows.sum()), positive, area))
    return found
