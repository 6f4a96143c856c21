"""Compute the bar charts of the status page, which a template draws as SVG: the page needs neither scripts nor a network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from alnnode.status.overview import EndedJob, HourlyJobs

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 560, 170, 56, 24, 10
INNER, TALL = WIDTH - LEFT - 8, HEIGHT - TOP - BOTTOM
ROUND_SECONDS = (5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200)  # steps of a time axis


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar, in SVG units; ``text`` is its tooltip."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A label of an axis, at a position in SVG units."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Plot:
    """A bar chart as the template draws it."""

    bars: tuple[Bar, ...]
    across: tuple[Tick, ...]  # of the horizontal axis
    up: tuple[Tick, ...]  # of the vertical axis
    summary: str


def throughput(hours: Sequence[HourlyJobs]) -> Plot:
    """Return the chart of the jobs that were created and ended in each hour."""
    step = _step(max([1, *(max(hour.opened, hour.ended) for hour in hours)]))
    top = step * 4
    slot = INNER / len(hours)
    bars = []
    for n, hour in enumerate(hours):
        for side, (kind, label, count) in enumerate((("opened", "created", hour.opened), ("ended", "ended", hour.ended))):
            height = TALL * count / top
            text = f"{hour.begins:%H}:00 {label} {count}"
            bars.append(Bar(LEFT + slot * n + slot * (0.12 + 0.4 * side), TOP + TALL - height, slot * 0.36, height, kind, text))
    across = tuple(Tick(LEFT + slot * (n + 0.5), f"{hour.begins:%H}") for n, hour in enumerate(hours) if n % 3 == 2)
    summary = (
        f"{sum(hour.opened for hour in hours)} created and {sum(hour.ended for hour in hours)} ended in {len(hours)} hours"
    )
    return Plot(tuple(bars), across, _scale(top, "{:g}".format), summary)


def latency(jobs: Sequence[EndedJob], now: datetime, hours: int = 24) -> Plot:
    """Return the chart of the time from the first image to the end: one stacked bar for each job, at the time of its end."""
    longest = max([20.0, *(job.waited + job.worked for job in jobs)])
    top = 4 * next((step for step in ROUND_SECONDS if 4 * step >= longest), math.ceil(longest / 4 / 86400) * 86400)
    bars = []
    for job in jobs:
        x = LEFT + INNER * (1 - (now - job.at).total_seconds() / (hours * 3600)) - 2
        text = f"{job.at:%H:%M} waited {duration_text(job.waited)}, analysed and delivered in {duration_text(job.worked)}"
        low, high = TALL * job.worked / top, TALL * job.waited / top
        bars.append(Bar(x, TOP + TALL - low, 4, low, "worked", text))
        bars.append(Bar(x, TOP + TALL - low - high, 4, high, "waited", text))
    across = tuple(Tick(LEFT + INNER * (1 - back / hours), f"-{back} h" if back else "now") for back in range(0, hours, 6))
    totals = sorted(job.waited + job.worked for job in jobs)
    summary = "no job ended"
    if totals:
        summary = f"median {duration_text(totals[len(totals) // 2])}, longest {duration_text(totals[-1])}"
    return Plot(tuple(bars), across, _scale(top, duration_text), summary)


def duration_text(seconds: float) -> str:
    """Return a duration as a short text."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            value = seconds / size
            return f"{value:.1f} {unit}" if value < 10 and value % 1 >= 0.05 else f"{value:.0f} {unit}"
    return f"{seconds:.0f} s"


def _step(highest: float) -> float:
    """Return a round step for a vertical axis of four steps that reaches the highest value."""
    rough = highest / 4
    size = 10.0 ** math.floor(math.log10(rough))
    return max(1.0, next(factor * size for factor in (1, 2, 2.5, 5, 10) if factor * size >= rough))


def _scale(top: float, label: Callable[[float], str]) -> tuple[Tick, ...]:
    return tuple(Tick(TOP + TALL * (1 - n / 4), label(top * n / 4)) for n in range(5))
