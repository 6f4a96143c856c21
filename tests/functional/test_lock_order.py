"""On PostgreSQL, all transactions lock series and jobs in one order (`alnnode.db.series_jobs`), so that no two wait for each other.

Most tests lock the row that comes first, wait until the tested transaction waits for it, and lock the row that comes next without waiting: that
fails if the tested transaction has locked the next row first.
"""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from listening import wait_for
from sqlalchemy import event, insert, select, update
from stages import TERMS, Stages

from alnnode.analyse.claims import ClaimTerms
from alnnode.db.engine import for_writing
from alnnode.db.rows import NewInstance, NotAnalysed, ResultRow, SeriesFacts
from alnnode.db.tables import Delivery, DeliveryState, Job, Series
from alnnode.records import JobState, ObjectRole
from alnnode.settings import Completion

START = datetime(2026, 1, 1, tzinfo=UTC)
LATER = START + timedelta(minutes=10)
FIRST, SECOND = "1.3.1", "1.30"  # in this order for Python; in the order of a locale, "1.30" may come first
LAST = "1.4"
SITE = {"pacs": {"sr"}}

pytestmark = pytest.mark.parametrize("database_url", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True)


@pytest.fixture
def stages(engine) -> Stages:
    return Stages(engine)


def image(series: str, number: int = 1, refers: tuple[str, ...] = (), at: datetime = START) -> NewInstance:
    uid, facts = f"{series}.{number}", SeriesFacts(calling_ae="CT1", modality="CT")
    return NewInstance("1.2", uid, series, "1.2", "1.2.1", f"objects/{uid}", uid.ljust(64, "0"), 9, at, facts, refers)


def running(stages: Stages, *series: str):
    """Receive series of one study, the one that sorts last first, and claim their jobs; return the claims by series."""
    for uid in sorted(series, reverse=True):
        stages.received.record_instances([image(uid)])
    ids = stages.received.complete_due(Completion(), lambda _: None, LATER)
    taken = (stages.jobs.claim(job_id, TERMS, LATER) for job_id in ids)
    return {claim.series_uid: claim for claim in taken}


def report(claim) -> list[ResultRow]:
    return [
        ResultRow(0, ObjectRole.SR, "1.2.3", f"2.25.{int(claim.job_id, 16)}", "2.25.9", "1.2", "1.2.1", "0" * 64, "outbox/x")
    ]


def not_analysed(stages: Stages, claim) -> bool:
    return stages.jobs.analysed(claim, report(claim), SITE, NotAnalysed("thick", once_per_study=True))


def begin(work: Callable[[], object]) -> list[object]:
    """Run ``work`` in a thread; return the list that gets its outcome."""
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(work())
        except Exception as error:  # noqa: BLE001 - compared by the test
            outcome.append(error)

    threading.Thread(target=run, daemon=True).start()
    return outcome


def begin_and_wait(stages: Stages, work: Callable[[], object]) -> list[object]:
    """Run ``work`` in a thread; return when it waits for a lock."""
    outcome = begin(work)
    wait_for(lambda: stages.somebody_waits() or outcome)
    assert outcome == [], "it waited for nothing"
    return outcome


def of_study(stages: Stages):
    claims = running(stages, FIRST, SECOND, LAST)
    return lambda: not_analysed(stages, claims[LAST])


def of_held_report(stages: Stages):
    claims = running(stages, FIRST, SECOND)
    not_analysed(stages, claims[SECOND])
    stages.jobs.fail(claims[FIRST], "no memory")
    return lambda: stages.decide() == (claims[SECOND].job_id,)


def of_received_images(stages: Stages):
    running(stages, FIRST, SECOND)
    batch = [image(SECOND, 2), image(FIRST, 2)]
    return lambda: bool(stages.received.record_instances(batch))


def of_marks(stages: Stages):
    claims = running(stages, SECOND)
    stages.jobs.fail(claims[SECOND], "no memory")
    stages.received.record_instances([image(FIRST, refers=(SECOND,))])
    return lambda: stages.received.complete_due(Completion(), lambda _: None, LATER) == ()


