"""Retention on SQLite and on PostgreSQL: which files are deleted when the disk fills, and when rows are deleted."""

import threading
from dataclasses import replace
from datetime import timedelta

import pytest
from functional.test_jobs import BOTH, REPORT, RULES, at, claim, everything, finish, instance, ready, receive
from listening import wait_for
from sqlalchemy import delete, func, insert, select, text, update
from stages import LEASE, Stages

from alnnode.audit.trail import Trail
from alnnode.db.engine import for_writing
from alnnode.db.progress_tables import JobStepRow
from alnnode.db.tables import CommitmentRequest, Delivery, Instance, Job, MarkOf, Result, Series, Transaction
from alnnode.db.worklist_tables import WorkitemRow
from alnnode.deliver.commitments import Commitments
from alnnode.errors import JobNotFound
from alnnode.node.sweep import Sweep
from alnnode.receive.commitment_requests import CommitmentRequests
from alnnode.records import JobState
from alnnode.retention.file_retention import FileExpiry, FileRetention
from alnnode.settings import Node, Settings
from alnnode.spool.spool import Spool

DAY = 86400.0
TABLES = (Series, Instance, Job, Result, Delivery, Transaction, JobStepRow)


@pytest.fixture
def stages(engine) -> Stages:
    return Stages(engine)


def rows(stages) -> dict[str, int]:
    with stages.engine.connect() as connection:
        counts = {table: connection.execute(select(func.count()).select_from(table)).scalar_one() for table in TABLES}
    return {table.__tablename__: count for table, count in counts.items() if count}


def delivered(stages, series="1.2.3", second=0.0) -> str:
    """Receive, analyse, deliver and commit a series; return its job."""
    stages.received.record_instances([instance(1, series=series, second=second)])
    (job,) = stages.received.complete_due(RULES, everything, at(second + 60))
    finish(stages, job, second + 61, destinations={"pacs": BOTH})
    (delivery,) = stages.deliveries.due(at(second + 61))
    stages.deliveries.claim(delivery, LEASE, at(second + 61))
    uids, transaction = {row.sop_instance_uid for row in REPORT}, f"{series}.99"
    commitments = Commitments(stages.engine)
    commitments.sent(delivery, uids, at(second + 62))
    commitments.ask(delivery, transaction, at(second + 62))
    assert commitments.answered(transaction, uids, {}, timedelta(), at(second + 63))
    with for_writing(stages.engine).begin() as connection:
        connection.execute(insert(JobStepRow).values(job_id=job, step="deliver"))
    assert stages.jobs.get(job).state is JobState.DELIVERED
    return job


# -- rows ------------------------------------------------------------------------------------------------------------


def test_all_rows_of_a_series_are_deleted_a_set_time_after_its_files(stages) -> None:
    job = delivered(stages)
    other = delivered(stages, "1.2.4", second=1000)
    assert stages.rows.delete_expired(at(1000 * DAY)) == 0, "the files are still there"
    assert stages.delete_files(at(500), at(500), at(DAY)) == 1
    before = rows(stages)
    assert stages.rows.delete_expired(at(DAY)) == 0, "the time is not over"
    assert rows(stages) == before
    assert stages.rows.delete_expired(at(DAY + 1)) == 1
    with pytest.raises(JobNotFound):
        stages.jobs.get(job)
    assert stages.jobs.get(other).instances == 1
    assert stages.delete_files(at(5000), at(5000), at(DAY)) == 1
    assert stages.rows.delete_expired(at(DAY + 1)) == 1
    assert rows(stages) == {}


def test_no_revision_is_deleted_while_another_one_of_its_series_has_files(stages) -> None:
    first = delivered(stages)
    stages.delete_files(at(500), at(500), at(DAY))
    receive(stages, second=DAY + 1)
    second = ready(stages, DAY + 100)
    assert stages.jobs.get(second).predecessor_id == first
    assert stages.rows.delete_expired(at(1000 * DAY)) == 0
    taken = claim(stages, second, DAY + 101, bundle="another")
    assert taken.predecessor[1] == "2.25.1.0", "the report names the report that it replaces"
    stages.jobs.analysed(taken, REPORT, {}, now=at(DAY + 102))
    stages.delete_files(at(2 * DAY), at(2 * DAY), at(2 * DAY))
    assert stages.rows.delete_expired(at(2 * DAY + 1)) == 1, "both revisions at once"
    assert rows(stages) == {}


