"""The order of analysis: urgent series first, and each sender has its turn, whatever the broker delivers."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert
from stages import TERMS, Stages

from alnnode.db.engine import for_writing
from alnnode.db.queue_tables import BackfillSeriesRow, BackfillState
from alnnode.db.rows import SeriesFacts
from alnnode.receive import routes
from alnnode.records import JobState
from alnnode.records.priority import Priority
from alnnode.settings import Route, load
from alnnode.worklist.performer_rows import PerformerRows

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def stages(engine) -> Stages:
    return Stages(engine)


def waiting(stages, series, sender="CT1", second=0, priority=Priority.MEDIUM) -> str:
    return stages.ready_job(series, sender, START + timedelta(seconds=second), priority=lambda _: priority)


def claimed(stages, messages) -> list[str]:
    """The jobs in the order in which a worker claims them, given these messages."""
    now = START + timedelta(minutes=10)
    return [claim.job_id for message in messages if (claim := stages.jobs.claim(message, TERMS, now))]


def test_the_most_urgent_job_is_claimed_first_whatever_the_broker_delivers(stages) -> None:
    jobs = {
        name: waiting(stages, f"1.2.{number}", second=number, priority=priority)
        for number, (name, priority) in enumerate(
            [("low", Priority.LOW), ("first", Priority.MEDIUM), ("second", Priority.MEDIUM), ("urgent", Priority.HIGH)]
        )
    }
    messages = list(jobs.values())
    random.Random(3).shuffle(messages)
    assert claimed(stages, messages) == [jobs[name] for name in ("urgent", "first", "second", "low")]
    assert claimed(stages, messages) == [], "each job is claimed once"


def test_a_thousand_series_of_one_sender_do_not_delay_the_one_of_another(stages) -> None:
    many = [waiting(stages, f"1.3.{number}", "ROUTER", number / 100) for number in range(12)]
    few = [waiting(stages, f"1.4.{number}", "CT1", 30 + number) for number in range(2)]
    order = claimed(stages, [*many, *few])
    assert sorted(order) == sorted([*many, *few])
    assert [job for job in order if job in many] == many, "the oldest first"
    assert order.index(few[0]) <= 1
    assert order.index(few[1]) <= 3


def test_the_sweep_enqueues_the_urgent_first_and_again_what_has_lost_its_message(stages) -> None:
    slow = waiting(stages, "1.2.1", priority=Priority.LOW)
    urgent = waiting(stages, "1.2.2", second=5, priority=Priority.HIGH)
    later = datetime.now(UTC) + timedelta(hours=1)
    assert stages.jobs.lost(later) == (urgent, slow)
    assert stages.jobs.claim(slow, TERMS, later).job_id == urgent, "the message of the other job is used"
    assert stages.jobs.lost(later + timedelta(seconds=20), queued=lambda: {urgent}) == (slow,)


def test_a_postponed_job_is_not_claimed_by_the_message_of_another(stages) -> None:
    urgent = waiting(stages, "1.2.1", priority=Priority.HIGH)
    now = START + timedelta(minutes=10)
    assert stages.jobs.postpone(stages.jobs.claim(urgent, TERMS, now), now + timedelta(seconds=30))
    other = waiting(stages, "1.2.2")
    assert stages.jobs.claim(other, TERMS, now).job_id == other
    assert stages.jobs.claim(other, TERMS, now) is None
    assert stages.jobs.claim(urgent, TERMS, now) is None, "its own message is from before its retry time"
    assert stages.jobs.claim(other, TERMS, now + timedelta(seconds=31)).job_id == urgent


def test_a_job_that_ended_its_worker_too_often_fails_and_the_next_is_claimed(stages) -> None:
    bad = waiting(stages, "1.2.1", priority=Priority.HIGH)
    now = START + timedelta(minutes=10)
    for _ in range(TERMS.max_attempts):
        assert stages.jobs.claim(bad, TERMS, now).job_id == bad
        now += timedelta(minutes=2)
    good = waiting(stages, "1.2.2")
    assert stages.jobs.claim(good, TERMS, now).job_id == good
    assert stages.jobs.get(bad).state is JobState.FAILED


def test_two_workers_claim_different_jobs(stages) -> None:
    jobs = [waiting(stages, f"1.2.{number}") for number in range(4)]
    assert len(set(claimed(stages, [jobs[0]] * 4))) == 4, "one message is as good as another"


def test_the_first_job_of_a_series_of_a_backfill_has_the_lowest_priority(stages, engine) -> None:
    row = {"series_uid": "1.2.1", "study_uid": "1.2", "archive": "pacs", "day": START.date(), "attempts": 1, "due_at": START}
    with for_writing(engine).begin() as connection:
        connection.execute(insert(BackfillSeriesRow).values(state=BackfillState.RETRIEVED, **row))
    retrieved = waiting(stages, "1.2.1", priority=Priority.HIGH)
    low = waiting(stages, "1.2.2", second=9, priority=Priority.LOW)
    assert claimed(stages, [retrieved, low]) == [low, retrieved]
    assert stages.jobs.get(retrieved).priority == Priority.BACKFILL


def test_a_late_image_of_a_backfilled_series_is_as_urgent_as_its_route(stages, engine) -> None:
    row = {"series_uid": "1.2.1", "study_uid": "1.2", "archive": "pacs", "day": START.date(), "attempts": 1, "due_at": START}
    with for_writing(engine).begin() as connection:
        connection.execute(insert(BackfillSeriesRow).values(state=BackfillState.RETRIEVED, **row))
    stages.delivery(waiting(stages, "1.2.1"))
    stages.receive_series("1.2.1", at=START, number=2)
    now = START + timedelta(hours=1)
    (job_id,) = stages.received.complete_due(load().completion, lambda _: None, now, priority=lambda _: Priority.HIGH)
    assert (stages.jobs.get(job_id).revision, stages.jobs.get(job_id).priority) == (2, Priority.HIGH)


def test_results_of_urgent_jobs_are_delivered_first(stages) -> None:
    first = stages.delivery(waiting(stages, "1.2.1", priority=Priority.LOW))
    urgent = stages.delivery(waiting(stages, "1.2.2", second=9, priority=Priority.HIGH))
    later = datetime.now(UTC) + timedelta(minutes=1)
    assert [stages.deliveries.claim(first, timedelta(minutes=1), later).delivery_id for _ in range(2)] == [urgent, first]


def test_the_first_route_that_selects_a_series_gives_its_priority() -> None:
    emergency = Route(name="a", calling_ae_titles=["ER"], priority="high")
    screening = Route(name="b", description="screening", priority="low")
    known = [emergency, screening, Route(name="c")]
    assert routes.priority(known, SeriesFacts(calling_ae="ER", modality="CT", series_description="screening")) is Priority.HIGH
    assert routes.priority(known, SeriesFacts(modality="CT", series_description="Screening")) is Priority.LOW
    assert routes.priority(known, SeriesFacts(modality="CT")) is Priority.MEDIUM


def test_a_workitem_can_only_raise_the_priority_of_a_job_of_a_route(stages, engine) -> None:
    job_id = waiting(stages, "1.2.1", priority=Priority.MEDIUM)
    for asked, expected in (("LOW", Priority.MEDIUM), ("MEDIUM", Priority.MEDIUM), ("HIGH", Priority.HIGH)):
        PerformerRows(engine, None).assign_job("1.2.3", job_id, Priority.named(asked))
        assert stages.jobs.get(job_id).priority == expected


def test_a_workitem_gives_its_priority_to_a_job_that_no_route_started_and_keeps_it_while_images_arrive(stages, engine) -> None:
    stages.receive_series("1.2.1", at=START)
    (job,) = stages.jobs.list()
    PerformerRows(engine, None).assign_job("1.2.3", job.job_id, Priority.HIGH, started=True)
    (job_id,) = stages.received.complete_due(load().completion, lambda _: None, START + timedelta(hours=1))
    assert stages.jobs.get(job_id).priority == Priority.HIGH
    stages.receive_series("1.2.2", at=START)
    assert stages.received.complete_due(load().completion, lambda _: "no route", START + timedelta(hours=1)) == ()
    skipped = next(one.job_id for one in stages.jobs.list() if one.series_uid == "1.2.2")
    stages.operator.retry(skipped)
    PerformerRows(engine, None).assign_job("1.2.4", skipped, Priority.LOW, started=True)
    assert stages.jobs.get(skipped).priority == Priority.LOW
