"""Analysing and delivering on a real database, without Celery's processes: every final state of a job."""

import ctypes
import hashlib
import random
import resource
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from audits import Read
from celery import Celery, signals
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError

from alnnode.analyse.operator_actions import OperatorActions
from alnnode.analyse.study_reports import HeldReports
from alnnode.audit.sender import AuditSender
from alnnode.db import engine, schema
from alnnode.db.engine import for_writing
from alnnode.db.pauses import ANALYSIS, destination_target
from alnnode.db.rows import NewInstance, SeriesFacts
from alnnode.db.tables import Delivery
from alnnode.deliver.in_memory_destination import InMemoryDestination
from alnnode.errors import DeliveryError, DeliveryRefused, DestinationAway, NotAnalysable, ReportError, ServiceError
from alnnode.receive.received_series import ReceivedSeries
from alnnode.records import JobState, ObjectRole, ReportContext, ResultObject
from alnnode.records.comparison import PriorLookup
from alnnode.settings import Analysis, AuditFile, DestinationCStore, Internal, Node, Settings
from alnnode.task_queue import ANALYSE_TASK
from workers import analysing, delivering, outages, tasks
from workers.app import create
from workers.runtime import Runtime

PACS = DestinationCStore(name="pacs", ae_title="PACS", host="127.0.0.1", port=104, retry_attempts=3)
PATIENT = "DOE^JANE"


class ScriptedAnalyst:
    digest = "b" * 64
    arithmetic = "pencil"

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.not_analysed: str | None = None
        self.contexts = []

    def analyse(self, paths, context, progress, marks=()):
        self.contexts.append(context)
        progress("read")
        if self.error is not None:
            raise self.error
        objects = [
            ResultObject(role, "1.2.840.1", f"2.25.{number}", "2.25.100", "1.2.3", "1.2.840.10008.1.2.1", bytes([number]) * 10)
            for number, role in enumerate((ObjectRole.SR, ObjectRole.CAPTURE), start=1)
        ]
        return objects, self.not_analysed


class DeafProducer:
    def enqueue_delivery(self, delivery_id: str) -> None:
        raise ServiceError("the broker does not answer")


class Bench:
    def __init__(self, folder, **analysis) -> None:
        self.analyst, self.pacs = ScriptedAnalyst(), InMemoryDestination("pacs")
        settings = Settings(
            node=Node(data_dir=folder),
            destinations=(PACS,),
            internal=Internal(analysis_attempts=2),
            analysis=Analysis(**analysis),
        )
        schema.migrate(settings.database_url)
        self.runtime = Runtime(settings, self.analyst)
        self.runtime._producer = DeafProducer()
        self.runtime.destination = lambda _: self.pacs
        self.jobs, self.deliveries = self.runtime.tables.jobs, self.runtime.tables.deliveries
        self.database = database = engine.create(settings.database_url)
        self.received, self.operator = ReceivedSeries(database), OperatorActions(database)
        self.held = HeldReports(database, settings)

    def ready_job(self, series: str = "1.2.3.4") -> str:
        instance = NewInstance(
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            sop_instance_uid=f"{series}.5",
            series_uid=series,
            study_uid="1.2.3",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            path="a.dcm",
            sha256="a" * 64,
            size=1,
            received_at=datetime.now(UTC) - timedelta(hours=1),
            facts=SeriesFacts(modality="CT", announced=1),
        )
        self.received.record_instances([instance])
        (job,) = self.received.complete_due(self.runtime.settings.completion, lambda _: None)
        return job

    def analysed_job(self, series: str = "1.2.3.4") -> tuple[str, str]:
        job = self.ready_job(series)
        analysing.analyse(job, self.runtime)
        return job, self.jobs.get(job).deliveries[0].delivery_id

    def successor(self) -> Runtime:
        """Return the runtime of another worker that delivers to the same destination."""
        other = Runtime(self.runtime.settings, self.analyst)
        other.destination = lambda _: self.pacs
        return other


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_a_job_becomes_results_and_deliveries_even_without_a_broker(bench) -> None:
    job, _ = bench.analysed_job()
    status = bench.jobs.get(job)
    assert (status.state, status.results, len(status.deliveries)) == (JobState.ANALYSED, 2, 1)
    (context,) = bench.analyst.contexts
    assert (context.station, context.revision, context.predecessor) == ("ALNNODE", 1, None)
    assert context.settings_digest == bench.runtime.settings.result_digest
    for row in bench.jobs.results(job):
        assert hashlib.sha256(bench.runtime.spool.path(row.path).read_bytes()).hexdigest() == row.sha256


