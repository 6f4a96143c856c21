"""What deploy/ promises agrees with the code."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from alnnode.cli import app
from alnnode.settings import load

DEPLOY = Path(__file__).parents[2] / "deploy"
COMMANDS = {info.callback.__name__ for info in app.registered_commands if info.callback}


def test_the_compose_settings_load(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (DEPLOY / "secrets.env.example").read_text(encoding="utf-8").splitlines()
    secrets = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    monkeypatch.setenv("ALNNODE__DATABASE__URL", secrets["ALNNODE__DATABASE__URL"])
    settings = load(DEPLOY / "config.compose.toml")
    assert settings.database_url.startswith("postgresql+psycopg://")
    assert secrets["POSTGRES_PASSWORD"] in settings.database_url


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
    assert ("[worker]" in text) == (name == "worker")
