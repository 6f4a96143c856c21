"""Counting what a detector finds on patients against two readers' marks.

A box finds the reference node whose centre lies inside it (2 mm margin), one at most: of two nodes in one box one is missed. A box that
holds no mark of either reader is false; a box that holds only uncertain marks is neither.
"""

from __future__ import annotations

from dataclasses import dataclass
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
class Located:
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
    def of(cls, node: Node) -> Located:
        """The box of a node."""
        k, j, i = (float(v) for v in node.box.low)
        k1, j1, i1 = (float(v) - 1 for v in node.box.high)
        return cls((k, j, i), (k1, j1, i1), node.score, node.short_axis.length_mm)

    def holds(self, place: MarkedPlace, spacing: Point) -> bool:
        """Whether a marked centre lies inside."""
        return all(
            low * mm - MARGIN_MM <= at * mm <= high * mm + MARGIN_MM
            for low, at, high, mm in zip(self.low, place.centre, self.high, spacing, strict=True)
        )

    @property
    def voxels(self) -> float:
        """Of the box."""
        return float(np.prod([high - low + 1 for low, high in zip(self.low, self.high, strict=True)]))


@dataclass(frozen=True, slots=True)
class Counted:
    """Of one series at one threshold.

    Attributes:
        found: for each reference node the number of its box, or None.
        false: numbers of boxes that hold nothing that a reader marked.
    """

    found: tuple[int | None, ...]
    false: tuple[int, ...]


def count(boxes: Sequence[Located], reference: Reference, threshold: float = 0.0) -> Counted:
    """Match boxes of at least ``threshold`` with the reference, the smallest first."""
    found: list[int | None] = [None] * len(reference.nodes)
    false = []
    for n in sorted(range(len(boxes)), key=lambda n: boxes[n].voxels):
        box = boxes[n]
        if box.score < threshold:
            continue
        inside = [m for m, place in enumerate(reference.nodes) if box.holds(place, reference.spacing)]
        free = [m for m in inside if found[m] is None]
        if free:
            found[free[0]] = n
        elif not inside and not any(box.holds(place, reference.spacing) for place in reference.uncertain):
            false.append(n)
    return Counted(tuple(found), tuple(false))


@dataclass(frozen=True, slots=True)
class Judged:
    """One series: its boxes at a low threshold, and what the readers say."""

    case: str
    boxes: tuple[Located, ...]
    reference: Reference


@dataclass(frozen=True, slots=True)
class Curve:
    """Free response: for each threshold and series, nodes found and false boxes; and nodes of each series."""

    thresholds: Floats
    hits: Floats  # (series, thresholds)
    false: Floats  # (series, thresholds)
    nodes: Floats  # (series,)


def curve(judged: Sequence[Judged]) -> Curve:
    """Count at every score that occurs, from the highest down."""
    thresholds = np.array(sorted({box.score for one in judged for box in one.boxes}, reverse=True) or [1.0])
    hits, false = np.zeros((2, len(judged), len(thresholds)))
    for n, one in enumerate(judged):
        for t, threshold in enumerate(thresholds):
            counted = count(one.boxes, one.reference, float(threshold))
            hits[n, t] = sum(box is not None for box in counted.found)
            false[n, t] = len(counted.false)
    return Curve(thresholds, hits, false, np.array([len(one.reference.nodes) for one in judged], dtype=np.float64))


def sensitivity_at_rate(found: Curve, rate: float, seed: int = 0) -> Interval:
    """Highest sensitivity with at most ``rate`` false boxes a series; bootstrap over patients, each choosing its threshold anew."""
    return _bootstrap(found, lambda w: _best(found, rate, w), seed)


def sensitivity_at(found: Curve, threshold: float, seed: int = 0) -> Interval:
    """Sensitivity at a threshold, bootstrap over patients."""
    at = _index(found, threshold)
    return _bootstrap(
        found, lambda w: 0.0 if at is None else float(w @ found.hits[:, at] / max(1.0, float(w @ found.nodes))), seed
    )


def false_at(found: Curve, threshold: float, seed: int = 0) -> Interval:
    """False boxes a series at a threshold, bootstrap over patients."""
    at = _index(found, threshold)
    return _bootstrap(found, lambda w: 0.0 if at is None else float(w @ found.false[:, at] / w.sum()), seed)


def threshold_for(found: Curve, rate: float) -> float:
    """The threshold of `sensitivity_at_rate`; the highest of those that do as well."""
    weights = np.ones(len(found.nodes))
    fits = weights @ found.false / len(found.nodes) <= rate
    if not fits.any():
        return 1.0
    hits = np.where(fits, weights @ found.hits, -1)
    return float(found.thresholds[int(hits.argmax())])


def _index(found: Curve, threshold: float) -> int | None:
    above = np.flatnonzero(found.thresholds >= threshold - 1e-9)
    return int(above[-1]) if above.size else None


def _best(found: Curve, rate: float, weights: Floats) -> float:
    fits = weights @ found.false / weights.sum() <= rate
    hits = weights @ found.hits / max(1.0, float(weights @ found.nodes))
    return float(hits[fits].max()) if fits.any() else 0.0


def _bootstrap(found: Curve, of: Callable[[Floats], float], seed: int) -> Interval:
    rng = np.random.default_rng(seed)
    count_ = len(found.nodes)
    drawn = [of(np.bincount(rng.integers(0, count_, count_), minlength=count_).astype(np.float64)) for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(of(np.ones(count_)), float(low), float(high))