def test_another_device_or_another_prior_gives_a_revision_that_names_the_report_before(bench, monkeypatch) -> None:
    def again() -> ReportContext:
        bench.operator.reanalyse(bench.jobs.list()[0].job_id)
        (job,) = bench.received.complete_due(bench.runtime.settings.completion, lambda _: None)
        analysing.analyse(job, bench.runtime)
        return bench.analyst.contexts[-1]

    bench.analysed_job()
    (first,) = bench.analyst.contexts
    assert again() == first, "another report for the same input"
    bench.analyst.arithmetic = "ink"
    ink = again()
    assert (ink.revision, ink.predecessor[1]) == (3, "2.25.1")
    monkeypatch.setattr(analysing.lookup, "find_prior", lambda *_: PriorLookup(trouble="archive vna could not be asked"))
    compared = again()
    assert (compared.revision, compared.predecessor[1]) == (4, "2.25.1")
    assert len({one.input_digest for one in (first, ink, compared)}) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_that_an_analysis_frees_leaves_the_process(bench, monkeypatch) -> None:
    """glibc keeps freed blocks of up to 32 MiB between blocks that are in use, once it has freed one of that size."""
    libc, analyse, used, resident = ctypes.CDLL(None), bench.analyst.analyse, [], []
    libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

    def filled(size: int) -> int:
        block = libc.malloc(size)
        ctypes.memset(block, 1, size)
        return block

    def measure() -> None:
        resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize())

    def greedy(*arguments, **options):
        libc.free(filled(30 << 20))
        blocks = [filled(10 << 20) for _ in range(20)]
        used.extend(blocks[1::2])
        for block in blocks[::2]:
            libc.free(block)
        measure()
        return analyse(*arguments, **options)

    monkeypatch.setattr(bench.analyst, "analyse", greedy)
    job = bench.ready_job()
    analysing.analyse(job, bench.runtime)
    measure()
    for block in used:
        libc.free(block)
    assert bench.jobs.get(job).state is JobState.ANALYSED
    assert resident[0] - resident[1] > 80 << 20


def test_a_duplicate_task_does_nothing(bench) -> None:
    job, _ = bench.analysed_job()
    analysing.analyse(job, bench.runtime)
    assert len(bench.analyst.contexts) == 1


@pytest.mark.parametrize(
    ("error", "reason", "state"),
    [
        (NotAnalysable("these are localizer images"), "these are localizer images", JobState.NOT_ANALYSED),
        (ReportError("the report could not be built"), "the report could not be built", JobState.FAILED),
        (SoftTimeLimitExceeded(), "longer than 810 s", JobState.FAILED),
    ],
)
def test_what_would_come_again_ends_the_job_with_a_reason(bench, error, reason, state) -> None:
    bench.analyst.error = error
    job = bench.ready_job()
    analysing.analyse(job, bench.runtime)
    status = bench.jobs.get(job)
    assert status.state is state
    assert reason in status.reason
    assert bench.runtime.suspect is isinstance(error, SoftTimeLimitExceeded)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "not enough memory"),
        (type("OutOfMemoryError", (RuntimeError,), {})(f"CUDA {PATIENT}"), "not enough memory"),
        (KeyError(PATIENT), "internal error (KeyError)"),
        (ImportError(PATIENT), "internal error (ImportError)"),
    ],
)
def test_what_may_pass_is_tried_again_elsewhere_before_it_fails_free_of_patient_data(
    bench, caplog, capsys, error, reason
) -> None:
    bench.analyst.error = error
    job = bench.ready_job()
    task = Celery("test", set_as_current=False)
    tasks.register(task, bench.runtime)
    task.tasks[ANALYSE_TASK](job)
    assert bench.jobs.get(job).state is JobState.READY
    with pytest.raises(SystemExit):
        task.tasks[ANALYSE_TASK](job)
    assert bench.jobs.get(job).attempts == 1, "the same process tried again"
    bench.runtime.suspect = False
    bench.operator.retry(job)
    task.tasks[ANALYSE_TASK](job)
    status = bench.jobs.get(job)
    assert status.state is JobState.FAILED
    assert reason in status.reason
    said = capsys.readouterr()
    assert PATIENT not in status.reason + said.out + said.err + caplog.text