def _refused_and_open(stages) -> tuple[str, str]:
    """Return a job that FAILED because one destination refused its results, and the delivery to another one, which goes on."""
    receive(stages)
    job = ready(stages)
    finish(stages, job, destinations={"away": BOTH, "picky": BOTH})
    away, picky = (delivery.delivery_id for delivery in stages.jobs.get(job).deliveries)
    stages.deliveries.refused(picky, "no", at(62))
    return job, away


def test_a_series_with_an_open_delivery_keeps_its_files_and_rows(stages) -> None:
    _, away = _refused_and_open(stages)
    assert stages.delete_files(at(DAY), at(DAY), at(DAY)) == 0, "a destination still gets these results"
    assert stages.files.free_space(lambda: False, at(DAY)) == 0
    assert stages.deliveries.claim(away, LEASE, at(DAY)).files == tuple(REPORT)
    assert stages.rows.delete_expired(at(1000 * DAY)) == 0
    assert stages.deliveries.delivered(away, at(DAY))
    assert stages.delete_files(at(DAY), at(DAY), at(DAY)) == 1, "the job failed long ago"
    assert stages.rows.delete_expired(at(1000 * DAY)) == 1


def test_files_are_kept_for_a_retry_after_the_last_delivery_failed(stages) -> None:
    job, away = _refused_and_open(stages)
    assert stages.deliveries.refused(away, "given up", at(2 * DAY))
    failed = stages.jobs.get(job)
    assert (failed.state, failed.finished_at) == (JobState.FAILED, at(2 * DAY))
    assert failed.reason == "destination picky refused: no; destination away refused: given up"
    assert stages.delete_files(at(2 * DAY), at(2 * DAY), at(3 * DAY)) == 0
    assert stages.operator.retry(job, at(3 * DAY)) is JobState.ANALYSED
    for delivery in stages.jobs.get(job).deliveries:
        assert stages.deliveries.delivered(delivery.delivery_id, at(3 * DAY))
    assert stages.jobs.get(job).state is JobState.DELIVERED


def test_a_pending_commitment_request_finds_the_same_instances_after_rows_were_deleted(stages) -> None:
    delivered(stages)
    delivered(stages, "1.2.4", second=1000)
    stages.delete_files(at(500), at(500), at(DAY))
    requests = CommitmentRequests(stages.engine)
    uids = ["1.2.3.1", "1.2.4.1"]
    request = requests.receive("CT1", "1.2.9", [("1.2", uid) for uid in uids], timedelta(), at(DAY))
    before = requests.recorded(uids)
    assert set(before) == {"1.2.4.1"}
    assert stages.rows.delete_expired(at(1000 * DAY)) == 1
    assert requests.recorded(uids) == before
    assert requests.claim(request, at(DAY)).objects == (("1.2", "1.2.3.1"), ("1.2", "1.2.4.1"))
    with stages.engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(CommitmentRequest)).scalar_one() == 1


def test_a_workitem_keeps_the_job_that_performs_it_until_it_is_deleted(stages) -> None:
    job = delivered(stages)
    stages.delete_files(at(500), at(500), at(DAY))
    workitem = {
        "workitem_uid": "1.2.8", "state": "COMPLETED", "document": "worklist/a", "service_url": "", "performed_here": True,
        "job_id": job, "cancel_requested": False, "attempts": 0, "created_at": at(0), "changed_at": at(0),
    }  # fmt: skip
    with for_writing(stages.engine).begin() as connection:
        connection.execute(insert(WorkitemRow).values(workitem))
    assert stages.rows.delete_expired(at(1000 * DAY)) == 0
    with for_writing(stages.engine).begin() as connection:
        connection.execute(update(WorkitemRow).values(document=None))
    assert stages.rows.delete_expired(at(1000 * DAY)) == 1
    with stages.engine.connect() as connection:
        assert connection.execute(select(WorkitemRow.workitem_uid, WorkitemRow.job_id)).all() == [("1.2.8", None)]


