"""Marks in the job tables, on SQLite and on PostgreSQL: what they are of, which revision takes them along, and for how long."""

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from listening import wait_for
from sqlalchemy import text

from alnnode.analyse import claims
from alnnode.analyse.jobs import Jobs
from alnnode.db.engine import for_writing
from alnnode.db.rows import NewInstance, ResultRow, SeriesFacts
from alnnode.records import JobState, ObjectRole
from alnnode.settings import Completion

START = datetime(2026, 1, 1, tzinfo=UTC)
RULES = Completion(association_grace=5, quiet=60)
CT, SR = "1.2.3", "1.2.4"


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def instance(series, number=1, second=0.0, refers=()) -> NewInstance:
    uid = f"{series}.{number}"
    kind = "SR" if refers else "CT"
    facts = SeriesFacts(calling_ae="CT1", modality=kind)
    return NewInstance(
        "1.2", uid, series, "1.1", "1.2.1", f"objects/{uid}", uid.ljust(64, "0"), 100, at(second), facts, tuple(refers)
    )


def unwanted(facts):
    return None if facts.modality == "CT" else "no route"


@pytest.fixture
def jobs(engine) -> Jobs:
    return Jobs(engine)


def take(jobs, job_id, second, **options):
    return jobs.claim(job_id, timedelta(minutes=5), 3, at(second), bundle_digest="b", settings_digest="s", **options)


def analyse(jobs, job_id, second, uid="2.25.1"):
    taken = take(jobs, job_id, second)
    report = ResultRow(0, ObjectRole.SR, "1.2", uid, "2.25.9", "1.1", "1.2.1", "0" * 64, f"outbox/{uid}")
    assert jobs.analysed(job_id, taken.attempt, [report], {}, now=at(second))
    return taken


def of_series(jobs, series):
    return [job for job in jobs.list() if job.series_uid == series]


def test_marks_that_come_with_the_images_are_taken_along_by_the_first_revision(jobs) -> None:
    jobs.record_instances([instance(CT), instance(SR, refers=[CT])])
    (job_id,) = jobs.complete_due(RULES, unwanted, at(60))
    taken = take(jobs, job_id, 61)
    assert (taken.paths, taken.marks, taken.revision) == ((f"objects/{CT}.1",), (f"objects/{SR}.1",), 1)
    (marks,) = of_series(jobs, SR)
    assert marks.state is JobState.SKIPPED
    assert "used in the analysis" in marks.reason


def test_marks_that_come_later_make_a_new_revision_that_names_its_predecessor(jobs) -> None:
    jobs.record_instances([instance(CT)])
    (first,) = jobs.complete_due(RULES, unwanted, at(60))
    before = analyse(jobs, first, 61)
    jobs.record_instances([instance(SR, second=100, refers=[CT])])
    assert jobs.complete_due(RULES, unwanted, at(159)) == ()
    assert len(of_series(jobs, CT)) == 1
    ready = (*jobs.complete_due(RULES, unwanted, at(160)), *jobs.complete_due(RULES, unwanted, at(161)))
    (second,) = ready
    after = take(jobs, second, 162)
    assert (after.revision, after.paths, after.marks) == (2, before.paths, (f"objects/{SR}.1",))
    assert after.input_digest != before.input_digest
    assert after.predecessor[1] == "2.25.1"
    # Sent once more: nothing happens.
    jobs.record_instances([instance(SR, second=200, refers=[CT])])
    assert jobs.complete_due(RULES, unwanted, at(999)) == ()
    assert len(of_series(jobs, CT)) == 2


def test_marks_that_come_before_the_images_wait_for_them(jobs) -> None:
    jobs.record_instances([instance(SR, refers=[CT])])
    assert jobs.complete_due(RULES, unwanted, at(60)) == ()
    assert "not here" in of_series(jobs, SR)[0].reason
    jobs.record_instances([instance(CT, second=100)])
    (job_id,) = jobs.complete_due(RULES, unwanted, at(160))
    assert take(jobs, job_id, 161).marks == (f"objects/{SR}.1",)


def test_a_result_that_a_pacs_sends_back_starts_nothing(jobs) -> None:
    jobs.record_instances([instance(CT)])
    (first,) = jobs.complete_due(RULES, unwanted, at(60))
    analyse(jobs, first, 61, uid=f"{SR}.1")
    jobs.record_instances([instance(SR, second=100, refers=[CT])])
    assert jobs.complete_due(RULES, unwanted, at(200)) == ()
    assert len(of_series(jobs, CT)) == 1
    assert of_series(jobs, SR)[0].reason == "no route"


