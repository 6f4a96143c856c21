"""The states of jobs and deliveries on SQLite and on PostgreSQL."""

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import text
from stages import LEASE, TERMS, Stages

from alnnode.db import schema
from alnnode.db.engine import for_writing
from alnnode.db.rows import NewInstance, NotAnalysed, Recorded, ResultRow, SeriesFacts
from alnnode.db.schema import MIGRATIONS
from alnnode.db.tables import Base, DeliveryState
from alnnode.deliver.commitments import Commitments
from alnnode.errors import JobConflict, JobNotFound
from alnnode.records import JobState, ObjectRole
from alnnode.settings import Completion

START = datetime(2026, 1, 1, tzinfo=UTC)
BOTH = {"sr", "capture"}
RULES = Completion(association_grace=5, quiet=60)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def instance(number, series="1.2.3", second=0.0, digest=None, **facts) -> NewInstance:
    uid = f"{series}.{number}"
    return NewInstance(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid=uid,
        series_uid=series,
        study_uid="1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        path=f"objects/{uid}",
        sha256=digest or f"{number:064x}",
        size=3 * 1024**3,
        received_at=at(second),
        facts=SeriesFacts(calling_ae="CT1", modality="CT", **facts),
    )


def result(position, role=ObjectRole.CAPTURE, uid="2.25.1") -> ResultRow:
    return ResultRow(
        position, role, "1.2.840.10008.5.1.4.1.1.7", f"{uid}.{position}", "2.25.9", "1.2", "1.2.1", "0" * 64, "outbox/x"
    )


REPORT = [result(0, ObjectRole.SR), result(1)]


def everything(_facts) -> None:
    return None


@pytest.fixture
def stages(engine) -> Stages:
    return Stages(engine)


def receive(stages, numbers=range(3), second=0.0, **kwargs):
    return stages.received.record_instances([instance(n, second=second, **kwargs) for n in numbers])


def ready(stages, second=60.0) -> str:
    (job_id,) = stages.received.complete_due(RULES, everything, at(second))
    return job_id


def claim(stages, job_id, second=61.0, bundle="b", settings="s"):
    terms = replace(TERMS, bundle_digest=bundle, settings_digest=settings)
    return stages.jobs.claim(job_id, terms, at(second))


def finish(stages, job_id, second=61.0, results=None, destinations=None, **digests):
    taken = claim(stages, job_id, second, **digests)
    assert stages.jobs.analysed(taken, results or REPORT, destinations or {}, now=at(second))
    return taken


def test_migrations_build_exactly_the_tables(engine, database_url) -> None:
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    assert schema.schema_state(database_url).startswith("schema ")
    schema.migrate(database_url)


def test_rows_of_the_first_release_go_on_after_a_migration(engine, database_url) -> None:
    Base.metadata.drop_all(engine)
    with for_writing(engine).begin() as connection:
        connection.execute(text("DROP TABLE alembic_version"))
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        moment = "2026-01-01 00:00:00.000000"
        for table, values in {
            "series": f"('1.2.3', '1.1', 'CT1', 'CT', '', '', '', '', 1.0, NULL, '{moment}', NULL)",
            "instances": f"('1.2.3.1', '1.2.3', '1.2', '1.2.1', 'objects/a', 'd', 10, 'CT1', '{moment}', 1)",
            "jobs": "('j', '1.2.3', '1.1', 1, NULL, 'ANALYSED', NULL, NULL, 1, 0, 'i', 'b', 's',"
            f" '{moment}', '{moment}', '{moment}', NULL, NULL, NULL, NULL)",
            "results": "('j', 0, 'sr', '1.2', '2.25.1', '2.25.2', '1.1', '1.2.1', 'd', 'outbox/a')",
            "deliveries": f"('d', 'j', 'pacs', 'sr', 'PENDING', 1, '{moment}', NULL, '{moment}', 0, 'away', NULL)",
        }.items():
            connection.execute(text(f"INSERT INTO {table} VALUES {values}"))
    schema.migrate(database_url)
    stages = Stages(engine)
    assert stages.deliveries.due(at(61)) == ("d",)
    taken = stages.deliveries.claim("d", timedelta(minutes=5), at(61))
    assert [file.sop_instance_uid for file in taken.files] == ["2.25.1"]
    assert stages.deliveries.delivered("d", at(62))
    assert stages.jobs.get("j").state is JobState.DELIVERED
    assert receive(stages, [2], second=70) == (Recorded.NEW,)
    assert stages.jobs.list()[0].revision == 2


