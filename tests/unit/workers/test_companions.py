"""Several series in one process while the queue is long: each job ends as it would alone."""

import sys
import threading
from pathlib import Path

import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

from alnnode.records import JobState
from alnnode.task_queue import ANALYSE_TASK
from workers import analysing, companions, tasks

sys.path.insert(0, str(Path(__file__).parent))
from test_tasks import Bench


def task_of(bench):
    app = Celery("test", set_as_current=False)
    tasks.register(app, bench.runtime)
    return app.tasks[ANALYSE_TASK]


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path, series_at_once=4)


def test_a_long_queue_gives_companions_and_half_of_it_is_left_to_other_workers(bench) -> None:
    jobs = [bench.ready_job(f"1.2.3.{number}") for number in range(5)]
    chosen = companions.choose(jobs[0], bench.runtime)
    assert len(chosen) == 2
    assert set(chosen) < set(jobs[1:])
    meeting = threading.Barrier(3, timeout=30)
    analyse = bench.analyst.analyse
    bench.analyst.analyse = lambda *arguments: (meeting.wait(), analyse(*arguments))[1]
    task_of(bench)(jobs[0])
    states = {job: bench.jobs.get(job).state for job in jobs}
    assert {job for job, state in states.items() if state is JobState.ANALYSED} == {jobs[0], *chosen}
    assert {job for job, state in states.items() if state is JobState.READY} == set(jobs) - {jobs[0], *chosen}
    assert not bench.runtime.shared


def test_a_short_queue_and_the_default_give_none(bench, tmp_path) -> None:
    jobs = [bench.ready_job(f"1.2.3.{number}") for number in range(2)]
    assert companions.choose(jobs[0], bench.runtime) == ()
    (tmp_path / "other").mkdir()
    default = Bench(tmp_path / "other")
    jobs = [default.ready_job(f"1.2.3.{number}") for number in range(9)]
    assert companions.choose(jobs[0], default.runtime) == ()


def test_a_retried_job_has_the_process_for_itself(bench) -> None:
    jobs = [bench.ready_job(f"1.2.3.{number}") for number in range(5)]
    bench.analyst.error = MemoryError()
    analysing.analyse(jobs[0], bench.runtime)
    assert bench.jobs.get(jobs[0]).attempts == 1
    assert companions.choose(jobs[0], bench.runtime) == ()
    assert jobs[0] not in companions.choose(jobs[1], bench.runtime)


def test_no_message_claims_a_job_before_its_retry_time(bench) -> None:
    """The messages of jobs that companions claimed for each other are still on the queue while such a job waits."""
    jobs = [bench.ready_job(f"1.2.3.{number}") for number in range(2)]
    bench.analyst.error = MemoryError()
    analysing.analyse(jobs[1], bench.runtime)
    (postponed,) = (job for job in jobs if bench.jobs.get(job).attempts)
    bench.analyst.error = None
    for _ in range(2):
        analysing.analyse(postponed, bench.runtime)
    assert (bench.jobs.get(postponed).state, bench.jobs.get(postponed).attempts) == (JobState.READY, 1)
    assert {bench.jobs.get(job).state for job in jobs} == {JobState.READY, JobState.ANALYSED}


def test_a_process_that_is_shared_claims_no_retried_job(bench) -> None:
    retried, other = (bench.ready_job(f"1.2.3.{number}") for number in range(2))
    bench.analyst.error = MemoryError()
    analysing.analyse(retried, bench.runtime)
    bench.operator.retry(retried)
    bench.analyst.error, bench.runtime.shared = None, True
    analysing.analyse(other, bench.runtime)
    analysing.analyse(other, bench.runtime)
    assert [bench.jobs.get(job).state for job in (retried, other)] == [JobState.READY, JobState.ANALYSED]
    bench.runtime.shared = False
    analysing.analyse(retried, bench.runtime)
    assert bench.jobs.get(retried).state is JobState.ANALYSED


def test_a_time_limit_that_was_shared_is_no_reason_to_fail(bench) -> None:
    job = bench.ready_job()
    bench.analyst.error = SoftTimeLimitExceeded()
    bench.runtime.shared = True
    analysing.analyse(job, bench.runtime)
    assert bench.jobs.get(job).state is JobState.READY
    bench.operator.retry(job)
    bench.runtime.shared = False
    analysing.analyse(job, bench.runtime)
    assert bench.jobs.get(job).state is JobState.FAILED


def test_companions_that_outlast_the_time_limit_end_with_their_process(bench) -> None:
    for number in range(5):
        bench.ready_job(f"1.2.3.{number}")
    (first, *_) = bench.jobs.first_attempts(5)
    with pytest.raises(SystemExit), companions.of(first, bench.runtime, lambda _: None):
        raise SoftTimeLimitExceeded


def test_a_device_that_runs_out_of_memory_gives_the_report_another_identity(bench) -> None:
    job, analyse = bench.ready_job(), bench.analyst.analyse

    def runs_out(*arguments):
        bench.analyst.arithmetic = "pencil, batch 4"
        return analyse(*arguments)

    bench.analyst.analyse = runs_out
    analysing.analyse(job, bench.runtime)
    assert bench.jobs.get(job).state is JobState.ANALYSED
    first, second = bench.analyst.contexts
    assert first.input_digest != second.input_digest
