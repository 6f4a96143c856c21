"""How much of the chest and of each axilla a series shows: whether the images cut the axilla off on any side.

An axilla is covered when the images hold its whole search region. When that cannot be determined, it is not covered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from alnnode.locate.sight import touches
from alnnode.records import AxillaCoverage, Side

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.locate.chest import Chest
    from alnnode.locate.grid import Mask

MIN_CUT_MM = 5.0  # least height of a cut that counts
MAX_CUT_SHARE = 0.25  # largest share of slices without chest wall for which the midline is reliable
MIN_MEDIAL_MM = 100.0  # from the chest wall towards the other side: levels II and III lie in this range


def nothing_shown() -> tuple[AxillaCoverage, AxillaCoverage]:
    """Return the coverage of a series without lungs."""
    remark = "no lungs found: the chest is not shown, or cannot be recognised"
    return AxillaCoverage(Side.RIGHT, False, remark, shown=False), AxillaCoverage(Side.LEFT, False, remark, shown=False)


def outside(side: Side, chest: Chest, zone: Mask) -> bool:
    """Return whether the images end medial to an axilla, or below it; then it is not searched.

    Without the chest wall of one side, or with a thin part of the front or back of the chest alone, the midline is unreliable, and positions beyond it
    may belong to the other side.
    """
    sight = chest.sight
    beyond = sight.wall_cut(side).sum() > MAX_CUT_SHARE * sight.height
    return sight.base or sight.shallow or bool(beyond or (sight.narrow and touches(zone, sight.edge.lateral(side)).any()))


def coverage_of(side: Side, chest: Chest, zone: Mask, searched: Mask, spacing: tuple[float, float, float]) -> AxillaCoverage:
    """Return how much of one axilla a series shows.

    Args:
        side: of the patient.
        chest: the landmarks.
        zone: trunk (z, y, x) on this side that can hold nodes, up to the edge of the images.
        searched: the search region of this side.
        spacing: of these grids, mm.
    """
    sight = chest.sight
    if sight.base:
        return AxillaCoverage(side, False, "above the top slice", shown=False)
    front, back = sight.cut[2], sight.cut[3]
    said = [
        (cut_at_side(side, chest, zone, spacing), "cut off at the side of the image"),
        (_long(touches(zone, sight.edge.front) | front, spacing[0]), "cut off at the front of the image"),
        (_long(touches(zone, sight.edge.back) | back, spacing[0]), "cut off at the back of the image"),
        (sight.open_top, "upper part above the top slice"),
        (sight.open_bottom, "lower part below the bottom slice"),
        (sight.gap, "the chest wall cannot be found in every slice"),
    ]
    remarks = [remark for true, remark in said if true]
    if not remarks and (sight.narrow or not searched.any()):
        remarks = ["the chest is not shown from side to side"]
    return AxillaCoverage(side, not remarks, "; ".join(remarks), shown=bool(searched.any()))


def cut_at_side(side: Side, chest: Chest, zone: Mask, spacing: tuple[float, float, float]) -> bool:
    """Return whether the side of the image cuts an axilla off; the arguments are those of `coverage_of`."""
    beside = touches(zone, chest.sight.edge.lateral(side)) | chest.sight.wall_cut(side)
    return _long(beside, spacing[0]) or _cut_medially(side, chest, spacing)


def _cut_medially(side: Side, chest: Chest, spacing: tuple[float, float, float]) -> bool:
    """Return whether the images end so near to the chest wall that the medial levels of the axilla are cut off."""
    columns = np.flatnonzero(chest.thorax.any(axis=(0, 1)))
    far = np.flatnonzero(chest.sight.edge.lateral(Side.LEFT if side is Side.RIGHT else Side.RIGHT).any(axis=0))
    wall = columns[0] if side is Side.RIGHT else columns[-1]
    edge = far[-1] if side is Side.RIGHT else far[0]
    return bool(abs(edge - wall) * spacing[2] < MIN_MEDIAL_MM)


def _long(slices: npt.NDArray[np.bool_], dz: float) -> bool:
    """Return whether a cut in slices ``dz`` mm apart counts: it extends over `MIN_CUT_MM`, or over all slices but one."""
    return bool(slices.sum() * dz >= MIN_CUT_MM or slices.sum() >= max(1, slices.size - 1))