def test_a_quiet_series_goes_all_the_way(stages) -> None:
    assert receive(stages) == (Recorded.NEW,) * 3
    assert stages.received.complete_due(RULES, everything, at(59.9)) == ()
    job_id = ready(stages)
    taken = claim(stages, job_id)
    assert taken.paths == ("objects/1.2.3.0", "objects/1.2.3.1", "objects/1.2.3.2")
    assert (taken.revision, taken.attempt, taken.predecessor, taken.created) == (1, 1, None, START)
    assert claim(stages, job_id) is None
    assert stages.jobs.analysed(taken, REPORT, {"pacs": BOTH, "archive": {"sr"}}, now=at(70))
    by_name = {d.destination: d.delivery_id for d in stages.jobs.get(job_id).deliveries}
    assert set(stages.deliveries.due(at(70))) == set(by_name.values())
    assert [f.position for f in stages.deliveries.claim(by_name["pacs"], LEASE, at(70)).files] == [0, 1]
    assert [f.position for f in stages.deliveries.claim(by_name["archive"], LEASE, at(70)).files] == [0]
    assert stages.deliveries.delivered(by_name["pacs"], at(71))
    assert stages.jobs.get(job_id).state is JobState.ANALYSED
    assert stages.deliveries.delivered(by_name["archive"], at(72))
    assert (stages.jobs.get(job_id).state, stages.jobs.get(job_id).finished_at) == (JobState.DELIVERED, at(72))
    assert not stages.deliveries.delivered(by_name["archive"], at(73))


def test_a_study_that_is_sent_twice_changes_nothing(stages) -> None:
    receive(stages)
    job_id = ready(stages)
    finish(stages, job_id)
    before = stages.jobs.list()
    assert receive(stages, second=500) == (Recorded.SAME,) * 3
    assert stages.jobs.list() == before
    assert stages.received.complete_due(RULES, everything, at(9999)) == ()


def test_other_bytes_under_a_known_uid_are_a_conflict(stages) -> None:
    receive(stages)
    assert stages.received.record_instances([instance(0, digest="f" * 64)]) == (Recorded.CONFLICT,)
    assert stages.received.digest("1.2.3.0") == f"{0:064x}"
    twice = [instance(7, digest="a" * 64), instance(7, digest="a" * 64), instance(7, digest="b" * 64)]
    assert stages.received.record_instances(twice) == (Recorded.NEW, Recorded.SAME, Recorded.CONFLICT)


def test_the_announced_number_completes_at_once_and_forbids_the_grace(stages) -> None:
    receive(stages, range(2), announced=3)
    stages.received.mark_released(["1.2.3"], at(1))
    assert stages.received.complete_due(RULES, everything, at(30)) == ()
    receive(stages, [2], second=31, announced=3)
    assert len(stages.received.complete_due(RULES, everything, at(31))) == 1


def test_a_released_association_completes_after_its_grace(stages) -> None:
    receive(stages)
    stages.received.mark_released(["1.2.3"], at(1))
    receive(stages, [3], second=2)  # by another association, which is still open
    assert stages.received.complete_due(RULES, everything, at(20)) == ()
    stages.received.mark_released(["1.2.3"], at(20))
    assert stages.received.complete_due(RULES, everything, at(24.9)) == ()
    assert len(stages.received.complete_due(RULES, everything, at(25))) == 1


def test_a_series_that_no_route_wants_is_skipped_until_a_person_asks(stages) -> None:
    receive(stages)
    assert stages.received.complete_due(RULES, lambda facts: f"modality {facts.modality}", at(60)) == ()
    (job,) = stages.jobs.list()
    assert (job.state, job.reason) == (JobState.SKIPPED, "modality CT")
    assert stages.operator.retry(job.job_id, at(61)) is JobState.READY
    assert stages.jobs.lost(at(61)) == (job.job_id,)


def nothing(_facts) -> str:
    return "no route"


def skipped(stages) -> str:
    """Return the job of a series that no route selects."""
    receive(stages)
    assert stages.received.complete_due(RULES, nothing, at(60)) == ()
    (job,) = stages.jobs.list()
    assert job.state is JobState.SKIPPED
    return job.job_id


def test_a_late_slice_of_a_series_that_a_person_asked_for_is_analysed_with_it(stages) -> None:
    job_id = skipped(stages)
    stages.operator.retry(job_id, at(61))
    receive(stages, [3], second=65)  # before a worker claims the job
    assert stages.received.complete_due(RULES, nothing, at(100)) == (), "the series is not complete"
    assert stages.received.complete_due(RULES, nothing, at(125)) == (job_id,)
    assert len(claim(stages, job_id, 126).paths) == 4


