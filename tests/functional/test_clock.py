"""The clock is set back or forward by an hour: no row waits for the old time, on SQLite and on PostgreSQL."""

import os
import time
from datetime import UTC, datetime, timedelta

import pytest
from functional.test_jobs import BOTH, REPORT, RULES, at, everything, instance
from sqlalchemy import insert, select, update
from stages import LEASE, TERMS, Stages

from alnnode.db.clock import LONGEST_LEASE
from alnnode.db.engine import create as connect
from alnnode.db.engine import for_writing
from alnnode.db.tables import CommitmentRequest
from alnnode.db.worklist_tables import WorkitemRow
from alnnode.process import heartbeat
from alnnode.receive.commitment_requests import CommitmentRequests
from alnnode.records import JobState
from alnnode.settings import DestinationCStore, Node, Settings
from alnnode.spool.spool import Spool
from alnnode.worklist.future_leases import reset_future_leases
from workers import delivering
from workers.runtime import ANALYSIS_LEASE, DELIVERY_LEASE, Runtime

HOUR = 3600.0  # seconds by which the clock is set back: rows are written at `HOUR`, and read at 0
WAITS = {"pacs": timedelta(minutes=15)}


@pytest.fixture
def stages(database_url) -> Stages:
    return Stages(connect(database_url))


def ready(stages: Stages, second: float) -> str:
    stages.received.record_instances([instance(1, second=second)])
    stages.received.mark_released(["1.2.3"], at(second))
    (job,) = stages.received.complete_due(RULES, everything, at(second + 10))
    return job


def claim(stages: Stages, job: str, second: float):
    return stages.jobs.claim(job, TERMS, at(second))


def analysed(stages: Stages, second: float) -> str:
    job = ready(stages, second)
    stages.jobs.analysed(claim(stages, job, second + 10), REPORT, {"pacs": BOTH}, now=at(second + 20))
    (delivery,) = stages.deliveries.due(at(second + 20))
    return delivery


def test_a_series_that_was_received_before_waits_anew_and_no_longer(stages) -> None:
    stages.received.record_instances([instance(1, second=HOUR)])
    assert not stages.received.complete_due(RULES, everything, at(0))
    assert not stages.received.complete_due(RULES, everything, at(50))
    assert stages.received.complete_due(RULES, everything, at(60))


def test_a_series_that_was_released_before_waits_its_grace(stages) -> None:
    stages.received.record_instances([instance(1, second=HOUR)])
    stages.received.mark_released(["1.2.3"], at(HOUR + 1))
    assert not stages.received.complete_due(RULES, everything, at(0))
    assert stages.received.complete_due(RULES, everything, at(5))


def test_a_task_that_was_lost_before_is_enqueued_again(stages) -> None:
    job = ready(stages, HOUR)
    assert not stages.jobs.lost(at(0))
    assert stages.reset_future_times(WAITS, at(0)) == 1
    assert stages.jobs.lost(at(0)) == (job,)
    assert stages.reset_future_times(WAITS, at(0)) == 0


def test_a_worker_that_was_lost_before_gives_its_job_back_and_one_that_lives_keeps_it(stages) -> None:
    job = ready(stages, HOUR)
    first = claim(stages, job, HOUR + 20)
    assert stages.reset_future_times(WAITS, at(0))
    assert not stages.jobs.lost(at(50))
    assert stages.jobs.renew(first, LEASE, at(50))
    assert stages.reset_future_times(WAITS, at(50)) == 0
    assert not stages.jobs.lost(at(100))
    assert stages.jobs.lost(at(111)) == (job,)
    assert claim(stages, job, 111).attempt == 2


def test_a_delivery_waits_no_longer_than_its_destination_lets_it(stages) -> None:
    delivery = analysed(stages, HOUR)
    stages.deliveries.claim(delivery, LEASE, at(HOUR + 30))
    stages.deliveries.deferred(delivery, "away", at(HOUR + 900))
    assert stages.reset_future_times({}, at(0)) == 0
    assert stages.reset_future_times(WAITS, at(0))
    assert stages.deliveries.due(at(0)) == (delivery,)
    assert stages.deliveries.claim(delivery, LEASE, at(0)) is not None


def test_a_delivery_whose_worker_was_lost_before_is_made_again(stages) -> None:
    delivery = analysed(stages, HOUR)
    stages.deliveries.claim(delivery, LEASE, at(HOUR + 30))
    stages.reset_future_times(WAITS, at(0))
    assert not stages.deliveries.due(at(50))
    assert stages.deliveries.due(at(61)) == (delivery,)
    assert stages.deliveries.claim(delivery, LEASE, at(61)).attempt == 2


def test_a_workitem_whose_fetching_process_was_lost_before_is_free(database_url) -> None:
    engine = connect(database_url)
    row = {
        "workitem_uid": "1.2.8", "state": "IN PROGRESS", "document": "worklist/a", "service_url": "", "performed_here": True,
        "cancel_requested": False, "attempts": 1, "lease_until": at(HOUR + 60), "created_at": at(HOUR), "changed_at": at(HOUR),
    }  # fmt: skip
    with for_writing(engine).begin() as connection:
        connection.execute(insert(WorkitemRow).values(row))
    assert reset_future_leases(engine, at(HOUR)) == 0
    assert reset_future_leases(engine, at(0)) == 1
    with engine.connect() as connection:
        assert connection.execute(select(WorkitemRow.lease_until)).scalar_one() is None


def test_what_merely_waits_is_left_alone(stages) -> None:
    delivery = analysed(stages, 0)
    stages.deliveries.claim(delivery, LEASE, at(30))
    stages.deliveries.deferred(delivery, "away", at(930))
    assert stages.reset_future_times(WAITS, at(30)) == 0
    assert not stages.deliveries.due(at(900))


def test_a_clock_that_is_set_forward_costs_one_more_try_at_most(stages) -> None:
    job = ready(stages, 0)
    first = claim(stages, job, 20)
    assert stages.jobs.lost(at(HOUR)) == (job,)
    assert stages.jobs.renew(first, LEASE, at(HOUR + 1)), "another worker claimed it"
    assert claim(stages, job, HOUR + 2) is None
    assert stages.jobs.analysed(first, REPORT, {"pacs": BOTH}, now=at(HOUR + 3))
    assert stages.jobs.get(job).state is JobState.ANALYSED


def test_no_lease_of_a_worker_is_taken_for_one_from_before() -> None:
    assert max(ANALYSIS_LEASE, DELIVERY_LEASE) <= LONGEST_LEASE


def test_a_commitment_request_from_before_is_answered(database_url) -> None:
    engine = connect(database_url)
    requests = CommitmentRequests(engine)
    request = requests.receive("CT1", "1.2.3", [("1.2", "1.2.3.4")], timedelta(), at(HOUR))
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


def test_an_outage_from_before_keeps_no_delivery_back(stages, tmp_path) -> None:
    pacs = DestinationCStore(name="pacs", ae_title="PACS", host="127.0.0.1", port=104)
    runtime = Runtime(Settings(node=Node(data_dir=tmp_path), destinations=(pacs,)))
    near, far = (datetime.now(UTC) + timedelta(minutes=minutes) for minutes in (10, 70))
    runtime.away["pacs"] = near
    assert delivering._away_until("pacs", runtime) == near
    runtime.away["pacs"] = far
    assert delivering._away_until("pacs", runtime) is None
