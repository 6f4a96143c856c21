"""A pause of the analysis that drains: after it no job is claimed, and no job is missed, on SQLite and PostgreSQL."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from listening import wait_for
from stages import LEASE, TERMS, Stages

from alnnode.analyse import claims
from alnnode.db.engine import for_writing
from alnnode.db.pauses import ANALYSIS, Pauses
from alnnode.records import JobState


@pytest.fixture
def node(engine):
    stages = Stages(engine)
    stages.pauses = Pauses(engine)
    return stages


def test_a_worker_that_asked_before_the_pause_claims_no_job_after_it(node) -> None:
    job_id = node.ready_job("1.2.3.1")
    assert not node.pauses.is_paused(ANALYSIS), "what the worker asks first"
    node.pauses.pause(ANALYSIS, "an operator")
    assert node.jobs.claim(job_id, TERMS) is None
    assert node.jobs.get(job_id).state is JobState.READY
    assert node.pauses.resume(ANALYSIS)
    assert node.jobs.claim(job_id, TERMS).job_id == job_id


def test_a_pause_waits_for_a_claim_in_progress_so_that_the_drain_counts_it(node, engine) -> None:
    job_id, counted = node.ready_job("1.2.3.1"), []

    def drain() -> None:
        node.pauses.pause(ANALYSIS, "an operator")
        counted.append(node.jobs.running())

    draining = threading.Thread(target=drain)
    with for_writing(engine).begin() as connection:
        assert claims.claim(connection, job_id, TERMS, datetime.now(UTC)) is not None
        draining.start()
        draining.join(0.5)
        assert counted == [], "the pause has ended, and counts no running job, before the claim is written"
    wait_for(lambda: counted, 60)
    draining.join()
    assert counted == [1]


def test_the_job_of_a_worker_that_was_killed_does_not_hold_up_a_drain(node) -> None:
    job_id, now = node.ready_job("1.2.3.1"), datetime.now(UTC)
    assert node.jobs.claim(job_id, TERMS, now) is not None
    assert node.jobs.running(now + LEASE - timedelta(seconds=1)) == 1
    assert node.jobs.running(now + LEASE + timedelta(seconds=1)) == 0
    node.pauses.pause(ANALYSIS, "an operator")
    assert node.jobs.claim(job_id, TERMS, now + 2 * LEASE) is None, "its lease has ended, and the analysis is paused"
