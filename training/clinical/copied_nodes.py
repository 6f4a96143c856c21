"""Find nodes that one patient has under two names, although the bytes of the images differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.clinical.node_table import Problem
from training.data.near_duplicates import near_duplicates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.data.cohort import Cohort


def copy_problems(numbers: Sequence[int], cohort: Cohort) -> list[Problem]:
    """Return one problem for each row whose image is nearly that of a row of another patient: shifted, recompressed or filtered.

    Args:
        numbers: (N,) row of the table of each node.
        cohort: the crops of the nodes.
    """
    first: dict[int, int] = {}
    for pair in near_duplicates(cohort.fsc[:, 0, 0], cohort.patient):
        one, other = sorted(numbers[row] for row in pair[:2])
        first[other] = min(one, first.get(other, one))
    return [
        Problem(
            second,
            "patient",
            f"the image of the node is nearly the same as in row {one}, which has another patient name",
            "check whether one patient has two names; give both patients one name, so that their nodes stay in one part of the data",
        )
        for second, one in sorted(first.items())
    ]