def test_a_series_that_is_received_after_its_rows_were_deleted_is_new(stages) -> None:
    first = delivered(stages)
    stages.delete_files(at(500), at(500), at(DAY))
    stages.rows.delete_expired(at(1000 * DAY))
    receive(stages, second=1000 * DAY)
    job = ready(stages, 1000 * DAY + 100)
    taken = claim(stages, job, 1000 * DAY + 101)
    assert job != first
    assert (taken.revision, taken.predecessor, taken.created) == (1, None, at(1000 * DAY))


def test_marks_on_images_whose_rows_were_deleted_stay_with_their_own_series(stages) -> None:
    marks = replace(instance(1, series="1.2.5"), refers=("1.2.3",))
    delivered(stages)
    stages.delete_files(at(500), at(500), at(DAY))
    stages.received.record_instances([marks])
    stages.received.complete_due(RULES, everything, at(DAY))
    assert stages.rows.delete_expired(at(1000 * DAY)) == 1
    with stages.engine.connect() as connection:
        assert connection.execute(select(MarkOf.sop_instance_uid, MarkOf.series_uid)).all() == [("1.2.5.1", "1.2.3")]
    receive(stages, second=1000 * DAY)
    job = ready(stages, 1000 * DAY + 100)
    assert claim(stages, job, 1000 * DAY + 101).marks == ("objects/1.2.5.1",)


def test_marks_of_a_later_revision_apply_to_a_series_that_is_received_again(stages) -> None:
    delivered(stages)
    marks = replace(instance(1, series="1.2.5", second=100), refers=("1.2.3",))
    stages.received.record_instances([marks])
    stages.received.complete_due(RULES, everything, at(200))
    (second,) = stages.received.complete_due(RULES, everything, at(300))
    taken = claim(stages, second, 301)
    assert taken.revision == 2
    stages.jobs.fail(taken, "out of memory", at(302))
    with for_writing(stages.engine).begin() as connection:  # as if only the files of the images had been deleted
        connection.execute(delete(Instance).where(Instance.series_uid == "1.2.3"))
        connection.execute(update(Job).where(Job.series_uid == "1.2.3").values(purged_at=at(DAY)))
    assert stages.rows.delete_expired(at(1000 * DAY)) == 1
    receive(stages, second=1000 * DAY)
    job = ready(stages, 1000 * DAY + 100)
    assert claim(stages, job, 1000 * DAY + 101).marks == ("objects/1.2.5.1",)


def test_an_image_that_is_received_while_the_rows_are_deleted_is_recorded(stages, monkeypatch) -> None:
    from alnnode.retention import row_retention

    delivered(stages)
    stages.delete_files(at(500), at(500), at(DAY))
    sender = threading.Thread(target=receive, args=(stages,), kwargs={"second": DAY})
    deleting = row_retention._delete_series

    def slowly(connection, series_uid: str) -> None:
        sender.start()
        if connection.dialect.name == "postgresql":
            wait_for(lambda: _waits_for_a_lock(stages))
        deleting(connection, series_uid)

    monkeypatch.setattr(row_retention, "_delete_series", slowly)
    assert stages.rows.delete_expired(at(1000 * DAY)) == 1
    sender.join(30)
    (job,) = stages.jobs.list()
    assert (job.revision, job.instances, job.state) == (1, 3, JobState.RECEIVING)


def _waits_for_a_lock(stages) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with stages.engine.connect() as connection:
        return connection.execute(text(query)).scalar_one() > 0


