"""The clock is set back by an hour, or forward: nothing waits for a time that will not come for long, on SQLite and on PostgreSQL."""

import os
import time
from datetime import timedelta

import pytest
from functional.test_jobs import BOTH, LEASE, REPORT, RULES, at, everything, instance
from sqlalchemy import update

from alnnode.analyse.jobs import Jobs
from alnnode.db.clock_repair import LONGEST_LEASE
from alnnode.db.engine import create as connect
from alnnode.db.engine import for_writing
from alnnode.db.tables import CommitmentRequest
from alnnode.process import heartbeat
from alnnode.receive.commitment_requests import Requests
from alnnode.records import JobState
from alnnode.settings import DestinationCStore, Node, Settings
from alnnode.spool.spool import Spool
from workers import delivering
from workers.analyst import ANALYSIS_LEASE, DELIVERY_LEASE, Runtime

HOUR = 3600.0  # seconds that the clock is set back by: what was written at `HOUR` is followed by what happens at 0
WAITS = {"pacs": timedelta(minutes=15)}
DIGESTS = {"bundle_digest": "b" * 64, "settings_digest": "c" * 64}


@pytest.fixture
def jobs(database_url) -> Jobs:
    return Jobs(connect(database_url))


def ready(jobs: Jobs, second: float) -> str:
    jobs.record_instances([instance(1, second=second)])
    jobs.mark_released(["1.2.3"], at(second))
    (job,) = jobs.complete_due(RULES, everything, at(second + 10))
    return job


def claim(jobs: Jobs, job: str, second: float):
    return jobs.claim(job, LEASE, 5, at(second), **DIGESTS)


def analysed(jobs: Jobs, second: float) -> str:
    job = ready(jobs, second)
    claim(jobs, job, second + 10)
    jobs.analysed(job, 1, REPORT, {"pacs": BOTH}, now=at(second + 20))
    (delivery,) = jobs.due_deliveries(at(second + 20))
    return delivery


def test_a_series_that_was_received_before_waits_anew_and_no_longer(jobs) -> None:
    jobs.record_instances([instance(1, second=HOUR)])
    assert not jobs.complete_due(RULES, everything, at(0))
    assert not jobs.complete_due(RULES, everything, at(50))
    assert jobs.complete_due(RULES, everything, at(60))


def test_a_series_that_was_released_before_waits_its_grace(jobs) -> None:
    jobs.record_instances([instance(1, second=HOUR)])
    jobs.mark_released(["1.2.3"], at(HOUR + 1))
    assert not jobs.complete_due(RULES, everything, at(0))
    assert jobs.complete_due(RULES, everything, at(5))


def test_a_task_that_was_lost_before_is_enqueued_again(jobs) -> None:
    job = ready(jobs, HOUR)
    assert not jobs.lost(at(0))
    assert jobs.put_right(WAITS, at(0)) == 1
    assert jobs.lost(at(0)) == (job,)
    assert jobs.put_right(WAITS, at(0)) == 0


def test_a_worker_that_was_lost_before_gives_its_job_back_and_one_that_lives_keeps_it(jobs) -> None:
    job = ready(jobs, HOUR)
    claim(jobs, job, HOUR + 20)
    assert jobs.put_right(WAITS, at(0))
    assert not jobs.lost(at(50))
    assert jobs.renew(job, LEASE, 1, at(50))
    assert jobs.put_right(WAITS, at(50)) == 0
    assert not jobs.lost(at(100))
    assert jobs.lost(at(111)) == (job,)
    assert claim(jobs, job, 111).attempt == 2


def test_a_delivery_waits_no_longer_than_its_destination_lets_it(jobs) -> None:
    delivery = analysed(jobs, HOUR)
    jobs.claim_delivery(delivery, LEASE, at(HOUR + 30))
    jobs.deferred(delivery, "away", at(HOUR + 900))
    assert jobs.put_right({}, at(0)) == 0
    assert jobs.put_right(WAITS, at(0))
    assert jobs.due_deliveries(at(0)) == (delivery,)
    assert jobs.claim_delivery(delivery, LEASE, at(0)) is not None


def test_a_delivery_whose_worker_was_lost_before_is_made_again(jobs) -> None:
    delivery = analysed(jobs, HOUR)
    jobs.claim_delivery(delivery, LEASE, at(HOUR + 30))
    jobs.put_right(WAITS, at(0))
    assert not jobs.due_deliveries(at(50))
    assert jobs.due_deliveries(at(61)) == (delivery,)
    assert jobs.claim_delivery(delivery, LEASE, at(61)).attempt == 2


def test_what_merely_waits_is_left_alone(jobs) -> None:
    delivery = analysed(jobs, 0)
    jobs.claim_delivery(delivery, LEASE, at(30))
    jobs.deferred(delivery, "away", at(930))
    assert jobs.put_right(WAITS, at(30)) == 0
    assert not jobs.due_deliveries(at(900))


def test_a_clock_that_is_set_forward_costs_one_more_try_at_most(jobs) -> None:
    job = ready(jobs, 0)
    claim(jobs, job, 20)
    assert jobs.lost(at(HOUR)) == (job,)
    assert jobs.renew(job, LEASE, 1, at(HOUR + 1)), "nobody took it meanwhile"
    assert claim(jobs, job, HOUR + 2) is None
    assert jobs.analysed(job, 1, REPORT, {"pacs": BOTH}, now=at(HOUR + 3))
    assert jobs.get(job).state is JobState.ANALYSED


def test_no_lease_of_a_worker_is_taken_for_one_from_before() -> None:
    assert max(ANALYSIS_LEASE, DELIVERY_LEASE) <= LONGEST_LEASE


def test_a_commitment_request_from_before_is_answered(database_url) -> None:
    engine = connect(database_url)
    requests = Requests(engine)
    request = requests.receive("CT1", "1.2.3", [("1.2", "1.2.3.4")], at(HOUR), at(HOUR))
    with for_writing(engine).begin() as connection:
        connection.execute(update(CommitmentRequest).values(due_at=at(600)))
    assert requests.next_due(at(0)) is None
    with for_writing(engine).begin() as connection:
        connection.execute(update(CommitmentRequest).values(due_at=at(HOUR)))
    assert requests.next_due(at(0)).request_id == request


def test_files_and_beats_from_before_are_old(tmp_path) -> None:
    spool = Spool(tmp_path / "spool")
    file, later = tmp_path / "spool" / "pending" / "x.dcm", time.time() + HOUR
    file.touch()
    assert not list(spool.pending(60))
    os.utime(file, (later, later))
    assert list(spool.pending(60)) == [file]
    heartbeat.beat(tmp_path, "analyse")
    assert max(heartbeat.ages(tmp_path).values()) < heartbeat.LATE
    (beat,) = (tmp_path / "heartbeats").iterdir()
    os.utime(beat, (later, later))
    assert max(heartbeat.ages(tmp_path).values()) > heartbeat.LATE


def test_an_outage_from_before_keeps_no_delivery_back(jobs, tmp_path) -> None:
    pacs = DestinationCStore(name="pacs", ae_title="PACS", host="127.0.0.1", port=104)
    runtime = Runtime(Settings(node=Node(data_dir=tmp_path), destinations=(pacs,)))
    near, far = (delivering.datetime.now(delivering.UTC) + timedelta(minutes=minutes) for minutes in (10, 70))
    runtime.away["pacs"] = near
    assert delivering._away_until("pacs", runtime) == near
    runtime.away["pacs"] = far
    assert delivering._away_until("pacs", runtime) is None
