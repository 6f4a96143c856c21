"""A supervised process: ready when it says so, restarted, stopped with all it started."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alnnode.process.supervised import Part

SAY = "from alnnode.process.supervised import say_ready; say_ready();"


def part(code: str) -> Part:
    return Part("test", [sys.executable, "-c", code], os.environ)


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
    subject = part(f"import time; {SAY} time.sleep(60)")
    subject.start()
    try:
        assert wait_for(subject.is_ready)
    finally:
        subject.terminate()
        subject.wait(10)
    assert subject.ended_with() == -signal.SIGTERM
    assert not subject.is_ready()


def test_it_is_not_ready_by_ending() -> None:
    subject = part("raise SystemExit(7)")
    subject.start()
    assert wait_for(lambda: subject.ended_with() is not None)
    assert subject.ended_with() == 7
    assert not subject.is_ready()
    subject.wait(1)


def test_it_is_restarted_later_each_time(monkeypatch) -> None:
    monkeypatch.setattr("alnnode.process.supervised.FIRST_DELAY", 0.05)
    subject = part(f"import time; {SAY} time.sleep(60)")
    subject.start()
    pids = []
    try:
        for _ in range(3):
            assert wait_for(subject.is_ready)
            pids.append(subject.pid)
            os.kill(subject.pid, signal.SIGKILL)
            assert wait_for(lambda: subject.pid is None)
            subject.look_after()
            assert subject.pid is None, "not at once"
            assert wait_for(lambda: subject.look_after() or subject.pid is not None)
        assert subject._deaths == 3
    finally:
        subject.terminate()
        subject.wait(10)
    assert len(set(pids)) == 3


def test_a_stubborn_one_is_killed_with_what_it_started(tmp_path) -> None:
    note = tmp_path / "pid"
    code = (
        "import pathlib, signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"c = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); pathlib.Path({str(note)!r}).write_text(str(c.pid));"
        f"{SAY} time.sleep(60)"
    )
    subject = part(code)
    subject.start()
    assert wait_for(subject.is_ready)
    subject.terminate()
    subject.wait(0.3)
    assert subject.ended_with() == -signal.SIGKILL
    assert wait_for(lambda: not alive(int(note.read_text())))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PR_SET_PDEATHSIG is Linux's")
def test_it_ends_when_the_supervisor_is_killed(tmp_path) -> None:
    code = (
        "import os, sys, time; from alnnode.process.supervised import Part;"
        "p = Part('x', [sys.executable, '-c', 'import time; time.sleep(60)'], os.environ); p.start(); print(p.pid, flush=True); time.sleep(60)"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(supervisor.stdout.readline())
    assert wait_for(lambda: b"alnnode.process.child" not in Path(f"/proc/{pid}/cmdline").read_bytes()), (
        "it never became the program"
    )
    supervisor.kill()
    supervisor.wait()
    supervisor.stdout.close()
    assert wait_for(lambda: not alive(pid))
