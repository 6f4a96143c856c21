"""A reader's marks in the job tables, on SQLite and on PostgreSQL: which series and revision uses them, and how long they are kept."""

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from listening import wait_for
from stages import TERMS, Stages

from alnnode.analyse import claims
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
def stages(engine) -> Stages:
    return Stages(engine)


def claim(stages, job_id, second, marked=True):
    return stages.jobs.claim(job_id, replace(TERMS, lease=timedelta(minutes=5), marked=marked), at(second))


def analyse(stages, job_id, second, uid="2.25.1"):
    taken = claim(stages, job_id, second)
    report = ResultRow(0, ObjectRole.SR, "1.2", uid, "2.25.9", "1.1", "1.2.1", "0" * 64, f"outbox/{uid}")
    assert stages.jobs.analysed(taken, [report], {}, now=at(second))
    return taken


def of_series(stages, series):
    return [job for job in stages.jobs.list() if job.series_uid == series]


def test_marks_that_come_with_the_images_are_taken_along_by_the_first_revision(stages) -> None:
    stages.received.record_instances([instance(CT), instance(SR, refers=[CT])])
    (job_id,) = stages.received.complete_due(RULES, unwanted, at(60))
    taken = claim(stages, job_id, 61)
    assert (taken.paths, taken.marks, taken.revision) == ((f"objects/{CT}.1",), (f"objects/{SR}.1",), 1)
    (marks,) = of_series(stages, SR)
    assert marks.state is JobState.SKIPPED
    assert "used in the analysis" in marks.reason


def test_marks_that_come_later_make_a_new_revision_that_names_its_predecessor(stages) -> None:
    stages.received.record_instances([instance(CT)])
    (first,) = stages.received.complete_due(RULES, unwanted, at(60))
    before = analyse(stages, first, 61)
    stages.received.record_instances([instance(SR, second=100, refers=[CT])])
    assert stages.received.complete_due(RULES, unwanted, at(159)) == ()
    assert len(of_series(stages, CT)) == 1
    ready = (*stages.received.complete_due(RULES, unwanted, at(160)), *stages.received.complete_due(RULES, unwanted, at(161)))
    (second,) = ready
    after = claim(stages, second, 162)
    assert (after.revision, after.paths, after.marks) == (2, before.paths, (f"objects/{SR}.1",))
    assert after.input_digest != before.input_digest
    assert after.predecessor[1] == "2.25.1"
    # Receiving the same object again changes nothing.
    stages.received.record_instances([instance(SR, second=200, refers=[CT])])
    assert stages.received.complete_due(RULES, unwanted, at(999)) == ()
    assert len(of_series(stages, CT)) == 2


def test_marks_that_come_before_the_images_wait_for_them(stages) -> None:
    stages.received.record_instances([instance(SR, refers=[CT])])
    assert stages.received.complete_due(RULES, unwanted, at(60)) == ()
    assert "not received" in of_series(stages, SR)[0].reason
    stages.received.record_instances([instance(CT, second=100)])
    (job_id,) = stages.received.complete_due(RULES, unwanted, at(160))
    assert claim(stages, job_id, 161).marks == (f"objects/{SR}.1",)


def test_a_result_that_a_pacs_sends_back_starts_nothing(stages) -> None:
    stages.received.record_instances([instance(CT)])
    (first,) = stages.received.complete_due(RULES, unwanted, at(60))
    analyse(stages, first, 61, uid=f"{SR}.1")
    stages.received.record_instances([instance(SR, second=100, refers=[CT])])
    assert stages.received.complete_due(RULES, unwanted, at(200)) == ()
    assert len(of_series(stages, CT)) == 1
    assert of_series(stages, SR)[0].reason == "no route"


def test_where_only_the_algorithm_locates_marks_start_nothing_and_are_not_taken_along(stages) -> None:
    stages.received.record_instances([instance(CT)])
    (first,) = stages.received.complete_due(RULES, unwanted, at(60))
    analyse(stages, first, 61)
    stages.received.record_instances([instance(SR, second=100, refers=[CT])])
    assert stages.received.complete_due(RULES, unwanted, at(200), marked=False) == ()
    assert len(of_series(stages, CT)) == 1
    stages.operator.retry(first, at(201))
    stages.received.record_instances([instance(CT, 2, second=202)])
    (second,) = stages.received.complete_due(RULES, unwanted, at(300), marked=False)
    assert claim(stages, second, 301, marked=False).marks == ()


def test_marks_are_kept_as_long_as_the_images(stages) -> None:
    stages.received.record_instances([instance(CT), instance(SR, refers=[CT])])
    (job_id,) = stages.received.complete_due(RULES, unwanted, at(60))
    assert stages.delete_files(at(9999), at(9999)) == 0  # the images wait for a worker
    analyse(stages, job_id, 61)
    assert stages.delete_files(at(9999), at(9999)) >= 1
    stages.delete_files(at(9999), at(9999))
    assert set(stages.spool.deleted) == {f"objects/{CT}.1", f"objects/{SR}.1", "outbox/2.25.1"}


def test_one_object_may_be_of_several_series_and_several_objects_of_one(stages) -> None:
    other = "1.2.5"
    stages.received.record_instances(
        [instance(CT), instance(other), instance(SR, refers=[CT, other]), instance("1.2.6", refers=[CT])]
    )
    ready = stages.received.complete_due(RULES, unwanted, at(60))
    taken = {one.series_uid: one.marks for one in (claim(stages, job_id, 61) for job_id in ready)}
    assert taken == {CT: (f"objects/{SR}.1", "objects/1.2.6.1"), other: (f"objects/{SR}.1",)}


def test_more_references_than_any_object_needs_are_not_followed(stages) -> None:
    many = [f"1.9.{n}" for n in range(100)]
    stages.received.record_instances([replace(instance(SR, refers=many))])
    assert stages.received.complete_due(RULES, unwanted, at(60)) == ()


@pytest.mark.parametrize("late", ["image", "marks"])
def test_what_comes_while_a_worker_takes_the_job_makes_a_new_revision(stages, engine, late) -> None:
    stages.received.record_instances([instance(CT)])
    (job_id,) = stages.received.complete_due(RULES, unwanted, at(60))
    if late == "marks":
        stages.received.record_instances([instance(SR, second=61, refers=[CT])])

    def come() -> None:
        if late == "marks":
            stages.received.complete_due(RULES, unwanted, at(200))
        else:
            stages.received.record_instances([instance(CT, 2, second=61)])

    comer = threading.Thread(target=come)
    with for_writing(engine).begin() as connection:
        taken = claims.claim(connection, job_id, TERMS, at(62))
        comer.start()
        wait_for(lambda: stages.somebody_waits() or not comer.is_alive())
    comer.join(30)
    assert (taken.paths, taken.marks) == ((f"objects/{CT}.1",), ())
    assert sorted(job.revision for job in of_series(stages, CT)) == [1, 2], "what came is in no revision"


def test_marks_on_marks_are_not_kept_for_ever(stages) -> None:
    stages.received.record_instances([instance(SR, refers=[SR, "1.2.7"]), instance("1.2.7", refers=[SR])])
    stages.received.complete_due(RULES, unwanted, at(60))
    stages.delete_files(at(9999), at(9999))
    assert sorted(stages.spool.deleted) == [f"objects/{SR}.1", "objects/1.2.7.1"]