@pytest.mark.parametrize("prepare", [of_study, of_held_report, of_received_images, of_marks])
def test_jobs_of_several_series_are_locked_by_uid(stages, prepare) -> None:
    work = prepare(stages)
    job = select(Job.job_id).with_for_update(nowait=True)
    with for_writing(stages.engine).connect() as connection:
        assert connection.execute(job.where(Job.series_uid == FIRST)).all()
        outcome = begin_and_wait(stages, work)
        assert connection.execute(job.where(Job.series_uid == SECOND)).all()
    assert wait_for(lambda: outcome) == [True]


@pytest.mark.parametrize("action", ["retry", "reanalyse"])
def test_an_operator_locks_a_series_before_its_job(stages, action) -> None:
    claim = running(stages, FIRST)[FIRST]
    assert stages.jobs.analysed(claim, report(claim), {})
    with for_writing(stages.engine).connect() as connection:
        series = select(Series.series_uid).where(Series.series_uid == FIRST)
        assert connection.execute(series.with_for_update()).all()  # as the recorder of a late image does
        outcome = begin_and_wait(stages, lambda: getattr(stages.operator, action)(claim.job_id))
        assert connection.execute(select(Job.job_id).with_for_update(nowait=True)).all()
    wait_for(lambda: outcome)
    assert [job.revision for job in stages.jobs.list()] == [2, 1], outcome


def test_two_jobs_of_a_study_reach_their_last_attempt_at_the_same_time(stages) -> None:
    claims = running(stages, FIRST, SECOND, LAST)
    assert not_analysed(stages, claims[LAST])
    terms, expired = ClaimTerms(TERMS.lease, 1, "b", "s"), LATER + timedelta(hours=1)
    both, reached = threading.Barrier(2, timeout=30), threading.local()

    def meet(_connection, _cursor, statement, *_others) -> None:
        if statement.startswith("UPDATE jobs") and not getattr(reached, "once", False):
            reached.once = True
            both.wait()  # each has locked its job

    event.listen(stages.engine, "before_cursor_execute", meet)
    outcomes = [begin(lambda uid=uid: stages.jobs.claim(claims[uid].job_id, terms, expired)) for uid in (FIRST, SECOND)]
    wait_for(lambda: all(outcomes))
    event.remove(stages.engine, "before_cursor_execute", meet)
    assert outcomes == [[None], [None]]
    assert {stages.jobs.get(claims[uid].job_id).state for uid in (FIRST, SECOND)} == {JobState.FAILED}
    assert stages.decide() == (claims[LAST].job_id,)


def test_a_worker_that_ended_a_job_does_not_wait_for_the_job_of_its_message(stages) -> None:
    claims = running(stages, FIRST, SECOND)
    expired = LATER + timedelta(hours=1)
    with for_writing(stages.engine).connect() as connection:
        # As the recorder of late images of both series, which has reached the first one.
        assert connection.execute(select(Job.job_id).where(Job.series_uid == FIRST).with_for_update()).all()
        terms = ClaimTerms(TERMS.lease, 1, "b", "s")
        outcome = begin(lambda: stages.jobs.claim(claims[FIRST].job_id, terms, expired))
        assert wait_for(lambda: outcome) == [None]
        assert connection.execute(select(Job.state).where(Job.series_uid == SECOND).with_for_update(nowait=True)).all()
    assert stages.jobs.get(claims[SECOND].job_id).state is JobState.FAILED


def test_the_retention_waits_for_a_job_that_is_being_opened_again(stages) -> None:
    claim = running(stages, FIRST)[FIRST]
    assert stages.jobs.not_analysable(claim, "thick", START)
    with for_writing(stages.engine).connect() as connection:
        ended = connection.execute(select(Job.job_id).with_for_update()).scalar_one()
        outcome = begin_and_wait(stages, lambda: stages.delete_files(LATER, LATER, LATER))
        connection.execute(update(Job).values(state=JobState.ANALYSED, finished_at=None))
        values = {"state": DeliveryState.PENDING, "roles": "sr", "next_attempt_at": LATER, "due_at": LATER}
        connection.execute(insert(Delivery).values(delivery_id="d", job_id=ended, destination="pacs", **values))
        connection.commit()
    assert wait_for(lambda: outcome) == [0]
    assert stages.spool.deleted == []
