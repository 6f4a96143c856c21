"""A supervised process: it reports that it is ready, is restarted, and is stopped with its children."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alnnode.process.supervised import SupervisedProcess

REPORT = "from alnnode.process.supervised import report_ready; report_ready();"


def python(code: str) -> SupervisedProcess:
    return SupervisedProcess("test", [sys.executable, "-c", code], os.environ)


def wait_for(condition, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_is_ready_when_it_says_so_and_stops_when_told() -> None:
    subject = python(f"import time; {REPORT} time.sleep(60)")
    subject.start()
    try:
        assert wait_for(subject.is_ready)
    finally:
        subject.terminate()
        subject.wait_or_kill(10)
    assert subject.exit_code() == -signal.SIGTERM
    assert not subject.is_ready()


def test_it_is_not_ready_by_ending() -> None:
    subject = python("raise SystemExit(7)")
    subject.start()
    assert wait_for(lambda: subject.exit_code() is not None)
    assert subject.exit_code() == 7
    assert not subject.is_ready()
    subject.wait_or_kill(1)


def test_it_is_restarted_later_each_time(monkeypatch) -> None:
    monkeypatch.setattr("alnnode.process.supervised.FIRST_DELAY", 0.05)
    subject = python(f"import time; {REPORT} time.sleep(60)")
    subject.start()
    pids = []
    try:
        for _ in range(3):
            assert wait_for(subject.is_ready)
            pids.append(subject.pid)
            os.kill(subject.pid, signal.SIGKILL)
            assert wait_for(lambda: subject.pid is None)
            subject.restart_if_died()
            assert subject.pid is None, "the restart comes after a delay"
            assert wait_for(lambda: subject.restart_if_died() or subject.pid is not None)
        assert subject._deaths == 3
    finally:
        subject.terminate()
        subject.wait_or_kill(10)
    assert len(set(pids)) == 3


def test_one_that_could_not_be_started_at_first_is_started_later(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("alnnode.process.supervised.FIRST_DELAY", 0.05)
    program = tmp_path / "program"
    subject = SupervisedProcess("test", [str(program)], os.environ)
    monkeypatch.setattr("alnnode.process.supervised.child.command", lambda _signal, *command: list(command))
    subject.start_or_retry()
    assert subject.pid is None
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o700)
    try:
        assert wait_for(lambda: subject.restart_if_died() or subject.pid is not None)
    finally:
        subject.terminate()
        subject.wait_or_kill(10)


def test_a_stubborn_one_is_killed_with_what_it_started(tmp_path) -> None:
    note = tmp_path / "pid"
    code = (
        "import pathlib, signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"c = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); pathlib.Path({str(note)!r}).write_text(str(c.pid));"
        f"{REPORT} time.sleep(60)"
    )
    subject = python(code)
    subject.start()
    assert wait_for(subject.is_ready)
    subject.terminate()
    subject.wait_or_kill(0.3)
    assert subject.exit_code() == -signal.SIGKILL
    assert wait_for(lambda: not alive(int(note.read_text())))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PR_SET_PDEATHSIG is Linux's")
def test_it_ends_when_the_supervisor_is_killed(tmp_path) -> None:
    code = (
        "import os, sys, time; from alnnode.process.supervised import SupervisedProcess;"
        "p = SupervisedProcess('x', [sys.executable, '-c', 'import time; time.sleep(60)'], os.environ); p.start(); print(p.pid, flush=True); time.sleep(60)"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(supervisor.stdout.readline())
    assert wait_for(lambda: b"alnnode.process.child" not in Path(f"/proc/{pid}/cmdline").read_bytes()), (
        "the child process did not become the program"
    )
    supervisor.kill()
    supervisor.wait()
    supervisor.stdout.close()
    assert wait_for(lambda: not alive(pid))