def test_a_process_without_memory_for_the_claim_is_replaced_too(bench, monkeypatch) -> None:
    def claim(*_, **__):
        raise MemoryError

    monkeypatch.setattr(bench.jobs, "claim", claim)
    task = Celery("test", set_as_current=False)
    tasks.register(task, bench.runtime)
    task.tasks[ANALYSE_TASK](bench.ready_job())
    assert bench.runtime.suspect


def test_a_task_waits_for_a_database_that_is_away_and_is_not_lost(bench, monkeypatch) -> None:
    claim, away, waits = bench.jobs.claim, [True, True], []

    def trying(*arguments, **more):
        if away:
            away.pop()
            raise OperationalError("", {}, Exception())
        return claim(*arguments, **more)

    monkeypatch.setattr(bench.jobs, "claim", trying)
    monkeypatch.setattr(outages.time, "sleep", waits.append)
    task = Celery("test", set_as_current=False)
    tasks.register(task, bench.runtime)
    job = bench.ready_job()
    task.tasks[ANALYSE_TASK](job)
    assert bench.jobs.get(job).state is JobState.ANALYSED
    assert waits == list(outages.PAUSES[:2])
    away += [True] * 100
    task.tasks[ANALYSE_TASK](job)
    assert waits[2:] == list(outages.PAUSES), "it gives up, and the sweep enqueues it again"
    assert not bench.runtime.suspect


def test_trouble_with_the_spool_is_tried_again_before_it_fails(bench) -> None:
    bench.analyst.error = OSError(5, PATIENT)
    job = bench.ready_job()
    analysing.analyse(job, bench.runtime)
    assert bench.jobs.get(job).state is JobState.READY
    bench.operator.retry(job)
    analysing.analyse(job, bench.runtime)
    assert bench.jobs.get(job).state is JobState.FAILED
    assert "check the disk" in bench.jobs.get(job).reason


def test_trouble_with_the_database_leaves_the_job_to_the_sweep(bench) -> None:
    bench.analyst.error = OperationalError("", {}, Exception())
    job = bench.ready_job()
    analysing.analyse(job, bench.runtime)
    assert bench.jobs.get(job).state is JobState.RUNNING
    assert job in bench.jobs.lost(datetime.now(UTC) + timedelta(minutes=1))


def test_what_cannot_be_analysed_is_reported_and_then_not_analysed(bench) -> None:
    bench.analyst.not_analysed = "slices are 8 mm apart"
    job, delivery = bench.analysed_job()
    assert bench.jobs.get(job).state is JobState.ANALYSED
    delivering.deliver(delivery, bench.runtime)
    assert len(bench.pacs.stored) == 2
    assert (bench.jobs.get(job).state, bench.jobs.get(job).reason) == (JobState.NOT_ANALYSED, "slices are 8 mm apart")


def test_a_study_whose_last_open_series_fails_is_reported_as_not_analysed(bench) -> None:
    first, last = bench.ready_job("1.2.3.4"), bench.ready_job("1.2.3.5")
    bench.analyst.not_analysed = "slices are 8 mm apart"
    analysing.analyse(first, bench.runtime)
    held = bench.jobs.get(first)
    assert (held.state, held.deliveries) == (JobState.NOT_ANALYSED, ())
    bench.analyst.error = ReportError("the report could not be built")
    analysing.analyse(last, bench.runtime)
    assert bench.jobs.get(last).state is JobState.FAILED
    assert bench.held.decide() == (first,)
    (delivery,) = bench.jobs.get(first).deliveries
    delivering.deliver(delivery.delivery_id, bench.runtime)
    assert len(bench.pacs.stored) == 2
    assert (bench.jobs.get(first).state, bench.jobs.get(first).reason) == (JobState.NOT_ANALYSED, "slices are 8 mm apart")


def test_it_is_not_reported_when_the_site_does_not_want_it(tmp_path) -> None:
    bench = Bench(tmp_path, report_not_analysed="off")
    bench.analyst.not_analysed = "slices are 8 mm apart"
    job = bench.ready_job()
    analysing.analyse(job, bench.runtime)
    status = bench.jobs.get(job)
    assert (status.state, status.reason, status.results) == (JobState.NOT_ANALYSED, "slices are 8 mm apart", 0)


