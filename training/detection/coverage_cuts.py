"""Judge the coverage and the levels of cut images against the anatomy and the readers' marks of the whole series.

A cut loses a part of an axilla when it removes at least `LOST_ML` of the search region above the lower end of the axilla, a slice that both
readers count to the axilla, or a part of a place that a reader marked as a node. Such an axilla must not be called covered. An axilla
that the whole series does not cover stays uncovered after every cut.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from alnnode.locate.anatomy import find_axillae, find_chest
from alnnode.locate.axilla_extent import axillary
from alnnode.locate.axillary_level import Landmarks
from alnnode.locate.chest_anatomy import ChestAnatomy
from alnnode.records import Side
from training.detection.image_cuts import Cut, CutSide, CuttableSeries

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from alnnode.locate.axillary_level import LevelModel
    from alnnode.locate.chest import Axilla, Chest
    from alnnode.locate.grid import Coarse, Mask
    from alnnode.records import Level, Volume
    from training.detection.reference import Reference

    Point = tuple[float, float, float]

LOST_ML = 1.0  # the volume of a node of 12 mm
AXILLA = 0.5  # likelihood of `axillary` above which a position counts as axilla
EDGE_MM = 5.0  # nothing is located so near to the edge of a slice
OTHER_SIDE_MM = 15.0  # beyond the midline of the whole series, a search region lies on the wrong side
LEAST_LEFT = 4  # voxels that a cut leaves


@dataclass(slots=True)
class CutCount:
    """Counts of the cuts of one series.

    Attributes:
        cuts: number of cuts.
        lost: axillae that lost something, or were not covered before the cut.
        wrong: lost axillae called covered, as "side of the cut, voxels removed, axilla".
        other_side: axillae whose search region lies beyond the midline, in the same form.
        kept: axillae that lost nothing.
        refused: kept axillae not called covered: the distance in mm from the cut to the first that loses something, for each side of the
            cut.
        told: levels determined after a cut that are determined in the whole series too.
        changed: those that differ.
    """

    cuts: int = 0
    lost: int = 0
    wrong: list[str] = field(default_factory=list)
    other_side: list[str] = field(default_factory=list)
    kept: int = 0
    refused: dict[CutSide, list[float]] = field(default_factory=dict)
    told: int = 0
    changed: list[str] = field(default_factory=list)


class WholeSeries:
    """A series before cuts, and the first cut of each side that loses a part of an axilla."""

    def __init__(self, volume: Volume, reference: Reference, levels: LevelModel) -> None:
        """Find the anatomy of the whole series.

        Raises:
            ValueError: the series shows no lungs.
        """
        anatomy = ChestAnatomy(volume)
        self.series = CuttableSeries(volume, anatomy.frame)
        self._levels, self._reference = levels, reference
        if anatomy.chest is None or anatomy.axillae is None:
            raise ValueError("the series shows no lungs")
        self._middle = anatomy.chest.midline * anatomy.coarse.step[2]
        self._places: list[tuple[Point, float]] = [
            (anatomy.frame.canonical_position(place.centre, volume.voxels.shape), place.long_mm / 2)
            for place in (*reference.nodes, *reference.uncertain)
        ]
        found = _Found(anatomy.coarse, anatomy.chest, anatomy.axillae)
        self._told = [self._level(found, centre) for centre, _ in self._places]
        self.first_loss = {
            (axilla.side, side): self._first_loss(found, axilla, side) for axilla in found.axillae for side in CutSide
        }

    def cuts(self, side: CutSide, step: int) -> Iterator[Cut]:
        """Yield the cuts of one side, every ``step`` voxels."""
        for removed in range(step, self.series.voxels.shape[side.axis] - LEAST_LEFT, step):
            yield Cut(side, removed)

    def judge(self, side: CutSide, step: int, count: CutCount) -> None:
        """Add the cuts of one side, every ``step`` voxels, to the counts."""
        last, found = None, None
        for cut in self.cuts(side, step):
            if side.low or last != self.series.blocks(cut):
                found, last = _find(self.series.coarse(cut)), self.series.blocks(cut)
            count.cuts += 1
            for axilla in Side:
                self._judge_axilla(axilla, cut, found, count)
            self._judge_levels(cut, found, count)

    def _judge_axilla(self, side: Side, cut: Cut, found: _Found | None, count: CutCount) -> None:
        first, name = self.first_loss[side, cut.side], f"{cut.side} {cut.removed}: {side}"
        axilla = found.axilla(side) if found else None
        covered = axilla is not None and axilla.coverage.covered
        if cut.removed >= first:
            count.lost += 1
            if covered:
                count.wrong.append(name)
        else:
            count.kept += 1
            if not covered:
                count.refused.setdefault(cut.side, []).append((first - cut.removed) * self.series.spacing[cut.side.axis])
        if found and axilla and self._beyond_midline(found.coarse, axilla, cut):
            count.other_side.append(name)

    def _beyond_midline(self, coarse: Coarse, axilla: Axilla, cut: Cut) -> bool:
        columns = np.flatnonzero(axilla.mask.any(axis=(0, 1)))
        if columns.size == 0:
            return False
        away = (columns[[0, -1]] + 0.5) * coarse.step[2] + cut.start[2] - self._middle
        beyond = away[1] if axilla.side is Side.RIGHT else -away[0]
        return bool(beyond * self.series.spacing[2] > OTHER_SIDE_MM)

    def _judge_levels(self, cut: Cut, found: _Found | None, count: CutCount) -> None:
        if found is None or not found.chest.sight.landmarks:
            return
        for number, ((centre, radius), whole) in enumerate(zip(self._places, self._told, strict=True)):
            if whole is None or cut.removed >= self._loss_of_place(centre, radius, cut.side):
                continue
            z, y, x = (at - from_ for at, from_ in zip(centre, cut.start, strict=True))
            level = self._level(found, (z, y, x))
            if level is not None:
                count.told += 1
                if level is not whole:
                    count.changed.append(f"{cut.side} {cut.removed}: place {number}, {whole} to {level}")

    def _level(self, found: _Found, centre: Point) -> Level | None:
        side = Side.RIGHT if centre[2] < found.chest.midline * found.coarse.step[2] else Side.LEFT
        if found.axilla(side).cut_at_side:
            return None
        return found.landmarks.level(self._levels, found.landmarks.place(*centre))

    def _first_loss(self, found: _Found, axilla: Axilla, side: CutSide) -> int:
        """Return the least number of removed voxels that loses a part of an axilla; 0 when the whole series does not cover it."""
        if not axilla.coverage.covered:
            return 0
        losses = [self._loss_of_region(_axillary_part(found, axilla), found.coarse, side)]
        losses += [
            self._loss_of_place(centre, radius, side)
            for centre, radius in self._places
            if (centre[2] < self._middle) == (axilla.side is Side.RIGHT)
        ]
        first, last = self._reference.slices.get(axilla.side, (np.inf, -np.inf))
        if side is CutSide.BOTTOM and np.isfinite(first):
            losses.append(int(first) + 1)
        if side is CutSide.TOP and np.isfinite(last):
            losses.append(self.series.voxels.shape[0] - int(last))
        return min(losses)

    def _loss_of_region(self, region: Mask, coarse: Coarse, side: CutSide) -> int:
        """Return the least number of removed voxels with `LOST_ML` of a region of the coarse grid among them."""
        axis = side.axis
        sums = region.sum(axis=tuple(a for a in range(3) if a != axis)) * np.prod(coarse.spacing) / 1000
        upto = np.cumsum(sums if side.low else sums[::-1])
        blocks = int(np.searchsorted(upto, LOST_ML)) + 1
        rest = 0 if side.low else self.series.voxels.shape[axis] - len(sums) * coarse.step[axis]
        return blocks * coarse.step[axis] + rest

    def _loss_of_place(self, centre: Point, radius: float, side: CutSide) -> int:
        """Return the least number of removed voxels that touches a place, or leaves it too near to the edge to be located."""
        axis, mm = side.axis, self.series.spacing[side.axis]
        margin = (radius + (EDGE_MM if axis else 0)) / mm
        size = self.series.voxels.shape[axis]
        return max(1, int(np.floor(centre[axis] - margin)) + 1 if side.low else int(np.floor(size - centre[axis] - margin)))


@dataclass(frozen=True, slots=True)
class _Found:
    """The anatomy of a coarse volume."""

    coarse: Coarse
    chest: Chest
    axillae: tuple[Axilla, Axilla]

    def axilla(self, side: Side) -> Axilla:
        """Return the axilla of a side."""
        return self.axillae[0 if side is Side.RIGHT else 1]

    @property
    def landmarks(self) -> Landmarks:
        """The landmarks of the chest."""
        return Landmarks(self.coarse, self.chest)


def _find(coarse: Coarse) -> _Found | None:
    """Return the anatomy of a coarse volume; None when no lungs are found."""
    chest = find_chest(coarse)
    return None if chest is None else _Found(coarse, chest, find_axillae(coarse, chest))


def _axillary_part(found: _Found, axilla: Axilla) -> npt.NDArray[np.bool_]:
    """Return the part of a search region that lies above the lower end of the axilla."""
    start: tuple[int, int, int] = (0, 0, 0)
    z, y, x = found.coarse.step
    ramps = found.landmarks.ramps(start, (z, y, x), left=axilla.side is Side.LEFT)
    below, depth = (at + by * np.arange(n) for (at, by), n in zip(ramps[:2], axilla.mask.shape[:2], strict=True))
    part: npt.NDArray[np.bool_] = axilla.mask & (axillary(below[:, None], depth[None]) > AXILLA)[..., None]
    return part