@pytest.mark.parametrize("again", ["late slice", "reanalysis", "marks"])
def test_a_later_revision_of_a_series_that_a_person_asked_for_is_analysed(stages, again) -> None:
    job_id = skipped(stages)
    stages.operator.retry(job_id, at(61))
    taken = claim(stages, job_id)
    if again == "late slice":
        receive(stages, [3], second=65)  # while a worker analyses the series
    stages.jobs.analysed(taken, REPORT, {}, now=at(70))
    if again == "reanalysis":
        stages.operator.reanalyse(job_id, at(71))
    elif again == "marks":
        stages.received.record_instances([replace(instance(1, series="1.2.5", second=71), refers=("1.2.3",))])
        assert stages.received.complete_due(RULES, nothing, at(140)) == ()
    (second,) = stages.received.complete_due(RULES, nothing, at(200))
    assert stages.jobs.get(second).revision == 2
    assert len(claim(stages, second, 201).paths) == (4 if again == "late slice" else 3)


@pytest.mark.parametrize("failed", [False, True])
def test_the_routes_apply_again_when_the_series_was_not_analysed_or_has_no_files(stages, failed) -> None:
    job_id = skipped(stages)
    stages.operator.retry(job_id, at(61))
    taken = claim(stages, job_id)
    if failed:
        stages.jobs.fail(taken, "out of memory", at(70))
    else:
        stages.jobs.analysed(taken, REPORT, {}, now=at(70))
        assert stages.delete_files(at(80), at(80), at(80)) == 1
    receive(stages, [3], second=90)
    assert stages.received.complete_due(RULES, nothing, at(200)) == ()
    assert stages.jobs.list()[0].state is JobState.SKIPPED


def test_a_series_that_is_received_anew_is_selected_by_what_its_images_say_now(stages) -> None:
    def breast(facts) -> str | None:
        return None if facts.body_part == "BREAST" else f"body part is {facts.body_part}"

    receive(stages, body_part="ABDOMEN", announced=9)
    assert stages.received.complete_due(RULES, breast, at(60)) == ()
    receive(stages, [5], second=61, body_part="BREAST")
    assert stages.received.complete_due(RULES, breast, at(130)) == (), "the first image says what the series is"
    assert stages.delete_files(at(200), at(200), at(200)) == 1
    receive(stages, range(3), second=300, body_part="BREAST")  # the sender has corrected the images
    (job_id,) = stages.received.complete_due(RULES, breast, at(360))
    assert len(claim(stages, job_id, 361).paths) == 3


@pytest.mark.parametrize("skipped", [False, True])
def test_a_late_slice_rejoins_a_job_that_nobody_took(stages, skipped) -> None:
    receive(stages)
    stages.received.complete_due(RULES, lambda _: "no" if skipped else None, at(60))
    receive(stages, [3], second=65)
    (job,) = stages.jobs.list()
    assert (job.state, job.instances) == (JobState.RECEIVING, 4)
    assert claim(stages, job.job_id, 66) is None


def test_a_late_slice_opens_a_revision_that_waits_for_and_names_its_predecessor(stages) -> None:
    receive(stages)
    first = ready(stages)
    taken = claim(stages, first)
    receive(stages, [3], second=65)
    second = stages.jobs.list()[0]
    assert (second.revision, second.predecessor_id, second.instances) == (2, first, 4)
    assert stages.jobs.get(first).instances == 3
    assert stages.received.complete_due(RULES, everything, at(500)) == ()  # the first revision still runs
    again = claim(stages, first, 500)
    assert again.input_digest == taken.input_digest  # a late slice does not change the input of an earlier revision
    stages.jobs.analysed(again, REPORT, {})
    assert stages.received.complete_due(RULES, everything, at(501)) == (second.job_id,)
    later = claim(stages, second.job_id, 502)
    assert later.revision == 2
    assert later.predecessor == ("1.2.840.10008.5.1.4.1.1.7", "2.25.1.0", "2.25.9", "1.2")
    assert len(later.paths) == 4


def test_the_input_digest_does_not_depend_on_the_order_of_arrival(stages) -> None:
    receive(stages, [2, 0, 1])
    job_id = ready(stages)
    one = claim(stages, job_id).input_digest
    stages.received.record_instances([instance(n, series="1.2.4", digest=f"{n:064x}", second=70) for n in (1, 2, 0)])
    assert claim(stages, ready(stages, 130), 131).input_digest == one


