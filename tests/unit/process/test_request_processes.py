"""Child processes that answer requests: a request that crashes, hangs or uses too much memory costs only its process."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from listening import wait_for
from processes import alive

from alnnode.errors import ServiceError
from alnnode.process.request_processes import LostProcessError, RequestProcesses

ROOT = Path(__file__).parents[3]


@pytest.fixture
def processes(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
    found = RequestProcesses("request_child", 2)
    yield found
    found.close()


def test_requests_are_answered_by_the_same_process(processes) -> None:
    first = processes.ask([b"pid"])
    assert processes.ask([b"say", b" ", b"x" * 1_000_000]) == b"x" * 1_000_000 + b"!"
    assert processes.ask([b"say "]) == b"!"
    assert processes.ask([b"pid"]) == first


def test_what_a_library_prints_is_no_answer(processes) -> None:
    assert processes.ask([b"print yes"]) == b"yes!"


@pytest.mark.parametrize(("request_", "signum"), [(b"abort", signal.SIGABRT), (b"hang", signal.SIGALRM)])
def test_a_request_that_crashes_or_hangs_ends_only_its_process(processes, request_, signum) -> None:
    first = processes.ask([b"pid"])
    with pytest.raises(LostProcessError) as found:
        processes.ask([request_])
    assert found.value.signal == signum
    assert processes.ask([b"pid"]) != first


def test_memory_is_limited(processes) -> None:
    assert processes.ask([b"memory 2000000000"]) == b"no memory"
    assert processes.ask([b"memory 1000"]) == b"1000!"


def test_a_process_that_something_else_kills_is_no_fault_of_the_request(processes) -> None:
    pid = int(processes.ask([b"pid"]))
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ServiceError, match="check the free memory"):
        processes.ask([b"say x"])
    assert processes.ask([b"say x"]) == b"x!"


def test_a_process_that_ended_because_it_was_idle_is_replaced(processes, monkeypatch) -> None:
    monkeypatch.setenv("REQUEST_CHILD_IDLE", "0.1")
    first = int(processes.ask([b"pid"]))
    wait_for(lambda: not alive(first))
    assert int(processes.ask([b"pid"])) != first


def test_a_module_that_cannot_start_is_an_error_of_the_service() -> None:
    with pytest.raises(ServiceError):
        RequestProcesses("no_such_module", 1).ask([b""])


def test_threads_share_at_most_so_many_processes(processes) -> None:
    pids = set()
    threads = [threading.Thread(target=lambda: pids.add(bytes(processes.ask([b"pid"])))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= len(pids) <= 2


def test_the_processes_end_when_their_parent_is_killed(processes) -> None:
    code = (
        "import sys, time; from alnnode.process.request_processes import RequestProcesses\n"
        "found = RequestProcesses('request_child', 1); print(found.ask([b'pid']).decode(), flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
    wait_for(lambda: not alive(pid))
