"""Hosts whose clocks are minutes apart: every time that hosts compare is that of the database."""

import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from chaos.clock import Clock
from functional.test_jobs import REPORT, RULES, everything, instance
from sqlalchemy import select
from stages import TERMS, Stages

from alnnode.db import clock
from alnnode.db import engine as engines
from alnnode.db.tables import Series
from alnnode.receive.recorder import Pending, Recorder, Release
from alnnode.receive.rejected_associations import RejectedAssociations
from alnnode.spool.spool import Spool

# SQLite is the file of one host.
pytestmark = [pytest.mark.postgres, pytest.mark.parametrize("database_url", ["postgres"], indirect=True)]
ROOT = Path(__file__).parents[2]
MINUTES = timedelta(minutes=7)

# What another host does: its clock is wrong.
CLAIM = """
import sys
from datetime import timedelta
from alnnode.analyse.claims import ClaimTerms
from alnnode.analyse.jobs import Jobs
from alnnode.db import engine
assert Jobs(engine.create(sys.argv[1])).claim(sys.argv[2], ClaimTerms(timedelta(minutes=1), 3, "b", "s"))
"""
REJECT = """
import sys
from alnnode.db import engine
from alnnode.receive.rejected_associations import RejectedAssociations
from alnnode.receive.rejections import Rejection, RejectionKind
table = RejectedAssociations(engine.create(sys.argv[1]), interval=0.01)
table.note(Rejection(RejectionKind.CALLED, "ALNODE", "CT1", "192.0.2.7"))
table.close()
"""


@pytest.fixture
def other_host(tmp_path):
    """Run Python code on a host whose clock is off by seconds."""
    hands = Clock(tmp_path)
    if not hands.settable:
        pytest.skip("NO C COMPILER: the clock of a process cannot be set")

    def run(seconds: int, code: str, *arguments: str) -> None:
        hands.move(seconds)
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        environment = {**os.environ, **hands.environment, "PYTHONPATH": path}
        subprocess.run([sys.executable, "-c", code, *arguments], env=environment, check=True, timeout=60)

    return run


def ready(stages: Stages) -> str:
    stages.received.record_instances([instance(1)])
    stages.received.mark_released(["1.2.3"], clock.now(stages.engine) - timedelta(minutes=5))
    (job,) = stages.received.complete_due(RULES, everything)
    return job


@pytest.mark.parametrize("seconds", [-420, 420])
def test_the_lease_of_a_worker_with_a_wrong_clock_ends_when_it_should(database_url, other_host, seconds) -> None:
    stages = Stages(engines.create(database_url))
    job = ready(stages)
    other_host(seconds, CLAIM, database_url, job)
    present = clock.now(stages.engine)
    assert not stages.jobs.lost(present + timedelta(seconds=30)), "taken from a worker that runs"
    assert stages.jobs.claim(job, TERMS) is None
    assert stages.jobs.lost(present + timedelta(seconds=61)) == (job,), "kept by a worker that is lost"


def test_a_listener_with_a_wrong_clock_records_the_time_of_the_database(database_url, tmp_path, monkeypatch) -> None:
    engine = engines.create(database_url)
    stages = Stages(engine)
    monkeypatch.setattr(stages.received, "clock_offset", lambda: -MINUTES)  # this host is ahead
    recorder = Recorder(stages.received, Spool(tmp_path))
    recorder.put(Pending(tmp_path / "x", replace(instance(1), received_at=datetime.now(UTC) + MINUTES)))
    recorder.put(Release(frozenset({"1.2.3"}), datetime.now(UTC) + MINUTES))
    recorder.close()
    with engine.connect() as connection:
        row = connection.execute(select(Series.last_received_at, Series.released_at)).one()
    assert all(abs(time - clock.now(engine)) < MINUTES / 2 for time in row)


def test_a_rejection_by_a_listener_with_a_wrong_clock_has_the_time_of_the_database(database_url, other_host) -> None:
    other_host(420, REJECT, database_url)
    engine = engines.create(database_url)
    (row,) = RejectedAssociations(engine).recent()
    assert all(abs(time - clock.now(engine)) < MINUTES / 2 for time in (row.first_at, row.last_at))


def test_times_of_this_host_are_not_stored(database_url, monkeypatch) -> None:
    class Wrong(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + MINUTES

    stages = Stages(engines.create(database_url))
    job = ready(stages)
    monkeypatch.setattr(clock, "datetime", Wrong)
    stages.jobs.analysed(stages.jobs.claim(job, TERMS), REPORT, {})
    assert abs(stages.jobs.get(job).finished_at - datetime.now(UTC)) < MINUTES / 2