def test_a_worker_that_dies_gives_its_job_back_until_it_has_died_too_often(stages) -> None:
    receive(stages)
    job_id = ready(stages)
    for attempt, second in ((1, 100), (2, 200), (3, 300)):
        assert claim(stages, job_id, second).attempt == attempt
        assert claim(stages, job_id, second + 59) is None
        assert stages.jobs.lost(at(second + 59)) == ()
        assert stages.jobs.lost(at(second + 60)) == (job_id,)
        assert stages.jobs.lost(at(second + 60)) == ()  # returned once
    assert claim(stages, job_id, 400) is None
    assert (stages.jobs.get(job_id).state, stages.jobs.get(job_id).reason) == (
        JobState.FAILED,
        "the analysis ended its worker 3 times",
    )


def test_a_worker_whose_job_was_taken_over_changes_nothing(stages) -> None:
    receive(stages)
    job_id = ready(stages)
    first = claim(stages, job_id, 100)
    second = claim(stages, job_id, 200)
    assert (first.attempt, second.attempt) == (1, 2)
    assert not stages.jobs.renew(first, LEASE, at(201))
    assert not stages.jobs.fail(first, "out of memory")
    assert not stages.jobs.postpone(first, at(300))
    assert not stages.jobs.analysed(first, REPORT, {})
    assert stages.jobs.renew(second, LEASE, at(250))
    assert claim(stages, job_id, 309) is None
    assert stages.jobs.analysed(second, REPORT, {})


def test_a_worker_whose_job_was_cancelled_and_retried_changes_nothing(stages) -> None:
    receive(stages)
    job_id = ready(stages)
    first = claim(stages, job_id, 100)
    stages.operator.cancel(job_id, "a person", at(101))
    stages.operator.retry(job_id, at(102))
    receive(stages, [3], second=103)
    assert ready(stages, 163) == job_id
    second = claim(stages, job_id, 164)
    assert (len(first.paths), len(second.paths), first.attempt, second.attempt) == (3, 4, 1, 1)
    assert not stages.jobs.renew(first, LEASE, at(165))
    assert stages.jobs.identify(first, "of three images") is None
    assert not stages.jobs.analysed(first, REPORT, {})
    assert not stages.jobs.fail(first, "out of memory")
    assert stages.jobs.analysed(second, REPORT, {})


def test_a_ready_job_is_given_out_again_whenever_its_task_is_not_on_the_queue(stages) -> None:
    receive(stages)
    job_id = ready(stages)
    looks = []

    def queued():
        looks.append(1)
        return {job_id}

    assert not [second for second in range(60, 600) if stages.jobs.lost(at(second), queued=queued)]
    assert len(looks) == 600 - 75, "the queue was read before a task could be lost"
    assert [second for second in range(600, 660) if stages.jobs.lost(at(second))] == [600, 615, 630, 645]
    assert claim(stages, job_id, 661) is not None


def test_many_lost_tasks_are_given_out_once_and_in_the_order_of_their_age(stages) -> None:
    for number in range(1100):
        stages.received.record_instances([instance(0, series=f"1.3.{number}", second=number / 1000)])
    ids = stages.received.complete_due(RULES, everything, at(70))
    assert stages.jobs.lost(at(80)) == ()
    by_series = {job.series_uid: job.job_id for job in stages.jobs.list(limit=2000)}
    oldest_first = tuple(by_series[f"1.3.{number}"] for number in range(1100))
    kept = set(oldest_first[100:200])
    assert stages.jobs.lost(at(85), queued=lambda: kept) == (*oldest_first[:100], *oldest_first[200:])
    assert stages.jobs.lost(at(85), queued=lambda: kept) == ()
    assert stages.jobs.lost(at(86)) == oldest_first[100:200]
    assert set(ids) == set(oldest_first)


def test_a_destination_is_woken_by_one_delivery_and_not_again_while_that_is_on_the_queue(stages) -> None:
    deliveries = []
    for number in range(3):
        stages.received.record_instances([instance(0, series=f"1.4.{number}", second=number)])
        job_id = ready(stages, 100 + number)
        finish(stages, job_id, 110, destinations={"pacs": BOTH, "archive": BOTH})
        deliveries.append({one.destination: one.delivery_id for one in stages.jobs.get(job_id).deliveries})
    first = deliveries[0]
    assert set(stages.deliveries.due(at(111))) == set(first.values())
    assert stages.deliveries.due(at(125)) == ()
    assert stages.deliveries.due(at(126), queued=lambda: {first["pacs"]}) == (first["archive"],)
    assert stages.deliveries.due(at(127), queued=lambda: {deliveries[2]["pacs"]}) == ()
    assert stages.deliveries.due(at(128)) == (first["pacs"],)