def test_a_job_that_was_taken_over_is_left_alone(bench, monkeypatch) -> None:
    monkeypatch.setattr(bench.jobs, "analysed", lambda *_: False)
    job = bench.ready_job()
    analysing.analyse(job, bench.runtime)
    assert bench.jobs.get(job).state is JobState.RUNNING


def test_a_delivery_is_made_once(bench) -> None:
    job, delivery = bench.analysed_job()
    delivering.deliver(delivery, bench.runtime)
    assert bench.pacs.stored == {"2.25.1": b"\x01" * 10, "2.25.2": b"\x02" * 10}
    assert bench.jobs.get(job).state is JobState.DELIVERED
    bench.pacs.stored.clear()
    delivering.deliver(delivery, bench.runtime)
    delivering.deliver("no such delivery", bench.runtime)
    assert bench.pacs.stored == {}


def test_one_message_delivers_all_that_is_due_there_until_the_worker_is_told_to_stop(bench) -> None:
    made = [bench.analysed_job(f"1.2.3.{number}") for number in range(10, 15)]
    create(bench.runtime)
    send = bench.pacs.send

    def told_to_stop(files):
        send(files)
        signals.worker_shutting_down.send(sender="deliver@host", sig="TERM", how="Warm", exitcode=0)

    bench.pacs.send = told_to_stop
    delivering.deliver(made[0][1], bench.runtime)
    states = [bench.jobs.get(job).state for job, _ in made]
    assert states == [JobState.DELIVERED, *[JobState.ANALYSED] * 4], "the rest is left to the next worker"
    bench.runtime.stopping.clear()
    bench.pacs.send = send
    delivering.deliver(made[1][1], bench.runtime)
    assert {bench.jobs.get(job).state for job, _ in made} == {JobState.DELIVERED}


def test_a_slow_destination_keeps_its_delivery(bench) -> None:
    job, delivery = bench.analysed_job()
    bench.runtime.delivery_lease = timedelta(seconds=1)
    send, renewed = bench.pacs.send, []

    def slowly(files):
        first = _lease_until(bench, delivery)
        deadline = time.monotonic() + 20
        while not renewed and time.monotonic() < deadline:
            renewed.extend({_lease_until(bench, delivery)} - {first})
            time.sleep(0.01)
        send(files)

    bench.pacs.send = slowly
    delivering.deliver(delivery, bench.runtime)
    assert renewed, "another worker could send the same objects"
    assert bench.jobs.get(job).state is JobState.DELIVERED
    assert _lease_until(bench, delivery) is None


@pytest.mark.parametrize("commitment", ["off", "wait"])
def test_what_was_sent_is_recorded_when_the_database_comes_back(bench, monkeypatch, commitment) -> None:
    """Without the record, the objects would be sent again when the lease ends."""
    there = PACS.model_copy(update={"commitment": commitment})
    bench.runtime.settings = bench.runtime.settings.model_copy(update={"destinations": (there,)})
    job, delivery = bench.analysed_job()
    owner, name = (bench.deliveries, "delivered") if commitment == "off" else (bench.runtime.tables.commitments, "sent")
    record, away, waits, sent = getattr(owner, name), [True, True], [], []

    def recorded(*arguments):
        if away:
            away.pop()
            raise OperationalError("", {}, Exception())
        return record(*arguments)

    send = bench.pacs.send
    bench.pacs.send = lambda files: (sent.append(len(files)), send(files))
    monkeypatch.setattr(owner, name, recorded)
    monkeypatch.setattr(outages.time, "sleep", waits.append)
    monkeypatch.setattr(delivering, "_request_commitment", lambda *_: bench.runtime.stopping.set())
    tasks._run(delivering.deliver, delivery, bench.runtime)
    assert bench.jobs.get(job).state is (JobState.DELIVERED if commitment == "off" else JobState.ANALYSED)
    assert bench.jobs.get(job).deliveries[0].sent_at
    assert (sent, waits) == ([2], list(outages.PAUSES[:2]))


