"""The state machine on SQLite and on PostgreSQL."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import text

from alnnode.analyse.jobs import Jobs
from alnnode.db import schema
from alnnode.db.engine import for_writing
from alnnode.db.rows import NewInstance, Recorded, ResultRow, SeriesFacts
from alnnode.db.schema import MIGRATIONS
from alnnode.db.tables import Base, DeliveryState
from alnnode.deliver.commitments import Commitments
from alnnode.errors import JobConflict, JobNotFound
from alnnode.records import JobState, ObjectRole
from alnnode.settings import Completion

START = datetime(2026, 1, 1, tzinfo=UTC)
LEASE = timedelta(minutes=1)
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
def jobs(engine) -> Jobs:
    return Jobs(engine)


def receive(jobs, numbers=range(3), second=0.0, **kwargs):
    return jobs.record_instances([instance(n, second=second, **kwargs) for n in numbers])


def ready(jobs, second=60.0) -> str:
    (job_id,) = jobs.complete_due(RULES, everything, at(second))
    return job_id


def claim(jobs, job_id, second=61.0, bundle="b", settings="s"):
    return jobs.claim(job_id, LEASE, 3, at(second), bundle_digest=bundle, settings_digest=settings)


def finish(jobs, job_id, second=61.0, results=None, destinations=None, **digests):
    taken = claim(jobs, job_id, second, **digests)
    assert jobs.analysed(job_id, taken.attempt, results or REPORT, destinations or {}, now=at(second))
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
    jobs = Jobs(engine)
    assert jobs.due_deliveries(at(61)) == ("d",)
    taken = jobs.claim_delivery("d", timedelta(minutes=5), at(61))
    assert [file.sop_instance_uid for file in taken.files] == ["2.25.1"]
    assert jobs.delivered("d", at(62))
    assert jobs.get("j").state is JobState.DELIVERED
    assert receive(jobs, [2], second=70) == (Recorded.NEW,)
    assert jobs.list()[0].revision == 2


def test_a_quiet_series_goes_all_the_way(jobs) -> None:
    assert receive(jobs) == (Recorded.NEW,) * 3
    assert jobs.complete_due(RULES, everything, at(59.9)) == ()
    job_id = ready(jobs)
    taken = claim(jobs, job_id)
    assert taken.paths == ("objects/1.2.3.0", "objects/1.2.3.1", "objects/1.2.3.2")
    assert (taken.revision, taken.attempt, taken.predecessor, taken.created) == (1, 1, None, START)
    assert claim(jobs, job_id) is None
    assert jobs.analysed(job_id, 1, REPORT, {"pacs": BOTH, "archive": {"sr"}}, now=at(70))
    by_name = {d.destination: d.delivery_id for d in jobs.get(job_id).deliveries}
    assert set(jobs.due_deliveries(at(70))) == set(by_name.values())
    assert [f.position for f in jobs.claim_delivery(by_name["pacs"], LEASE, at(70)).files] == [0, 1]
    assert [f.position for f in jobs.claim_delivery(by_name["archive"], LEASE, at(70)).files] == [0]
    assert jobs.delivered(by_name["pacs"], at(71))
    assert jobs.get(job_id).state is JobState.ANALYSED
    assert jobs.delivered(by_name["archive"], at(72))
    assert (jobs.get(job_id).state, jobs.get(job_id).finished_at) == (JobState.DELIVERED, at(72))
    assert not jobs.delivered(by_name["archive"], at(73))


def test_a_study_that_is_sent_twice_changes_nothing(jobs) -> None:
    receive(jobs)
    job_id = ready(jobs)
    finish(jobs, job_id)
    before = jobs.list()
    assert receive(jobs, second=500) == (Recorded.SAME,) * 3
    assert jobs.list() == before
    assert jobs.complete_due(RULES, everything, at(9999)) == ()


def test_other_bytes_under_a_known_uid_are_a_conflict(jobs) -> None:
    receive(jobs)
    assert jobs.record_instances([instance(0, digest="f" * 64)]) == (Recorded.CONFLICT,)
    assert jobs.digest("1.2.3.0") == f"{0:064x}"
    twice = [instance(7, digest="a" * 64), instance(7, digest="a" * 64), instance(7, digest="b" * 64)]
    assert jobs.record_instances(twice) == (Recorded.NEW, Recorded.SAME, Recorded.CONFLICT)


def test_the_announced_number_completes_at_once_and_forbids_the_grace(jobs) -> None:
    receive(jobs, range(2), announced=3)
    jobs.mark_released(["1.2.3"], at(1))
    assert jobs.complete_due(RULES, everything, at(30)) == ()
    receive(jobs, [2], second=31, announced=3)
    assert len(jobs.complete_due(RULES, everything, at(31))) == 1


def test_a_released_association_completes_after_its_grace(jobs) -> None:
    receive(jobs)
    jobs.mark_released(["1.2.3"], at(1))
    receive(jobs, [3], second=2)  # by another association, which is still open
    assert jobs.complete_due(RULES, everything, at(20)) == ()
    jobs.mark_released(["1.2.3"], at(20))
    assert jobs.complete_due(RULES, everything, at(24.9)) == ()
    assert len(jobs.complete_due(RULES, everything, at(25))) == 1


def test_a_series_that_no_route_wants_is_skipped_until_a_person_asks(jobs) -> None:
    receive(jobs)
    assert jobs.complete_due(RULES, lambda facts: f"modality {facts.modality}", at(60)) == ()
    (job,) = jobs.list()
    assert (job.state, job.reason) == (JobState.SKIPPED, "modality CT")
    assert jobs.retry(job.job_id, at(61)) is JobState.READY
    assert jobs.lost(at(61)) == (job.job_id,)


@pytest.mark.parametrize("skipped", [False, True])
def test_a_late_slice_rejoins_a_job_that_nobody_took(jobs, skipped) -> None:
    receive(jobs)
    jobs.complete_due(RULES, lambda _: "no" if skipped else None, at(60))
    receive(jobs, [3], second=65)
    (job,) = jobs.list()
    assert (job.state, job.instances) == (JobState.RECEIVING, 4)
    assert claim(jobs, job.job_id, 66) is None


def test_a_late_slice_opens_a_revision_that_waits_for_and_names_its_predecessor(jobs) -> None:
    receive(jobs)
    first = ready(jobs)
    taken = claim(jobs, first)
    receive(jobs, [3], second=65)
    second = jobs.list()[0]
    assert (second.revision, second.predecessor_id, second.instances) == (2, first, 4)
    assert jobs.get(first).instances == 3
    assert jobs.complete_due(RULES, everything, at(500)) == ()  # the first still runs
    again = claim(jobs, first, 500)
    assert again.input_digest == taken.input_digest  # a late slice never changes what a revision was made of
    jobs.analysed(first, again.attempt, REPORT, {})
    assert jobs.complete_due(RULES, everything, at(501)) == (second.job_id,)
    later = claim(jobs, second.job_id, 502)
    assert later.revision == 2
    assert later.predecessor == ("1.2.840.10008.5.1.4.1.1.7", "2.25.1.0", "2.25.9", "1.2")
    assert len(later.paths) == 4


def test_the_input_digest_does_not_depend_on_the_order_of_arrival(jobs) -> None:
    receive(jobs, [2, 0, 1])
    job_id = ready(jobs)
    one = claim(jobs, job_id).input_digest
    jobs.record_instances([instance(n, series="1.2.4", digest=f"{n:064x}", second=70) for n in (1, 2, 0)])
    assert claim(jobs, ready(jobs, 130), 131).input_digest == one


def test_a_worker_that_dies_gives_its_job_back_until_it_has_died_too_often(jobs) -> None:
    receive(jobs)
    job_id = ready(jobs)
    for attempt, second in ((1, 100), (2, 200), (3, 300)):
        assert claim(jobs, job_id, second).attempt == attempt
        assert claim(jobs, job_id, second + 59) is None
        assert jobs.lost(at(second + 59)) == ()
        assert jobs.lost(at(second + 60)) == (job_id,)
        assert jobs.lost(at(second + 60)) == ()  # given out once
    assert claim(jobs, job_id, 400) is None
    assert (jobs.get(job_id).state, jobs.get(job_id).reason) == (JobState.FAILED, "the analysis ended its worker 3 times")


def test_a_worker_whose_job_was_taken_over_changes_nothing(jobs) -> None:
    receive(jobs)
    job_id = ready(jobs)
    claim(jobs, job_id, 100)
    claim(jobs, job_id, 200)
    assert not jobs.renew(job_id, LEASE, 1, at(201))
    assert not jobs.fail(job_id, 1, "out of memory")
    assert not jobs.postpone(job_id, 1, at(300))
    assert not jobs.analysed(job_id, 1, REPORT, {})
    assert jobs.renew(job_id, LEASE, 2, at(250))
    assert claim(jobs, job_id, 309) is None
    assert jobs.analysed(job_id, 2, REPORT, {})


def test_a_ready_job_is_given_out_again_whenever_its_task_is_not_on_the_queue(jobs) -> None:
    receive(jobs)
    job_id = ready(jobs)
    looks = []

    def queued():
        looks.append(1)
        return {job_id}

    assert not [second for second in range(60, 600) if jobs.lost(at(second), queued=queued)]
    assert len(looks) == 600 - 75, "the queue was looked at before anything could be lost"
    assert [second for second in range(600, 660) if jobs.lost(at(second))] == [600, 615, 630, 645]
    assert claim(jobs, job_id, 661) is not None


def test_many_lost_tasks_are_given_out_once_and_in_the_order_of_their_age(jobs) -> None:
    for number in range(1100):
        jobs.record_instances([instance(0, series=f"1.3.{number}", second=number / 1000)])
    ids = jobs.complete_due(RULES, everything, at(70))
    assert jobs.lost(at(80)) == ()
    by_series = {job.series_uid: job.job_id for job in jobs.list(limit=2000)}
    oldest_first = tuple(by_series[f"1.3.{number}"] for number in range(1100))
    kept = set(oldest_first[100:200])
    assert jobs.lost(at(85), queued=lambda: kept) == (*oldest_first[:100], *oldest_first[200:])
    assert jobs.lost(at(85), queued=lambda: kept) == ()
    assert jobs.lost(at(86)) == oldest_first[100:200]
    assert set(ids) == set(oldest_first)


def test_a_destination_is_woken_by_one_delivery_and_not_again_while_that_is_on_the_queue(jobs) -> None:
    deliveries = []
    for number in range(3):
        jobs.record_instances([instance(0, series=f"1.4.{number}", second=number)])
        job_id = ready(jobs, 100 + number)
        finish(jobs, job_id, 110, destinations={"pacs": BOTH, "archive": BOTH})
        deliveries.append({one.destination: one.delivery_id for one in jobs.get(job_id).deliveries})
    first = deliveries[0]
    assert set(jobs.due_deliveries(at(111))) == set(first.values())
    assert jobs.due_deliveries(at(125)) == ()
    assert jobs.due_deliveries(at(126), queued=lambda: {first["pacs"]}) == (first["archive"],)
    assert jobs.due_deliveries(at(127), queued=lambda: {deliveries[2]["pacs"]}) == ()
    assert jobs.due_deliveries(at(128)) == (first["pacs"],)


def test_a_postponed_job_comes_back_at_its_time(jobs) -> None:
    receive(jobs)
    job_id = ready(jobs)
    claim(jobs, job_id)
    assert jobs.postpone(job_id, 1, at(90))
    assert jobs.lost(at(89)) == ()
    assert jobs.lost(at(90)) == (job_id,)


def test_a_deferred_delivery_waits_and_a_refused_one_fails_the_job_but_not_the_others(jobs) -> None:
    receive(jobs)
    job_id = ready(jobs)
    finish(jobs, job_id, destinations={"down": BOTH, "picky": BOTH, "up": BOTH})
    ids = {d.destination: d.delivery_id for d in jobs.get(job_id).deliveries}
    assert jobs.destination_of(ids["up"]) == "up"
    jobs.due_deliveries(at(61))
    for identifier in ids.values():
        assert jobs.claim_delivery(identifier, LEASE, at(62)).attempt == 1
        assert jobs.claim_delivery(identifier, LEASE, at(63)) is None
    assert jobs.deferred(ids["down"], "connection refused", at(90))
    assert jobs.refused(ids["picky"], "SOP class not supported", at(64))
    assert jobs.delivered(ids["up"], at(65))
    job = jobs.get(job_id)
    assert (job.state, job.reason) == (JobState.FAILED, "destination picky refused: SOP class not supported")
    assert jobs.due_deliveries(at(89)) == ()
    assert jobs.due_deliveries(at(90)) == (ids["down"],)
    assert jobs.claim_delivery(ids["down"], LEASE, at(90)).attempt == 2
    assert jobs.delivered(ids["down"], at(91))
    assert jobs.get(job_id).state is JobState.FAILED
    assert jobs.retry(job_id, at(100)) is JobState.ANALYSED
    assert jobs.due_deliveries(at(100)) == (ids["picky"],)  # nothing is sent twice
    jobs.claim_delivery(ids["picky"], LEASE, at(100))
    jobs.delivered(ids["picky"], at(101))
    assert jobs.get(job_id).state is JobState.DELIVERED


def test_a_delivery_whose_worker_died_is_given_out_again(jobs) -> None:
    receive(jobs)
    job_id = ready(jobs)
    finish(jobs, job_id, destinations={"pacs": BOTH})
    (delivery,) = jobs.due_deliveries(at(61))
    jobs.claim_delivery(delivery, LEASE, at(62))
    assert jobs.due_deliveries(at(121)) == ()
    assert jobs.due_deliveries(at(122)) == (delivery,)
    assert jobs.claim_delivery(delivery, LEASE, at(122)).attempt == 2


def test_not_analysed_is_reported_and_ends_failed(jobs) -> None:
    receive(jobs)
    job_id = ready(jobs)
    claim(jobs, job_id)
    jobs.analysed(job_id, 1, REPORT[:1], {"pacs": BOTH}, "slices are 8 mm apart", now=at(62))
    (delivery,) = jobs.due_deliveries(at(62))
    jobs.claim_delivery(delivery, LEASE, at(62))
    jobs.delivered(delivery, at(63))
    assert (jobs.get(job_id).state, jobs.get(job_id).reason) == (JobState.FAILED, "slices are 8 mm apart")


def test_a_version_that_comes_back_replaces_the_one_in_between(jobs) -> None:
    receive(jobs)
    job_id = ready(jobs)
    finish(jobs, job_id, settings="old")
    for number, (version, revision, predecessor) in enumerate(
        (("new", 2, "2.25.1.0"), ("new", 2, "2.25.1.0"), ("old", 4, "2.25.3.0"))
    ):
        job_id = jobs.anew(job_id, at(100 * (number + 1)))
        assert ready(jobs, 100 * (number + 1) + 1) == job_id
        taken = claim(jobs, job_id, 100 * (number + 1) + 2, settings=version)
        assert (taken.revision, taken.predecessor[1]) == (revision, predecessor)
        results = [result(0, ObjectRole.SR, uid=f"2.25.{number + 2}")]
        assert jobs.analysed(job_id, taken.attempt, results, {}, now=at(100 * (number + 1) + 3))


def test_a_retry_after_results_were_sent_opens_a_revision_that_names_them(jobs) -> None:
    receive(jobs)
    first = ready(jobs)
    claim(jobs, first)
    jobs.analysed(first, 1, REPORT[:1], {}, "slices are 8 mm apart", now=at(62))
    assert jobs.get(first).state is JobState.FAILED
    assert jobs.retry(first, at(64)) is JobState.READY
    newest = jobs.list()[0]
    assert (newest.revision, newest.predecessor_id, newest.state) == (2, first, JobState.READY)
    assert jobs.lost(at(64)) == (newest.job_id,)
    assert jobs.get(first).state is JobState.FAILED, "what was sent stays as it is"
    assert jobs.retry(first, at(65)) is JobState.READY
    assert len(jobs.list()) == 2
    # With the same version it is the same report, with another one the first is its predecessor.
    same = claim(jobs, newest.job_id, 66)
    assert (same.revision, same.created, same.predecessor) == (1, START, None)
    jobs.postpone(newest.job_id, same.attempt, at(67))
    other = claim(jobs, newest.job_id, 68, settings="of another version")
    assert (other.revision, other.created, other.predecessor[1]) == (2, at(64), "2.25.1.0")


def test_a_report_knows_all_objects_that_it_replaces_but_no_rejection_note(jobs) -> None:
    receive(jobs)
    job_id = ready(jobs)
    assert finish(jobs, job_id, settings="a").superseded == ()
    for number, version in enumerate(("b", "b", "c"), start=1):
        job_id = jobs.anew(job_id, at(100 * number))
        ready(jobs, 100 * number + 1)
        mine = [result(0, ObjectRole.SR, f"2.25.7{version}"), result(1, ObjectRole.REJECTION, f"2.25.8{version}")]
        taken = finish(jobs, job_id, 100 * number + 2, mine, settings=version)
        old = [one.sop_instance_uid for one in taken.superseded]
        assert old == ["2.25.1.0", "2.25.1.1", *(["2.25.7b.0"] if version == "c" else [])]
        assert {one.role for one in taken.superseded} <= {ObjectRole.SR, ObjectRole.CAPTURE}


def test_a_retry_does_not_end_the_reception_of_a_later_revision(jobs) -> None:
    receive(jobs)
    first = ready(jobs)
    finish(jobs, first)
    receive(jobs, [3], second=70)
    jobs.retry(first, at(71))
    newest = jobs.list()[0]
    assert (newest.revision, newest.state) == (2, JobState.RECEIVING)


def test_what_is_known_after_the_claim_belongs_to_the_identity_of_the_report(jobs) -> None:
    receive(jobs)
    first = ready(jobs)
    taken = jobs.identify(claim(jobs, first), "input, and no earlier report")
    assert (taken.revision, taken.predecessor, taken.created) == (1, None, START)
    jobs.analysed(first, taken.attempt, REPORT, {}, now=at(62))
    jobs.anew(first, at(100))
    second = ready(jobs, 160)
    again = claim(jobs, second, 161)
    same = jobs.identify(again, "input, and no earlier report")
    assert (same.revision, same.predecessor, same.created) == (1, None, START)
    other = jobs.identify(again, "input, and an earlier report")
    assert (other.input_digest, other.paths) == ("input, and an earlier report", again.paths)
    assert (other.revision, other.predecessor[1], other.created) == (2, "2.25.1.0", at(100))
    # Who lost the job is told so.
    assert claim(jobs, second, 300).attempt == 2
    assert jobs.identify(again, "input") is None


def test_retry_of_a_delivered_job_sends_the_same_objects_again(jobs) -> None:
    receive(jobs)
    job_id = ready(jobs)
    finish(jobs, job_id, destinations={"pacs": BOTH})
    (delivery,) = jobs.due_deliveries(at(61))
    jobs.claim_delivery(delivery, LEASE, at(61))
    jobs.delivered(delivery, at(62))
    assert jobs.retry(job_id, at(63)) is JobState.ANALYSED
    assert jobs.claim_delivery(delivery, LEASE, at(63)).files == tuple(REPORT)


def test_retry_of_an_unknown_job(jobs) -> None:
    with pytest.raises(JobNotFound):
        jobs.retry("0" * 32)
    with pytest.raises(JobNotFound):
        jobs.get("0" * 32)


def test_what_was_purged_comes_back_as_the_same_result(jobs) -> None:
    receive(jobs)
    first = ready(jobs)
    taken = finish(jobs, first, second=61)
    deleted: list[str] = []
    assert jobs.purge(at(61), at(61), deleted.extend) == 0
    assert jobs.purge(at(62), at(0), deleted.extend) == 1
    assert sorted(deleted) == ["objects/1.2.3.0", "objects/1.2.3.1", "objects/1.2.3.2", "outbox/x", "outbox/x"]
    assert jobs.purge(at(62), at(0), deleted.extend) == 0
    with pytest.raises(JobConflict):
        jobs.retry(first)
    assert receive(jobs, second=500) == (Recorded.NEW,) * 3
    again = claim(jobs, ready(jobs, 560), 561)
    assert again.job_id != first
    assert (again.input_digest, again.created, again.revision, again.predecessor) == (taken.input_digest, START, 1, None)


def test_another_model_makes_another_report_that_names_the_first(jobs) -> None:
    receive(jobs)
    finish(jobs, ready(jobs))
    jobs.purge(at(62), at(62), lambda _: None)
    receive(jobs, second=500)
    again = claim(jobs, ready(jobs, 560), 561, bundle="new")
    assert (again.created, again.revision, again.predecessor[1]) == (at(500), 2, "2.25.1.0")


def test_a_series_with_an_open_job_is_not_purged(jobs) -> None:
    receive(jobs)
    finish(jobs, ready(jobs))
    receive(jobs, [3], second=70)
    assert jobs.purge(at(9999), at(9999), lambda _: pytest.fail("nothing may be deleted")) == 0


def test_one_of_many_workers_gets_a_job(jobs) -> None:
    receive(jobs)
    job_id = ready(jobs)
    start = threading.Barrier(8)
    taken = []

    def work() -> None:
        start.wait()
        taken.append(claim(jobs, job_id))

    run_all([work] * 8)
    assert sum(claim is not None for claim in taken) == 1


def test_many_senders_of_one_series_make_one_job(jobs) -> None:
    start = threading.Barrier(4)

    def send(offset):
        def work() -> None:
            start.wait()
            for number in range(offset, 40, 2):  # each slice comes twice
                receive(jobs, [number])

        return work

    run_all([send(0), send(1), send(0), send(1)])
    (job,) = jobs.list()
    assert (job.revision, job.instances) == (1, 40)


def test_the_last_two_deliveries_of_a_job_can_end_at_the_same_moment(jobs) -> None:
    receive(jobs)
    job_id = ready(jobs)
    finish(jobs, job_id, destinations={f"d{n}": BOTH for n in range(6)})
    ids = jobs.due_deliveries(at(61))
    start = threading.Barrier(6)

    def end(identifier):
        def work() -> None:
            start.wait()
            jobs.delivered(identifier)

        return work

    run_all([end(identifier) for identifier in ids])
    assert jobs.get(job_id).state is JobState.DELIVERED
    assert {d.state for d in jobs.get(job_id).deliveries} == {DeliveryState.SENT}


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


def test_a_job_ends_when_the_last_destination_has_committed(jobs, engine) -> None:
    receive(jobs)
    job = ready(jobs)
    finish(jobs, job, destinations={"archive": ["sr"], "pacs": ["sr"]})
    archive, pacs = (delivery.delivery_id for delivery in jobs.get(job).deliveries)
    commitments = Commitments(engine)
    assert jobs.claim_delivery(pacs, LEASE, at(62)).sent is False
    (uid,) = (row.sop_instance_uid for row in jobs.results(job) if row.role is ObjectRole.SR)
    assert commitments.sent(pacs, [uid], at(62))
    assert jobs.delivered(archive, at(63))
    assert jobs.get(job).state is JobState.ANALYSED
    assert jobs.purge(at(9000), at(9000), lambda _: None) == 0
    question = jobs.claim_delivery(pacs, LEASE, at(64))
    assert (question.sent, [file.sop_instance_uid for file in question.files]) == (True, [uid])
    commitments.ask(pacs, "2.25.99", at(64))
    assert commitments.answered("2.25.99", {uid}, {}, at(64), at(65))
    assert not commitments.asked(pacs, at(99)), "the answer was faster"
    assert jobs.get(job).state is JobState.DELIVERED
    assert jobs.purge(at(9000), at(9000), lambda _: None) == 1