def test_a_postponed_job_comes_back_at_its_time(stages) -> None:
    receive(stages)
    job_id = ready(stages)
    assert stages.jobs.postpone(claim(stages, job_id), at(90))
    assert stages.jobs.lost(at(89)) == ()
    assert stages.jobs.lost(at(90)) == (job_id,)


def test_a_job_that_was_queued_again_and_is_postponed_waits_like_any_other(stages) -> None:
    receive(stages)
    job_id = ready(stages)
    taken = claim(stages, job_id)
    assert stages.jobs.lost(at(10_000)) == (job_id,)  # its lease ended, so its message was sent again
    assert stages.jobs.postpone(taken, at(20_000))
    assert claim(stages, job_id, 10_001) is None
    assert stages.jobs.lost(at(19_999)) == ()
    assert stages.jobs.lost(at(20_000)) == (job_id,)


def test_a_deferred_delivery_waits_and_a_refused_one_fails_the_job_but_not_the_others(stages) -> None:
    receive(stages)
    job_id = ready(stages)
    finish(stages, job_id, destinations={"down": BOTH, "picky": BOTH, "up": BOTH})
    ids = {d.destination: d.delivery_id for d in stages.jobs.get(job_id).deliveries}
    assert stages.deliveries.destination_of(ids["up"]) == "up"
    stages.deliveries.due(at(61))
    for identifier in ids.values():
        assert stages.deliveries.claim(identifier, LEASE, at(62)).attempt == 1
        assert stages.deliveries.claim(identifier, LEASE, at(63)) is None
    assert stages.deliveries.deferred(ids["down"], "connection refused", at(90))
    assert stages.deliveries.refused(ids["picky"], "SOP class not supported", at(64))
    assert stages.deliveries.delivered(ids["up"], at(65))
    job = stages.jobs.get(job_id)
    assert (job.state, job.reason) == (JobState.FAILED, "destination picky refused: SOP class not supported")
    assert stages.deliveries.due(at(89)) == ()
    assert stages.deliveries.due(at(90)) == (ids["down"],)
    assert stages.deliveries.claim(ids["down"], LEASE, at(90)).attempt == 2
    assert stages.deliveries.delivered(ids["down"], at(91))
    assert stages.jobs.get(job_id).state is JobState.FAILED
    assert stages.operator.retry(job_id, at(100)) is JobState.ANALYSED
    assert stages.deliveries.due(at(100)) == (ids["picky"],)  # nothing is sent twice
    stages.deliveries.claim(ids["picky"], LEASE, at(100))
    stages.deliveries.delivered(ids["picky"], at(101))
    assert stages.jobs.get(job_id).state is JobState.DELIVERED


def test_a_delivery_whose_worker_died_is_given_out_again(stages) -> None:
    receive(stages)
    job_id = ready(stages)
    finish(stages, job_id, destinations={"pacs": BOTH})
    (delivery,) = stages.deliveries.due(at(61))
    stages.deliveries.claim(delivery, LEASE, at(62))
    assert stages.deliveries.due(at(121)) == ()
    assert stages.deliveries.due(at(122)) == (delivery,)
    assert stages.deliveries.claim(delivery, LEASE, at(122)).attempt == 2