def test_a_worker_that_was_cut_off_beside_its_successor_changes_nothing(bench) -> None:
    """Both send the same bytes under the same UIDs, as a retry does. The delivery ends once, whichever worker is the last."""
    job, delivery = bench.analysed_job()
    send, attempts = bench.pacs.send, []

    def cut_off(files):
        bench.pacs.send = send
        with for_writing(bench.database).begin() as connection:  # the lease ends, because it was not renewed
            connection.execute(update(Delivery).values(lease_until=datetime.now(UTC), due_at=datetime.now(UTC)))
        delivering.deliver(delivery, bench.successor())
        attempts.append(bench.jobs.get(job).deliveries[0].attempts)
        assert bench.jobs.get(job).state is JobState.DELIVERED
        first = dict(bench.pacs.stored)
        send(files)
        assert bench.pacs.stored == first

    bench.pacs.send = cut_off
    delivering.deliver(delivery, bench.runtime)
    (status,) = bench.jobs.get(job).deliveries
    assert (attempts, status.attempts, bench.jobs.get(job).state) == ([2], 2, JobState.DELIVERED)
    assert bench.deliveries.due(datetime.now(UTC) + timedelta(days=1)) == ()


def _lease_until(bench, delivery: str) -> datetime | None:
    with bench.database.connect() as connection:
        return connection.execute(select(Delivery.lease_until).where(Delivery.delivery_id == delivery)).scalar_one()


def test_one_message_lets_all_go_that_is_due_at_its_destination_until_that_is_away(bench) -> None:
    made = [bench.analysed_job(f"1.2.3.{number}") for number in range(4)]
    bench.pacs.failures = [DeliveryRefused("pacs: not authorised")]
    delivering.deliver(made[3][1], bench.runtime)
    delivered = [JobState.DELIVERED] * 3
    assert [bench.jobs.get(job).state for job, _ in made] == [JobState.FAILED, *delivered]
    for job, _ in made:
        bench.operator.retry(job)
    bench.pacs.failures = [DestinationAway("pacs: no association")] * 2
    delivering.deliver(made[2][1], bench.runtime)
    assert len(bench.pacs.failures) == 1, "a destination that is away was tried for a second delivery"
    bench.deliveries.reschedule("pacs", datetime.now(UTC))
    bench.pacs.failures.clear()
    delivering.deliver(made[2][1], bench.runtime)
    assert [bench.jobs.get(job).state for job, _ in made] == [JobState.DELIVERED, *delivered]


def test_a_refusal_fails_the_job_and_a_retry_delivers_it(bench) -> None:
    bench.pacs.failures = [DeliveryRefused("pacs: not authorised")]
    job, delivery = bench.analysed_job()
    delivering.deliver(delivery, bench.runtime)
    assert bench.jobs.get(job).state is JobState.FAILED
    assert "not authorised" in bench.jobs.get(job).reason
    bench.operator.retry(job)
    delivering.deliver(delivery, bench.runtime)
    assert bench.jobs.get(job).state is JobState.DELIVERED


def test_an_outage_is_waited_for_and_given_up_at_last(bench) -> None:
    bench.pacs.failures = [DeliveryError("pacs: no association")] * 3
    job, delivery = bench.analysed_job()
    for attempt in (1, 2):
        delivering.deliver(delivery, bench.runtime)
        status = bench.jobs.get(job).deliveries[0]
        assert (status.attempts, status.last_error) == (attempt, "pacs: no association")
        assert status.next_attempt_at > datetime.now(UTC)
        delivering.deliver(delivery, bench.runtime)
        assert bench.jobs.get(job).deliveries[0].attempts == attempt, "it was attempted before its time"
        _make_due(bench, delivery)
    delivering.deliver(delivery, bench.runtime)
    assert bench.jobs.get(job).state is JobState.FAILED
    assert "given up after 3 attempts" in bench.jobs.get(job).reason


def _make_due(bench, delivery: str) -> None:
    bench.deliveries.deferred(delivery, "pacs: no association", datetime.now(UTC) - timedelta(seconds=1))


def test_an_altered_outbox_file_is_never_sent(bench) -> None:
    job, delivery = bench.analysed_job()
    path = bench.runtime.spool.path(bench.jobs.results(job)[1].path)
    path.chmod(0o600)
    path.write_bytes(b"other bytes")
    delivering.deliver(delivery, bench.runtime)
    assert bench.pacs.stored == {}
    assert "altered" in bench.jobs.get(job).reason


