"""The charts of the status page: round axis steps, and bar heights that match the values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from alnnode.status import plots
from alnnode.status.overview import EndedJob, HourlyJobs

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("longest", "labels"),
    [
        (3, ["0 s", "5 s", "10 s", "15 s", "20 s"]),
        (126, ["0 s", "1 min", "2 min", "3 min", "4 min"]),
        (4000, ["0 s", "30 min", "1 h", "1.5 h", "2 h"]),
        (400000, ["0 s", "2 d", "4 d", "6 d", "8 d"]),
    ],
)
def test_the_time_axis_has_round_steps(longest: float, labels: list[str]) -> None:
    plot = plots.latency([EndedJob(NOW - timedelta(hours=6), longest / 2, longest / 2)], NOW)
    assert [tick.text for tick in plot.up] == labels


def test_the_bars_of_a_job_match_its_durations() -> None:
    plot = plots.latency([EndedJob(NOW - timedelta(hours=12), 60, 180)], NOW)
    worked, waited = plot.bars
    assert worked.height == pytest.approx(plots.TALL * 3 / 4)
    assert waited.height == pytest.approx(plots.TALL / 4)
    assert waited.y + waited.height == pytest.approx(worked.y)
    assert worked.x == pytest.approx(plots.LEFT + plots.INNER / 2 - 2)
    assert plot.summary == "median 4 min, longest 4 min"


def test_jobs_per_hour() -> None:
    hours = [HourlyJobs(NOW + timedelta(hours=n), opened=n, ended=0) for n in range(3)]
    plot = plots.throughput(hours)
    assert [tick.text for tick in plot.up] == ["0", "1", "2", "3", "4"]
    assert [bar.height for bar in plot.bars if bar.kind == "opened"] == pytest.approx([0, plots.TALL / 4, plots.TALL / 2])
    assert plot.summary == "3 created and 0 ended in 3 hours"