def test_a_delivery_that_takes_long_stays_with_its_worker(stages) -> None:
    receive(stages)
    job_id = ready(stages)
    finish(stages, job_id, destinations={"pacs": BOTH})
    (delivery,) = stages.deliveries.due(at(61))
    slow = stages.deliveries.claim(delivery, LEASE, at(62))
    assert stages.deliveries.renew(slow, LEASE, at(110))
    assert stages.deliveries.due(at(169)) == ()
    assert stages.deliveries.claim(delivery, LEASE, at(169)) is None
    # The worker is cut off from the database until another one has claimed the delivery. Its failure then says nothing about that one.
    assert stages.deliveries.claim(delivery, LEASE, at(170)).attempt == 2
    assert not stages.deliveries.renew(slow, LEASE, at(171))
    assert not stages.deliveries.deferred(delivery, "aborted", at(171), attempt=slow.attempt)
    assert not stages.deliveries.refused(delivery, "no", at(171), attempt=slow.attempt)
    assert stages.deliveries.claim(delivery, LEASE, at(172)) is None
    assert stages.deliveries.delivered(delivery, at(173))
    assert stages.jobs.get(job_id).state is JobState.DELIVERED


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_retry_does_not_send_what_is_being_sent(stages, cancelled) -> None:
    receive(stages)
    job_id = ready(stages)
    finish(stages, job_id, destinations={"pacs": BOTH, "archive": BOTH})
    ids = {d.destination: d.delivery_id for d in stages.jobs.get(job_id).deliveries}
    sending = stages.deliveries.claim(ids["pacs"], LEASE, at(62))
    if cancelled:
        stages.operator.cancel(job_id, "ward", at(63))
    assert stages.deliveries.renew(sending, LEASE, at(64))
    assert stages.operator.retry(job_id, at(65)) is JobState.ANALYSED
    assert stages.deliveries.claim(ids["pacs"], LEASE, at(66)) is None
    assert stages.deliveries.claim(ids["archive"], LEASE, at(66)).attempt == 1, "nobody sends to the archive"
    assert stages.deliveries.renew(sending, LEASE, at(67))
    if cancelled:  # the worker was killed: its lease ends
        assert stages.deliveries.due(at(126)) == (ids["archive"],)
        assert stages.deliveries.claim(ids["pacs"], LEASE, at(127)).attempt == 2
    assert all(stages.deliveries.delivered(one, at(128)) for one in ids.values())
    assert stages.jobs.get(job_id).state is JobState.DELIVERED


def test_not_analysed_is_reported_and_ends_not_analysed(stages) -> None:
    receive(stages)
    job_id = ready(stages)
    stages.jobs.analysed(claim(stages, job_id), REPORT[:1], {"pacs": BOTH}, NotAnalysed("slices are 8 mm apart"), now=at(62))
    (delivery,) = stages.deliveries.due(at(62))
    stages.deliveries.claim(delivery, LEASE, at(62))
    stages.deliveries.delivered(delivery, at(63))
    assert (stages.jobs.get(job_id).state, stages.jobs.get(job_id).reason) == (JobState.NOT_ANALYSED, "slices are 8 mm apart")


def test_a_version_that_comes_back_replaces_the_one_in_between(stages) -> None:
    receive(stages)
    job_id = ready(stages)
    finish(stages, job_id, settings="old")
    for number, (version, revision, predecessor) in enumerate(
        (("new", 2, "2.25.1.0"), ("new", 2, "2.25.1.0"), ("old", 4, "2.25.3.0"))
    ):
        job_id = stages.operator.reanalyse(job_id, at(100 * (number + 1)))
        assert ready(stages, 100 * (number + 1) + 1) == job_id
        taken = claim(stages, job_id, 100 * (number + 1) + 2, settings=version)
        assert (taken.revision, taken.predecessor[1]) == (revision, predecessor)
        results = [result(0, ObjectRole.SR, uid=f"2.25.{number + 2}")]
        assert stages.jobs.analysed(taken, results, {}, now=at(100 * (number + 1) + 3))


def test_a_retry_after_results_were_sent_opens_a_revision_that_names_them(stages) -> None:
    receive(stages)
    first = ready(stages)
    stages.jobs.analysed(claim(stages, first), REPORT[:1], {}, NotAnalysed("slices are 8 mm apart"), now=at(62))
    assert stages.jobs.get(first).state is JobState.NOT_ANALYSED
    assert stages.operator.retry(first, at(64)) is JobState.READY
    newest = stages.jobs.list()[0]
    assert (newest.revision, newest.predecessor_id, newest.state) == (2, first, JobState.READY)
    assert stages.jobs.lost(at(64)) == (newest.job_id,)
    assert stages.jobs.get(first).state is JobState.NOT_ANALYSED, "the state of the delivered revision changed"
    assert stages.operator.retry(first, at(65)) is JobState.READY
    assert len(stages.jobs.list()) == 2
    # The same version gives the same report; for another version, the first report is the predecessor.
    same = claim(stages, newest.job_id, 66)
    assert (same.revision, same.created, same.predecessor) == (1, START, None)
    stages.jobs.postpone(same, at(67))
    other = claim(stages, newest.job_id, 68, settings="of another version")
    assert (other.revision, other.created, other.predecessor[1]) == (2, at(64), "2.25.1.0")