def test_a_missing_outbox_file_is_said_without_its_path(bench) -> None:
    job, delivery = bench.analysed_job()
    path = bench.runtime.spool.path(bench.jobs.results(job)[0].path)
    path.unlink()
    delivering.deliver(delivery, bench.runtime)
    error = bench.jobs.get(job).deliveries[0].last_error
    assert "cannot be read" in error
    assert str(path) not in error


def test_a_destination_that_left_the_settings_needs_a_person(bench) -> None:
    job, delivery = bench.analysed_job()
    bench.runtime.destination = lambda _: None
    delivering.deliver(delivery, bench.runtime)
    assert "[[destinations]]" in bench.jobs.get(job).reason


def test_the_runtime_knows_its_destinations(tmp_path) -> None:
    runtime = Runtime(Settings(node=Node(data_dir=tmp_path), destinations=(PACS,)), ScriptedAnalyst())
    assert runtime.destination("pacs").name == "pacs"
    assert runtime.destination("gone") is None


def test_the_wait_doubles_with_jitter_up_to_the_ceiling() -> None:
    random.seed(1)
    internal = Internal(retry_first=5, retry_longest=60)
    for attempt, full in [(1, 5), (2, 10), (3, 20), (5, 60), (1000, 60)]:
        waits = [delivering.backoff(internal, attempt) for _ in range(200)]
        assert full / 2 <= min(waits) < max(waits) <= full
        assert len(set(waits)) > 100


def test_the_audit_trail_says_what_went_where_and_how_it_ended(bench, tmp_path) -> None:
    path = tmp_path / "audit.xml"
    bench.runtime.settings = bench.runtime.settings.model_copy(update={"audit": AuditFile(file=path)})
    _, first = bench.analysed_job()
    bench.pacs.failures = [DeliveryError("pacs: out of resources (status 0xA700)"), DeliveryRefused("pacs: refused")]
    for _ in range(2):
        delivering.deliver(first, bench.runtime)
        bench.deliveries.reschedule("pacs", datetime.now(UTC))
    job = bench.jobs.list()[0].job_id
    bench.operator.retry(job)
    (delivery,) = bench.jobs.get(job).deliveries
    delivering.deliver(delivery.delivery_id, bench.runtime)
    bench.runtime.trail.close()
    AuditSender(bench.runtime.settings).close()
    told = [Read(line) for line in path.read_bytes().splitlines()]
    assert [(read.event, read.outcome) for read in told] == [
        ("110102", 0),
        ("110104", 4),
        ("110104", 8),
        ("110102", 0),
        ("110104", 0),
    ]
    assert {read.study for read in told} == {"1.2.3"}
    assert {read.participants[1] for read in told} == {("110152", "PACS", "127.0.0.1")}
    assert told[1].description == "pacs: out of resources (status 0xA700)"
    assert [read.instances for read in told] == [2] * 5


def test_a_paused_analysis_begins_no_job_and_goes_on_after_the_resumption(bench) -> None:
    pauses = bench.runtime.tables.pauses
    pauses.pause(ANALYSIS, "admin")
    job = bench.ready_job()
    analysing.analyse(job, bench.runtime)
    assert bench.jobs.get(job).state is JobState.READY
    assert pauses.resume(ANALYSIS)
    assert not pauses.resume(ANALYSIS)
    assert job in bench.jobs.lost(datetime.now(UTC) + timedelta(minutes=1)), "its task was spent, so the sweep enqueues another"
    analysing.analyse(job, bench.runtime)
    assert bench.jobs.get(job).state is JobState.ANALYSED


def test_nothing_is_sent_to_a_paused_destination(bench) -> None:
    job, delivery = bench.analysed_job()
    pauses, target = bench.runtime.tables.pauses, destination_target("pacs")
    pauses.pause(target, "admin")
    delivering.deliver(delivery, bench.runtime)
    later = datetime.now(UTC) + timedelta(hours=1)
    assert (bench.pacs.stored, bench.deliveries.due(later, paused=["pacs"])) == ({}, ())
    assert bench.jobs.get(job).deliveries[0].attempts == 0
    pauses.pause(target, "somebody else")
    assert pauses.all()[target].by == "admin"
    pauses.resume(target)
    assert bench.deliveries.due(later) == (delivery,)
    delivering.deliver(delivery, bench.runtime)
    assert bench.jobs.get(job).state is JobState.DELIVERED
