"""A series that cannot be analysed ends NOT_ANALYSED, and a study of which no series was analysed gets one report."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text, update
from stages import TERMS, WITH_PACS, Stages

from alnnode.audit.trail import Trail
from alnnode.db import engine as engines
from alnnode.db.engine import for_writing
from alnnode.db.rows import NewInstance, NotAnalysed, ResultRow, SeriesFacts
from alnnode.db.schema import MIGRATIONS
from alnnode.db.tables import Job
from alnnode.node.sweep import Sweep
from alnnode.records import JobState, ObjectRole
from alnnode.retention.file_retention import FileExpiry
from alnnode.settings import Completion, Node, Settings
from alnnode.spool.spool import Spool

START = datetime(2026, 1, 1, tzinfo=UTC)
WHY = NotAnalysed("the slices are 8 mm apart", once_per_study=True)


@pytest.fixture
def stages(engine) -> Stages:
    return Stages(engine)


def receive(stages, series, number=1, second=0.0) -> None:
    uid = f"{series}.{number}"
    facts = SeriesFacts(calling_ae="CT1", modality="CT")
    syntax, moment = "1.2.840.10008.1.2.1", START + timedelta(seconds=second)
    stages.received.record_instances(
        [
            NewInstance(
                "1.2.840.10008.5.1.4.1.1.2", uid, series, "1.2", syntax, f"objects/{uid}", f"{number:064x}", 9, moment, facts
            )
        ]
    )


def claims(stages, second=600.0):
    moment = START + timedelta(seconds=second)
    ids = stages.received.complete_due(Completion(), lambda _: None, moment)
    return {claim.series_uid: claim for claim in (stages.jobs.claim(job_id, TERMS, moment) for job_id in ids)}


def end(stages, claim, why=WHY):
    row = ResultRow(0, ObjectRole.SR, "1.2.3", f"2.25.{int(claim.job_id, 16)}", "2.25.9", "1.2", "1.2.1", "0" * 64, "outbox/x")
    assert stages.jobs.analysed(claim, [row], {"pacs": {"sr"}}, why, START + timedelta(seconds=700))
    return stages.jobs.get(claim.job_id)


def test_a_study_that_was_not_analysed_gets_one_report_from_the_last_of_its_series(stages) -> None:
    for series in ("1.3.1", "1.3.2", "1.3.3"):
        receive(stages, series)
    of = claims(stages)
    first, second = end(stages, of["1.3.1"]), end(stages, of["1.3.2"])
    for job in (first, second):
        assert (job.state, job.reason, job.deliveries, job.results) == (JobState.NOT_ANALYSED, WHY.reason, (), 1)
    last = end(stages, of["1.3.3"])
    assert (last.state, len(last.deliveries)) == (JobState.ANALYSED, 1)
    stages.deliveries.delivered(last.deliveries[0].delivery_id)
    assert stages.jobs.get(last.job_id).state is JobState.NOT_ANALYSED
    receive(stages, "1.3.4", second=800)
    late = end(stages, claims(stages, 1500)["1.3.4"])
    assert (late.state, late.deliveries) == (JobState.NOT_ANALYSED, ()), "the study is reported already"


def skip(stages, claim) -> None:
    """Another series of the study is open when the job fails, and no route selects that series."""
    receive(stages, "1.3.4", second=650)
    assert stages.jobs.fail(claim, "no memory")
    assert stages.decide() == (), "a series is received"
    assert stages.received.complete_due(Completion(), lambda _: "no route", START + timedelta(seconds=1500)) == ()


def refuse(stages, claim) -> None:
    (delivery,) = end(stages, claim, None).deliveries
    stages.deliveries.refused(delivery.delivery_id, "SOP class not supported")


def cancel_delivery(stages, claim) -> None:
    end(stages, claim, None)
    stages.operator.cancel(claim.job_id, "a person")


WAYS_TO_END_WITHOUT_A_REPORT = {
    "failed": lambda stages, claim: stages.jobs.fail(claim, "no memory"),
    "not analysable": lambda stages, claim: stages.jobs.not_analysable(claim, "no header"),
    "cancelled": lambda stages, claim: stages.operator.cancel(claim.job_id, "a person"),
    "cancelled before it was sent": cancel_delivery,
    "refused": refuse,
    "attempts": lambda stages, claim: stages.jobs.claim(claim.job_id, replace(TERMS, max_attempts=1)),
    "skipped": skip,
}


@pytest.mark.parametrize("way", WAYS_TO_END_WITHOUT_A_REPORT)
def test_the_report_that_was_held_back_is_sent_when_the_last_open_series_ends_without_one(stages, way) -> None:
    for series in ("1.3.1", "1.3.2", "1.3.3"):
        receive(stages, series)
    of = claims(stages)
    held = [end(stages, of[series]) for series in ("1.3.1", "1.3.2")]
    assert stages.decide() == (), "a series is open"
    WAYS_TO_END_WITHOUT_A_REPORT[way](stages, of["1.3.3"])
    (sent,) = stages.decide()
    assert stages.decide() == ()
    jobs = [stages.jobs.get(job.job_id) for job in held]
    assert sorted((job.state, len(job.deliveries)) for job in jobs) == [(JobState.ANALYSED, 1), (JobState.NOT_ANALYSED, 0)]
    (delivery,) = stages.jobs.get(sent).deliveries
    stages.deliveries.delivered(delivery.delivery_id)
    assert (stages.jobs.get(sent).state, stages.jobs.get(sent).reason) == (JobState.NOT_ANALYSED, WHY.reason)


def test_a_failure_beside_an_open_or_a_reported_series_sends_nothing(stages) -> None:
    for series in ("1.3.1", "1.3.2", "1.3.3", "1.3.4"):
        receive(stages, series)
    of = claims(stages)
    held = end(stages, of["1.3.1"])
    stages.jobs.fail(of["1.3.2"], "no memory")
    assert stages.decide() == (), "two series are open"
    analysed = end(stages, of["1.3.3"], None)
    stages.jobs.fail(of["1.3.4"], "no memory")
    assert stages.decide() == (), "a series is delivered"
    stages.deliveries.delivered(analysed.deliveries[0].delivery_id)
    assert stages.decide() == (), "a series is analysed"
    assert stages.jobs.get(held.job_id).deliveries == ()


def test_a_series_that_is_still_received_holds_back_the_report_until_it_is_skipped(stages) -> None:
    receive(stages, "1.3.1")
    of = claims(stages)
    receive(stages, "1.3.2", second=650)
    job = end(stages, of["1.3.1"])
    assert (job.state, job.deliveries, stages.decide()) == (JobState.NOT_ANALYSED, (), ())
    stages.received.complete_due(Completion(), lambda _: "no route", START + timedelta(seconds=1500))
    assert stages.decide() == (job.job_id,)


@pytest.mark.parametrize("how", ["a later image", "an operator"])
def test_a_report_that_was_held_back_is_not_sent_when_it_is_outdated(stages, how) -> None:
    for series in ("1.3.1", "1.3.2"):
        receive(stages, series)
    of = claims(stages)
    held = end(stages, of["1.3.1"])
    if how == "an operator":
        stages.operator.retry(held.job_id)
    else:
        receive(stages, "1.3.1", 2, second=800)
    stages.jobs.fail(of["1.3.2"], "no memory")
    assert stages.decide() == (), "the later revision is open"
    (later,) = (job for job in stages.jobs.list() if job.series_uid == "1.3.1" and job.revision == 2)
    if how == "a later image":
        assert claims(stages, 1500).keys() == {"1.3.1"}
    else:
        assert stages.jobs.claim(later.job_id, TERMS)
    stages.operator.cancel(later.job_id, "a person")
    assert stages.decide() == ()
    assert (stages.jobs.get(held.job_id).state, stages.jobs.get(held.job_id).deliveries) == (JobState.NOT_ANALYSED, ())


def test_of_two_series_the_report_that_is_not_outdated_is_sent(stages) -> None:
    for series in ("1.3.1", "1.3.2", "1.3.3"):
        receive(stages, series)
    of = claims(stages)
    held = {series: end(stages, of[series]).job_id for series in ("1.3.1", "1.3.2")}
    receive(stages, "1.3.2", 2, second=800)
    assert stages.jobs.fail(of["1.3.3"], "no memory")
    stages.jobs.fail(claims(stages, 1500)["1.3.2"], "no memory")
    assert stages.decide() == (held["1.3.1"],)


def test_the_files_of_a_report_that_is_held_back_are_kept_until_that_is_decided(stages) -> None:
    for series in ("1.3.1", "1.3.2"):
        receive(stages, series)
    of = claims(stages)
    job, later = end(stages, of["1.3.1"]), START + timedelta(days=9)
    assert stages.delete_files(later, later, later) == 0
    stages.jobs.fail(of["1.3.2"], "no memory", later)
    assert stages.decide(settings=Settings()) == (), "the site has no destination any more"
    assert stages.delete_files(later, START, later) == 1
    assert stages.jobs.get(job.job_id).purged_at == later


def test_the_sweep_sends_the_report_that_was_held_back(stages, tmp_path) -> None:
    class Producer:
        def __init__(self) -> None:
            self.deliveries = []

        def enqueue_analysis(self, job_id) -> None:
            pass

        def enqueue_delivery(self, delivery_id) -> None:
            self.deliveries.append(delivery_id)

    for series in ("1.3.1", "1.3.2"):
        receive(stages, series)
    of = claims(stages)
    held = end(stages, of["1.3.1"])
    stages.jobs.fail(of["1.3.2"], "no memory")
    producer = Producer()
    settings = WITH_PACS.model_copy(update={"node": Node(data_dir=tmp_path)})
    Sweep(settings, stages.engine, Spool(tmp_path / "spool"), producer, Trail(settings)).once()
    assert producer.deliveries == [delivery.delivery_id for delivery in stages.jobs.get(held.job_id).deliveries]
    assert len(producer.deliveries) == 1


def test_series_beside_an_analysed_one_are_not_reported_unless_the_site_wants_it(stages) -> None:
    for series in ("1.3.1", "1.3.2", "1.3.3"):
        receive(stages, series)
    of = claims(stages)
    assert end(stages, of["1.3.1"], None).state is JobState.ANALYSED
    assert end(stages, of["1.3.2"]).state is JobState.NOT_ANALYSED
    assert len(end(stages, of["1.3.3"], replace(WHY, once_per_study=False)).deliveries) == 1


def test_a_revision_replaces_the_delivered_report_of_its_series(stages) -> None:
    receive(stages, "1.3.1")
    job = end(stages, claims(stages)["1.3.1"], None)
    stages.deliveries.delivered(job.deliveries[0].delivery_id)
    receive(stages, "1.3.1", 2, second=800)
    assert len(end(stages, claims(stages, 1500)["1.3.1"]).deliveries) == 1


def test_it_is_deleted_like_a_delivered_job_and_can_be_analysed_again(stages) -> None:
    receive(stages, "1.3.1")
    claim = claims(stages)["1.3.1"]
    assert stages.jobs.not_analysable(claim, WHY.reason, START)
    assert stages.jobs.get(claim.job_id).state is JobState.NOT_ANALYSED
    assert stages.operator.retry(claim.job_id) is JobState.READY
    again = stages.jobs.claim(claim.job_id, TERMS)
    ended = end(stages, again, WHY)
    stages.deliveries.delivered(ended.deliveries[0].delivery_id, START + timedelta(seconds=701))
    newest = START + timedelta(days=1)
    assert stages.operator.retry(claim.job_id) is JobState.READY, "a new revision, because its results were delivered"
    with for_writing(stages.engine).begin() as connection:
        connection.execute(update(Job).values(state=JobState.NOT_ANALYSED, finished_at=START, due_at=None))
    assert stages.files.delete_expired(FileExpiry(delivered_before=newest), newest) == 1


def test_earlier_failures_of_this_kind_become_not_analysed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'old.db'}"
    engine, config = engines.create(url), Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with for_writing(engine).begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0006_unanswered_questions")
        connection.execute(
            text(
                "INSERT INTO series (series_uid, study_uid, calling_ae, modality, body_part, series_description, study_description,"
                " kernel, last_received_at) VALUES ('1.3', '1.2', '', 'CT', '', '', '', '', '2026-01-01')"
            )
        )
        for number, reason in enumerate(("thick", "destination pacs refused: full")):
            connection.execute(
                text(
                    "INSERT INTO jobs (job_id, series_uid, study_uid, revision, state, reason, not_analysed, attempts, enqueues,"
                    f" created_at, content_at) VALUES ('{number}', '1.3', '1.2', {number}, 'FAILED', '{reason}', 'thick', 1, 0,"
                    " '2026-01-01', '2026-01-01')"
                )
            )
        command.upgrade(config, "head")
        states = connection.execute(text("SELECT state FROM jobs ORDER BY job_id")).scalars().all()
    engine.dispose()
    assert states == ["NOT_ANALYSED", "FAILED"]
