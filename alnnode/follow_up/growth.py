"""How much a node grew since the prior report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alnnode.records.comparison import SHORT_AXIS_CHANGE_ERROR_MM, Growth

if TYPE_CHECKING:
    from alnnode.records.comparison import PriorNode


def growth_mm(short_axis_mm: float, prior_node: PriorNode) -> float:
    """Return the growth of a short axis, mm, between the rounded values that both reports show."""
    return round(round(short_axis_mm, 1) - prior_node.short_axis_mm, 1)


def classify_growth(short_axis_mm: float, prior_node: PriorNode) -> Growth:
    """Return whether a short axis changed by more than the measurement error."""
    change = growth_mm(short_axis_mm, prior_node)
    if abs(change) <= SHORT_AXIS_CHANGE_ERROR_MM:
        return Growth.WITHIN_ERROR
    return Growth.LARGER if change > 0 else Growth.SMALLER
