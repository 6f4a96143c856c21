"""The drift of the probabilities: whether a model bundle gives other probabilities now than when it came into use at this site.

The measure is the population stability index (PSI) over tenths of the probability: the sum of (p - q) ln(p / q), where q is the share of the
first nodes and p that of the most recent ones. It says that images or patients have changed, not that results are wrong.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select

from alnnode.db.progress_tables import BINS, PROBABILITY_DAY, TallyRow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.engine import Connection

WINDOW = 500  # nodes, at least, of the first days and of the most recent days
BEGINS, ENDS = 0.25, 0.1  # of the index: above the first is a drift, which ends below the second
PRIOR = 0.5  # added to each count, so that an empty tenth has a share above zero
CHECK_INTERVAL = 600.0  # seconds between two computations

Days = dict[str, list[int]]  # nodes in each tenth, by day


@dataclass(frozen=True, slots=True)
class Window:
    """The nodes of some days."""

    first: str
    last: str
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Drift:
    """The index of the bundle that computed the newest probabilities.

    Attributes:
        bundle: the first characters of its digest.
        index: population stability index.
        reference: the first days of the bundle.
        recent: the last days.
    """

    bundle: str
    index: float
    reference: Window
    recent: Window

    @property
    def text(self) -> str:
        """What the index says, without patient data."""
        return (
            f"population stability index {self.index:.2f}: {sum(self.recent.counts)} nodes from {self.recent.first} to {self.recent.last}, "
            f"compared with the first {sum(self.reference.counts)} nodes of the model, from {self.reference.first} to {self.reference.last}"
        )


class DriftMonitor:
    """Computes the drift at most once in `CHECK_INTERVAL` seconds."""

    def __init__(self) -> None:
        self._next = 0.0
        self._drift: Drift | None = None

    def read(self, connection: Connection) -> Drift | None:
        """Return the drift; None while there are too few nodes."""
        if time.monotonic() >= self._next:
            self._next, self._drift = time.monotonic() + CHECK_INTERVAL, measure(connection)
        return self._drift


def measure(connection: Connection) -> Drift | None:
    """Return the drift of the bundle that computed the newest probabilities; None while it has fewer than two windows of nodes."""
    query = select(TallyRow.label, TallyRow.bin, TallyRow.count).where(TallyRow.kind == PROBABILITY_DAY)
    bundles: dict[str, Days] = {}
    for label, number, count in connection.execute(query):
        bundle, _, day = label.partition(" ")
        bundles.setdefault(bundle, {}).setdefault(day, [0] * BINS)[number] += count
    if not bundles:
        return None
    # Of two bundles on the last day, the one that came into use last.
    bundle = max(bundles, key=lambda one: (max(bundles[one]), min(bundles[one])))
    days = bundles[bundle]
    reference, recent = _window(days, sorted(days)), _window(days, sorted(days, reverse=True))
    if reference is None or recent is None or recent.first <= reference.last:
        return None
    return Drift(bundle, stability_index(reference.counts, recent.counts), reference, recent)


def stability_index(reference: Iterable[int], recent: Iterable[int]) -> float:
    """Return the population stability index of two histograms with the same bins."""
    before, after = _shares(reference), _shares(recent)
    return sum((p - q) * math.log(p / q) for q, p in zip(before, after, strict=True))


def _shares(counts: Iterable[int]) -> list[float]:
    smoothed = [count + PRIOR for count in counts]
    return [one / sum(smoothed) for one in smoothed]


def _window(days: Days, order: list[str]) -> Window | None:
    """Return the first days in this order that have `WINDOW` nodes together; None when all days have fewer."""
    counts = [0] * BINS
    for number, day in enumerate(order):
        counts = [total + own for total, own in zip(counts, days[day], strict=True)]
        if sum(counts) >= WINDOW:
            chosen = order[: number + 1]
            return Window(min(chosen), max(chosen), tuple(counts))
    return None