@pytest.mark.parametrize(("days", "left"), [(0, 1), (400, 1), (100, 0)])
def test_the_settings_say_how_long_rows_are_kept(stages, database_url, tmp_path, days, left) -> None:
    settings = Settings(node=Node(data_dir=tmp_path), database={"url": database_url}, retention={"keep_rows_days": days})
    delivered(stages)
    stages.delete_files(at(500), at(500), at(DAY))
    sweep = Sweep(settings, stages.engine, Spool(tmp_path / "spool"), object(), Trail(settings))
    sweep.clean(at(DAY) + timedelta(days=300))
    assert len(stages.jobs.list()) == left


def test_one_call_deletes_the_rows_of_a_limited_number_of_series_the_oldest_first(stages, monkeypatch) -> None:
    from alnnode.retention import row_retention

    monkeypatch.setattr(row_retention, "BATCH", 2)
    jobs = [delivered(stages, f"1.2.{20 + number}", second=1000 * number) for number in range(3)]
    for number in range(3):
        stages.delete_files(at(1000 * number + 500), at(0), at(DAY * (3 - number)))
    assert stages.rows.delete_expired(at(1000 * DAY)) == 2
    assert [job.job_id for job in stages.jobs.list()] == [jobs[0]], "its files were deleted last"
    assert stages.rows.delete_expired(at(1000 * DAY)) == 1


# -- files when the disk fills -----------------------------------------------------------------------------------------


def skipped(stages, series: str, second: float, **more) -> None:
    stages.received.record_instances([replace(instance(1, series=series, second=second), **more)])
    assert stages.received.complete_due(RULES, lambda _: "no route", at(second + 60)) == ()


def test_results_that_were_written_and_not_recorded_are_deleted_with_the_series(stages, tmp_path) -> None:
    """A worker writes the results of a series, and the disk is full before the last one; or it is killed."""
    spool = Spool(tmp_path)
    receive(stages)
    job = ready(stages)
    taken = claim(stages, job)
    recorded = [replace(REPORT[0], path=spool.put_result(job, "2.25.1", b"recorded"))]
    left = spool.path(spool.put_result(job, "2.25.2", b"of an earlier attempt"))
    other = spool.path(spool.put_result("another job", "2.25.2", b"of another job"))
    assert stages.jobs.analysed(taken, recorded, {}, now=at(62))
    spool.put_result(job, "2.25.3", b"of a worker that lost the job")
    assert (
        FileRetention(stages.engine, spool, Trail(Settings())).delete_expired(FileExpiry(delivered_before=at(63)), at(63)) == 1
    )
    assert not left.parent.exists()
    assert other.exists()


def test_when_the_disk_fills_skipped_series_are_deleted_before_delivered_ones(stages) -> None:
    delivered(stages, "1.2.10")
    skipped(stages, "1.2.12", 2000)
    skipped(stages, "1.2.11", 1000)
    delivered(stages, "1.2.13", second=3000)
    receive(stages, second=4000)  # waits for a worker
    failing = ready(stages, 4100)
    stages.jobs.fail(claim(stages, failing, 4101), "no", at(4102))
    objects = [path for path in stages.spool.deleted if path.startswith("objects")]
    assert objects == []

    def enough(count: int):
        return lambda: len([path for path in stages.spool.deleted if path.startswith("objects")]) >= count

    assert stages.files.free_space(enough(1), at(9000)) == 1
    assert stages.files.free_space(enough(3), at(9000)) == 2
    assert stages.files.free_space(enough(99), at(9000)) == 1
    objects = [path for path in stages.spool.deleted if path.startswith("objects")]
    assert objects == [f"objects/{series}.1" for series in ("1.2.11", "1.2.12", "1.2.10", "1.2.13")]
    assert stages.jobs.get(failing).purged_at is None, "what failed is kept for its days"


def test_when_the_disk_fills_marks_that_wait_for_their_images_are_kept(stages) -> None:
    skipped(stages, "1.2.12", 0, refers=("1.2.99",))
    assert stages.files.free_space(lambda: False, at(9000)) == 0
    assert stages.delete_files(at(9000), at(9000)) == 1, "their days end"
