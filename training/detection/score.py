"""Match the boxes of a detector on patients with the reference, and compute the FROC.

A box finds the reference node whose centre lies inside it (with a margin of 2 mm). It finds at most one: of two nodes in one box, one is
missed. A box without any mark of a reader is false. A box with uncertain marks only is neither.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from alnnode.records import Interval

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from alnnode.records import Node
    from training.detection.reference import MarkedPlace, Point, Reference

    Floats = npt.NDArray[np.float64]

MARGIN_MM = 2.0
RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class LocatedBox:
    """One box of a detector.

    Attributes:
        low, high: first and last voxel (slice, row, column).
        score: of the detector.
        short_axis_mm: as measured.
    """

    low: Point
    high: Point
    score: float
    short_axis_mm: float

    @classmethod
    def of_node(cls, node: Node) -> LocatedBox:
        """Return the box of a located node."""
        k, j, i = (float(v) for v in node.box.low)
        k1, j1, i1 = (float(v) - 1 for v in node.box.high)
        return cls((k, j, i), (k1, j1, i1), node.score, node.short_axis.length_mm)

    def contains(self, place: MarkedPlace, spacing: Point) -> bool:
        """Return whether a marked centre lies inside, within the margin."""
        return all(
            low * mm - MARGIN_MM <= at * mm <= high * mm + MARGIN_MM
            for low, at, high, mm in zip(self.low, place.centre, self.high, spacing, strict=True)
        )

    @property
    def voxels(self) -> float:
        """The number of voxels of the box."""
        return float(np.prod([high - low + 1 for low, high in zip(self.low, self.high, strict=True)]))


@dataclass(frozen=True, slots=True)
class MatchedBoxes:
    """The matches of one series at one threshold.

    Attributes:
        found: for each reference node, the number of its box, or None.
        false: numbers of the boxes without a mark.
    """

    found: tuple[int | None, ...]
    false: tuple[int, ...]


def match_boxes(boxes: Sequence[LocatedBox], reference: Reference, threshold: float = 0.0) -> MatchedBoxes:
    """Match the boxes whose score is at least ``threshold`` with the reference, the smallest box first."""
    found: list[int | None] = [None] * len(reference.nodes)
    false = []
    for n in sorted(range(len(boxes)), key=lambda n: boxes[n].voxels):
        box = boxes[n]
        if box.score < threshold:
            continue
        inside = [m for m, place in enumerate(reference.nodes) if box.contains(place, reference.spacing)]
        free = [m for m in inside if found[m] is None]
        if free:
            found[free[0]] = n
        elif not inside and not any(box.contains(place, reference.spacing) for place in reference.uncertain):
            false.append(n)
    return MatchedBoxes(tuple(found), tuple(false))


@dataclass(frozen=True, slots=True)
class ScoredSeries:
    """One series: its boxes at a low threshold, and the reference."""

    case: str
    boxes: tuple[LocatedBox, ...]
    reference: Reference


@dataclass(frozen=True, slots=True)
class FrocCurve:
    """Found nodes and false boxes for each threshold and series, and the number of nodes of each series."""

    thresholds: Floats
    hits: Floats  # (series, thresholds)
    false: Floats  # (series, thresholds)
    nodes: Floats  # (series,)


def froc_curve(evaluated: Sequence[ScoredSeries]) -> FrocCurve:
    """Return the FROC at all scores that occur, from the highest down."""
    thresholds = np.array(sorted({box.score for one in evaluated for box in one.boxes}, reverse=True) or [1.0])
    hits, false = np.zeros((2, len(evaluated), len(thresholds)))
    for n, one in enumerate(evaluated):
        for t, threshold in enumerate(thresholds):
            counted = match_boxes(one.boxes, one.reference, float(threshold))
            hits[n, t] = sum(box is not None for box in counted.found)
            false[n, t] = len(counted.false)
    return FrocCurve(thresholds, hits, false, np.array([len(one.reference.nodes) for one in evaluated], dtype=np.float64))


def sensitivity_at_rate(found: FrocCurve, rate: float, seed: int = 0) -> Interval:
    """Return the highest sensitivity with at most ``rate`` false boxes per series; each bootstrap resample determines its own threshold."""
    return _bootstrap(found, lambda w: _best(found, rate, w), seed)


def sensitivity_at(found: FrocCurve, threshold: float, seed: int = 0) -> Interval:
    """Return the sensitivity at a threshold, with a bootstrap interval over patients."""
    at = _index(found, threshold)
    return _bootstrap(
        found, lambda w: 0.0 if at is None else float(w @ found.hits[:, at] / max(1.0, float(w @ found.nodes))), seed
    )


def false_boxes_at(found: FrocCurve, threshold: float, seed: int = 0) -> Interval:
    """Return the false boxes per series at a threshold, with a bootstrap interval over patients."""
    at = _index(found, threshold)
    return _bootstrap(found, lambda w: 0.0 if at is None else float(w @ found.false[:, at] / w.sum()), seed)


def threshold_at_rate(found: FrocCurve, rate: float) -> float:
    """Return the threshold of `sensitivity_at_rate`; the highest of equals."""
    weights = np.ones(len(found.nodes))
    fits = weights @ found.false / len(found.nodes) <= rate
    if not fits.any():
        return 1.0
    hits = np.where(fits, weights @ found.hits, -1)
    return float(found.thresholds[int(hits.argmax())])


def counts_at_threshold_of_others(found: FrocCurve, rate: float) -> tuple[int, int]:
    """Return found nodes and false boxes of all series, where the threshold of each series is chosen on the other series.

    The threshold is that of `threshold_at_rate`. A series never takes part in the choice of its own threshold, so this count is not optimistic
    by that choice. There are at least two series.
    """
    hits = false = 0.0
    for n in range(len(found.nodes)):
        others = np.arange(len(found.nodes)) != n
        chosen = threshold_at_rate(
            replace(found, hits=found.hits[others], false=found.false[others], nodes=found.nodes[others]), rate
        )
        at = _index(found, chosen)
        if at is not None:
            hits, false = hits + found.hits[n, at], false + found.false[n, at]
    return int(hits), int(false)


def short_axis_differences(evaluated: Sequence[ScoredSeries], threshold: float) -> Floats:
    """Return, for each found reference node with a marked short axis, the measured short axis minus the mean of the readers', mm."""
    differences = [
        one.boxes[number].short_axis_mm - place.short_mm
        for one in evaluated
        for place, number in zip(one.reference.nodes, match_boxes(one.boxes, one.reference, threshold).found, strict=True)
        if number is not None and place.short_mm
    ]
    return np.array(differences, dtype=np.float64)


def _index(found: FrocCurve, threshold: float) -> int | None:
    above = np.flatnonzero(found.thresholds >= threshold - 1e-9)
    return int(above[-1]) if above.size else None


def _best(found: FrocCurve, rate: float, weights: Floats) -> float:
    fits = weights @ found.false / weights.sum() <= rate
    hits = weights @ found.hits / max(1.0, float(weights @ found.nodes))
    return float(hits[fits].max()) if fits.any() else 0.0


def _bootstrap(found: FrocCurve, statistic: Callable[[Floats], float], seed: int) -> Interval:
    rng = np.random.default_rng(seed)
    series = len(found.nodes)
    drawn = [
        statistic(np.bincount(rng.integers(0, series, series), minlength=series).astype(np.float64)) for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(statistic(np.ones(series)), float(low), float(high))