def test_a_report_knows_all_objects_that_it_replaces_but_no_rejection_note(stages) -> None:
    receive(stages)
    job_id = ready(stages)
    assert finish(stages, job_id, settings="a").superseded == ()
    for number, version in enumerate(("b", "b", "c"), start=1):
        job_id = stages.operator.reanalyse(job_id, at(100 * number))
        ready(stages, 100 * number + 1)
        mine = [result(0, ObjectRole.SR, f"2.25.7{version}"), result(1, ObjectRole.REJECTION, f"2.25.8{version}")]
        taken = finish(stages, job_id, 100 * number + 2, mine, settings=version)
        old = [one.sop_instance_uid for one in taken.superseded]
        assert old == ["2.25.1.0", "2.25.1.1", *(["2.25.7b.0"] if version == "c" else [])]
        assert {one.role for one in taken.superseded} <= {ObjectRole.SR, ObjectRole.CAPTURE}


def test_a_retry_does_not_end_the_reception_of_a_later_revision(stages) -> None:
    receive(stages)
    first = ready(stages)
    finish(stages, first)
    receive(stages, [3], second=70)
    stages.operator.retry(first, at(71))
    newest = stages.jobs.list()[0]
    assert (newest.revision, newest.state) == (2, JobState.RECEIVING)


def test_a_retry_does_not_analyse_a_revision_after_the_one_that_replaces_it(stages) -> None:
    receive(stages)
    first = ready(stages)
    stages.jobs.fail(claim(stages, first), "no memory", at(62))
    receive(stages, [3], second=70)
    assert stages.operator.retry(first, at(71)) is JobState.RECEIVING, "the later revision has all images"
    second = ready(stages, 130)
    assert stages.operator.retry(first, at(131)) is JobState.READY
    finish(stages, second, 132)
    with pytest.raises(JobConflict, match=f"a later revision of this series has ended; retry that one: job {second}"):
        stages.operator.retry(first, at(133))
    assert stages.jobs.get(first).state is JobState.FAILED


def test_a_retry_says_that_a_later_revision_failed(stages) -> None:
    receive(stages)
    first = ready(stages)
    finish(stages, first)
    assert stages.operator.retry(first, at(70)) is JobState.READY
    (second,) = (job.job_id for job in stages.jobs.list() if job.revision == 2)
    stages.jobs.fail(claim(stages, second, 71), "no memory", at(72))
    with pytest.raises(JobConflict, match=second):
        stages.operator.retry(first, at(73))
    assert stages.operator.retry(second, at(74)) is JobState.READY


def test_what_is_known_after_the_claim_belongs_to_the_identity_of_the_report(stages) -> None:
    receive(stages)
    first = ready(stages)
    taken = stages.jobs.identify(claim(stages, first), "input, and no earlier report")
    assert (taken.revision, taken.predecessor, taken.created) == (1, None, START)
    stages.jobs.analysed(taken, REPORT, {}, now=at(62))
    stages.operator.reanalyse(first, at(100))
    second = ready(stages, 160)
    again = claim(stages, second, 161)
    same = stages.jobs.identify(again, "input, and no earlier report")
    assert (same.revision, same.predecessor, same.created) == (1, None, START)
    other = stages.jobs.identify(again, "input, and an earlier report")
    assert (other.input_digest, other.paths) == ("input, and an earlier report", again.paths)
    assert (other.revision, other.predecessor[1], other.created) == (2, "2.25.1.0", at(100))
    # A worker that lost the job gets None.
    assert claim(stages, second, 300).attempt == 2
    assert stages.jobs.identify(again, "input") is None


def test_retry_of_a_delivered_job_sends_the_same_objects_again(stages) -> None:
    receive(stages)
    job_id = ready(stages)
    finish(stages, job_id, destinations={"pacs": BOTH})
    (delivery,) = stages.deliveries.due(at(61))
    stages.deliveries.claim(delivery, LEASE, at(61))
    stages.deliveries.delivered(delivery, at(62))
    assert stages.operator.retry(job_id, at(63)) is JobState.ANALYSED
    assert stages.deliveries.claim(delivery, LEASE, at(63)).files == tuple(REPORT)


def test_retry_of_an_unknown_job(stages) -> None:
    with pytest.raises(JobNotFound):
        stages.operator.retry("0" * 32)
    with pytest.raises(JobNotFound):
        stages.jobs.get("0" * 32)