def test_where_only_the_algorithm_locates_marks_start_nothing_and_are_not_taken_along(jobs) -> None:
    jobs.record_instances([instance(CT)])
    (first,) = jobs.complete_due(RULES, unwanted, at(60))
    analyse(jobs, first, 61)
    jobs.record_instances([instance(SR, second=100, refers=[CT])])
    assert jobs.complete_due(RULES, unwanted, at(200), marked=False) == ()
    assert len(of_series(jobs, CT)) == 1
    jobs.retry(first, at(201))
    jobs.record_instances([instance(CT, 2, second=202)])
    (second,) = jobs.complete_due(RULES, unwanted, at(300), marked=False)
    assert take(jobs, second, 301, marked=False).marks == ()


def test_marks_are_kept_as_long_as_the_images(jobs) -> None:
    jobs.record_instances([instance(CT), instance(SR, refers=[CT])])
    (job_id,) = jobs.complete_due(RULES, unwanted, at(60))
    gone: list[str] = []
    assert jobs.purge(at(9999), at(9999), gone.extend) == 0  # the images wait for a worker
    analyse(jobs, job_id, 61)
    assert jobs.purge(at(9999), at(9999), gone.extend) >= 1
    jobs.purge(at(9999), at(9999), gone.extend)
    assert set(gone) == {f"objects/{CT}.1", f"objects/{SR}.1", "outbox/2.25.1"}


def test_one_object_may_be_of_several_series_and_several_objects_of_one(jobs) -> None:
    other = "1.2.5"
    jobs.record_instances([instance(CT), instance(other), instance(SR, refers=[CT, other]), instance("1.2.6", refers=[CT])])
    ready = jobs.complete_due(RULES, unwanted, at(60))
    taken = {claim.series_uid: claim.marks for claim in (take(jobs, job_id, 61) for job_id in ready)}
    assert taken == {CT: (f"objects/{SR}.1", "objects/1.2.6.1"), other: (f"objects/{SR}.1",)}


def test_more_references_than_any_object_needs_are_not_followed(jobs) -> None:
    many = [f"1.9.{n}" for n in range(100)]
    jobs.record_instances([replace(instance(SR, refers=many))])
    assert jobs.complete_due(RULES, unwanted, at(60)) == ()


@pytest.mark.parametrize("late", ["image", "marks"])
def test_what_comes_while_a_worker_takes_the_job_makes_a_new_revision(jobs, engine, late) -> None:
    jobs.record_instances([instance(CT)])
    (job_id,) = jobs.complete_due(RULES, unwanted, at(60))
    if late == "marks":
        jobs.record_instances([instance(SR, second=61, refers=[CT])])

    def come() -> None:
        if late == "marks":
            jobs.complete_due(RULES, unwanted, at(200))
        else:
            jobs.record_instances([instance(CT, 2, second=61)])

    def waits() -> bool:
        if engine.dialect.name == "sqlite":  # one writer at a time: nothing to look at
            return True
        with engine.connect() as connection:
            query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            return connection.execute(text(query)).scalar_one() > 0

    comer = threading.Thread(target=come)
    with for_writing(engine).begin() as connection:
        digests = {"bundle": "b", "settings": "s", "marked": True}
        taken = claims.take(connection, job_id, timedelta(minutes=5), 3, at(62), **digests)
        comer.start()
        wait_for(lambda: waits() or not comer.is_alive())
    comer.join(30)
    assert (taken.paths, taken.marks) == ((f"objects/{CT}.1",), ())
    assert sorted(job.revision for job in of_series(jobs, CT)) == [1, 2], "what came is in no revision"


def test_marks_on_marks_are_not_kept_for_ever(jobs) -> None:
    jobs.record_instances([instance(SR, refers=[SR, "1.2.7"]), instance("1.2.7", refers=[SR])])
    jobs.complete_due(RULES, unwanted, at(60))
    gone: list[str] = []
    jobs.purge(at(9999), at(9999), gone.extend)
    assert sorted(gone) == [f"objects/{SR}.1", "objects/1.2.7.1"]
