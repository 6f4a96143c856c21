"""Which faults are told, when, and how often: by a webhook, on SQLite and PostgreSQL."""

import json
import os
import time
from datetime import UTC, datetime, timedelta

import pytest
from notifying import fail_job, settings, telling
from stages import TERMS, Stages

from alnnode.db import engine as engines
from alnnode.db.rows import NotAnalysed
from alnnode.notify import notices
from alnnode.process import heartbeat
from alnnode.settings import load


@pytest.fixture
def told(tmp_path, engine):
    with telling(tmp_path, engine) as found:
        yield found


def deliveries(stages, *series) -> list[str]:
    return [stages.delivery(stages.ready_job(uid)) for uid in series]


def test_a_destination_that_fails_is_told_once_and_so_is_its_recovery(told, engine) -> None:
    stages = Stages(engine)
    first, second = deliveries(stages, "1.2.3.1", "1.2.3.2")
    stages.deliveries.deferred(first, "pacs: no association with 127.0.0.1:104", datetime.now(UTC))
    assert told.after(0) == []
    assert told.after(299) == [], "a restart of the PACS is no fault"
    told.after(2)
    assert told.after(2) == [("destination_fails", "destination pacs")]
    text = json.loads(told.hook.received[0][1])["events"][0]["text"]
    assert text.startswith(
        "Destination pacs accepts no results; 1 delivery waits and is retried. Last error: pacs: no association with 127.0.0.1:104"
    )
    assert told.after(9000) == [("destination_fails", "destination pacs")]
    stages.deliveries.delivered(second, told.now(None))
    assert len(told.after(10)) == 1, "a delivery still waits after an error"
    stages.deliveries.delivered(first, told.now(None))
    told.after(2)
    assert told.after(2) == [("destination_fails", "destination pacs"), ("destination_works", "destination pacs")]


def test_a_short_failure_and_one_delivery_among_others_are_not_told(told, engine) -> None:
    stages = Stages(engine)
    first, second, third = deliveries(stages, "1.2.3.1", "1.2.3.2", "1.2.3.3")
    stages.deliveries.deferred(first, "pacs: refused", datetime.now(UTC))
    told.after(0)
    for delivery in (second, third):
        told.after(200)
        stages.deliveries.delivered(delivery, told.now(None))
        told.after(1)
    stages.deliveries.delivered(first, told.now(None))
    told.after(10)
    assert told.after(1000) == []


def test_only_jobs_that_failed_by_a_fault_are_told(told, engine) -> None:
    stages = Stages(engine)
    failed = fail_job(stages, "1.2.3.1")
    cancelled = stages.ready_job("1.2.3.2")
    stages.operator.cancel(cancelled, "an operator")
    strange = stages.ready_job("1.2.3.3")
    assert stages.jobs.analysed(
        stages.jobs.claim(strange, TERMS), [], {}, NotAnalysed("this is a scout image. Please send axial CT")
    )
    told.after(0)
    assert told.after(2) == [("job_failed", failed)]
    assert told.after(100) == [("job_failed", failed)]
    stages.operator.retry(failed)
    stages.fail(failed)
    told.after(1)
    assert told.after(2) == [("job_failed", failed)] * 2, "it failed once more"


def test_a_full_disk_is_told_at_once_and_ends_when_there_is_room(told, monkeypatch) -> None:
    free = [100]
    told.notifier._settings = told.notifier._settings.model_copy()
    faults = told.notifier._notices._faults
    faults._settings = faults._settings.model_copy(update={"retention": load().retention})
    monkeypatch.setattr(faults, "_free_mb", lambda: free[0])
    told.after(0)
    told.after(1)
    assert told.after(2) == [("disk_full", "disk")]
    free[0] = 1500  # above min_free_mb, below clean_below_mb
    assert told.after(60) == [("disk_full", "disk")]
    free[0] = 4000
    told.after(1)
    assert told.after(2) == [("disk_full", "disk"), ("disk_free", "disk")]


def test_a_worker_that_is_missing_for_days_is_not_called_back(told, tmp_path) -> None:
    def heard(ago) -> None:
        heartbeat.beat(tmp_path, "analyse")
        (file,) = (tmp_path / "heartbeats").iterdir()
        os.utime(file, (time.time() - ago,) * 2)

    heard(60)
    told.after(0)
    told.after(301)
    assert told.after(2) == [("worker_missing", "worker analyse")]
    heard(100_000)  # longer than heartbeats are listed
    told.after(10)
    assert told.after(2) == [("worker_missing", "worker analyse")]
    heard(0)
    told.after(10)
    assert told.after(2) == [("worker_missing", "worker analyse"), ("worker_back", "worker analyse")]


def test_a_receiver_that_is_away_gets_the_same_message_later_and_the_wait_grows(told, engine) -> None:
    told.hook.status = 503
    fail_job(Stages(engine), "1.2.3.1")
    told.after(0)
    told.after(2)
    assert len(told.hook.received) == 1
    told.after(9)
    assert len(told.hook.received) == 1
    told.after(2)
    told.after(11)
    assert len(told.hook.received) == 2
    told.hook.status = 204
    told.after(10)
    assert len({headers["webhook-id"] for headers, _ in told.hook.received}) == 1
    assert len(told.hook.received) == 3
    told.after(10000)
    assert len(told.hook.received) == 3


def test_two_observers_write_an_event_once(tmp_path, engine) -> None:
    found = settings(tmp_path)
    fail_job(Stages(engine), "1.2.3.1")
    now = datetime.now(UTC)
    with engine.connect() as connection:
        (event,) = notices._failed_jobs(connection, now)
    assert notices.Notices(found, engine).observe(now) == 1
    with engines.for_writing(engine).begin() as connection:  # the other saw the job before the first had written
        assert not notices._write(connection, event, now)


def test_a_clock_that_is_set_back_delays_no_message(told, engine) -> None:
    told.ahead = timedelta(hours=5)
    told.hook.status = 503
    fail_job(Stages(engine), "1.2.3.1")
    told.after(0)
    told.after(2)
    assert len(told.hook.received) == 1
    told.ahead, told.hook.status = timedelta(), 204
    told.after(0)
    assert len(told.hook.received) == 2