def test_a_series_that_is_sent_again_after_its_files_were_deleted_gives_the_same_result(stages) -> None:
    receive(stages)
    first = ready(stages)
    taken = finish(stages, first, second=61)
    assert stages.delete_files(at(61), at(61)) == 0
    assert stages.delete_files(at(62), at(0)) == 1
    assert sorted(stages.spool.deleted) == ["objects/1.2.3.0", "objects/1.2.3.1", "objects/1.2.3.2", "outbox/x", "outbox/x"]
    assert stages.delete_files(at(62), at(0)) == 0
    with pytest.raises(JobConflict):
        stages.operator.retry(first)
    assert receive(stages, second=500) == (Recorded.NEW,) * 3
    again = claim(stages, ready(stages, 560), 561)
    assert again.job_id != first
    assert (again.input_digest, again.created, again.revision, again.predecessor) == (taken.input_digest, START, 1, None)


def test_another_model_makes_another_report_that_names_the_first(stages) -> None:
    receive(stages)
    finish(stages, ready(stages))
    stages.delete_files(at(62), at(62))
    receive(stages, second=500)
    again = claim(stages, ready(stages, 560), 561, bundle="new")
    assert (again.created, again.revision, again.predecessor[1]) == (at(500), 2, "2.25.1.0")


def test_the_files_of_a_series_with_an_open_job_are_kept(stages) -> None:
    receive(stages)
    finish(stages, ready(stages))
    receive(stages, [3], second=70)
    assert stages.delete_files(at(9999), at(9999)) == 0
    assert stages.spool.deleted == []


def test_one_of_many_workers_gets_a_job(stages) -> None:
    receive(stages)
    job_id = ready(stages)
    start = threading.Barrier(8)
    taken = []

    def work() -> None:
        start.wait()
        taken.append(claim(stages, job_id))

    run_all([work] * 8)
    assert sum(claim is not None for claim in taken) == 1


def test_many_senders_of_one_series_make_one_job(stages) -> None:
    start = threading.Barrier(4)

    def send(offset):
        def work() -> None:
            start.wait()
            for number in range(offset, 40, 2):  # each slice comes twice
                receive(stages, [number])

        return work

    run_all([send(0), send(1), send(0), send(1)])
    (job,) = stages.jobs.list()
    assert (job.revision, job.instances) == (1, 40)


def test_the_last_two_deliveries_of_a_job_can_end_at_the_same_moment(stages) -> None:
    receive(stages)
    job_id = ready(stages)
    finish(stages, job_id, destinations={f"d{n}": BOTH for n in range(6)})
    ids = stages.deliveries.due(at(61))
    start = threading.Barrier(6)

    def end(identifier):
        def work() -> None:
            start.wait()
            stages.deliveries.delivered(identifier)

        return work

    run_all([end(identifier) for identifier in ids])
    assert stages.jobs.get(job_id).state is JobState.DELIVERED
    assert {d.state for d in stages.jobs.get(job_id).deliveries} == {DeliveryState.SENT}


def run_all(targets) -> None:
    failures = []

    def guarded(target):
        def run() -> None:
            try:
                target()
            except Exception as error:  # noqa: BLE001 - told below
                failures.append(error)

        return run

    threads = [threading.Thread(target=guarded(target)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []


def test_a_job_ends_when_the_last_destination_has_committed(stages, engine) -> None:
    receive(stages)
    job = ready(stages)
    finish(stages, job, destinations={"archive": ["sr"], "pacs": ["sr"]})
    archive, pacs = (delivery.delivery_id for delivery in stages.jobs.get(job).deliveries)
    commitments = Commitments(engine)
    assert stages.deliveries.claim(pacs, LEASE, at(62)).sent is False
    (uid,) = (row.sop_instance_uid for row in stages.jobs.results(job) if row.role is ObjectRole.SR)
    assert commitments.sent(pacs, [uid], at(62))
    assert stages.deliveries.delivered(archive, at(63))
    assert stages.jobs.get(job).state is JobState.ANALYSED
    assert stages.delete_files(at(9000), at(9000)) == 0
    question = stages.deliveries.claim(pacs, LEASE, at(64))
    assert (question.sent, [file.sop_instance_uid for file in question.files]) == (True, [uid])
    commitments.ask(pacs, "2.25.99", at(64))
    assert commitments.answered("2.25.99", {uid}, {}, timedelta(), at(65))
    assert not commitments.asked(pacs, at(99)), "the answer came before"
    assert stages.jobs.get(job).state is JobState.DELIVERED
    assert stages.delete_files(at(9000), at(9000)) == 1
