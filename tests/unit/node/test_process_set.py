"""The replacement of processes by a reload: each successor starts once, after the process before it."""

import threading
from types import SimpleNamespace

import pytest

from alnnode.node.process_set import ProcessSet


class Worker:
    """A worker that retires when a test says so; a real one ends its analysis first."""

    beside, needed = False, True

    def __init__(self, number: int) -> None:
        self.name, self.number = "worker-analyse", number
        self.pid, self.code, self.starts = None, None, 0

    def start(self) -> None:
        self.pid, self.starts = 1000 + self.number, self.starts + 1

    start_or_retry = start

    def is_ready(self) -> bool:
        return True

    def exit_code(self) -> int | None:
        return self.code

    def retire(self) -> None:
        pass

    def restart_if_died(self) -> None:
        if self.code is not None:
            self.start()

    def wait_or_kill(self, _seconds: float) -> None:
        pass

    def terminate(self) -> None:
        self.code = 0


@pytest.fixture
def reloaded() -> SimpleNamespace:
    """Return a set of one worker that is analysing, after two reloads."""
    workers = [Worker(number) for number in range(3)]
    found = ProcessSet(workers[:1])
    found.start(threading.Event())
    for worker in workers[1:]:
        found.replace([worker], 600.0, threading.Event())
    return SimpleNamespace(workers=workers, processes=found)


def test_two_reloads_during_an_analysis_start_one_worker_with_the_last_configuration(reloaded) -> None:
    first, second, third = reloaded.workers
    reloaded.processes.supervise()
    assert [worker.starts for worker in (first, second, third)] == [1, 0, 0], "the analysis goes on"
    first.code = 0
    for _ in range(3):
        reloaded.processes.supervise()
    assert [worker.starts for worker in (first, second, third)] == [1, 0, 1]


def test_all_processes_are_stopped_after_two_reloads(reloaded) -> None:
    first, _second, third = reloaded.workers
    first.code = 0
    reloaded.processes.supervise()
    reloaded.processes.stop(0.1)
    assert third.code == 0
