"""The command: its help, its exit codes, its one-line errors."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from alnnode import __version__
from alnnode.cli import check, job_commands
from alnnode.cli.app import COMMANDS as REGISTERED
from alnnode.cli.app import app
from alnnode.db.rows import JobStatus
from alnnode.records import JobState

COMMANDS = (
    "serve",
    "web",
    "token",
    "listen",
    "work",
    "migrate",
    "analyse",
    "phantom",
    "check",
    "jobs",
    "retry",
    "notify",
    "backfill",
    "backup",
    "restore",
    "support-bundle",
    "advisories",
    "demo",
)


def alnnode(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "alnnode", *args], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_the_help_shows_what_stands_in_brackets() -> None:
    assert "[[web.tokens]]" in CliRunner().invoke(app, ["token", "--help"]).output


def test_the_overview_shows_what_each_command_does_in_full() -> None:
    overview = CliRunner().invoke(app, ["--help"]).output
    assert "..." not in overview.split("Commands:")[1]
    assert overview.index("serve") < overview.index("demo")


# What Rich takes for markup: a style that there is not, the end of one that was not begun, a style that there is.
TEXTS = ("add a [[destinations]] table", "raise [analysis] time_limit", "a reason with [/x]", "a [bold]reason[/bold]")


@pytest.mark.parametrize("text", TEXTS)
def test_check_shows_findings_and_advice_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(check, "run", lambda *_: [check.Result(text, False, text, text)])
    done = CliRunner().invoke(app, ["check"], env={"COLUMNS": "200"})
    assert done.exit_code == 1
    assert done.output.count(text) == 3


def test_a_narrow_terminal_cuts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = "/very/long/" + "path/" * 20
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(check, "run", lambda *_: [check.Result("disk", True, path)])
    output = CliRunner().invoke(app, ["check"], env={"COLUMNS": "60"}).output
    assert "…" not in output
    assert "".join(output.split()).count("path/") == 20


@pytest.mark.parametrize("text", TEXTS)
def test_jobs_shows_a_reason_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    now = datetime.now(UTC)
    job = JobStatus("j", "1.2", "1.2.3", 1, None, JobState.FAILED, text, 3, 40, 0, now, now, now, None, ())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(job_commands, "open_jobs", lambda _: SimpleNamespace(list=lambda limit: [job][:limit]))
    done = CliRunner().invoke(app, ["jobs"], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    assert text in done.output


def test_readme_names_every_command() -> None:
    text = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    assert not [command for command in COMMANDS if f"alnnode {command}" not in text]
    registered = [info.callback for info in app.registered_commands]
    assert registered == list(REGISTERED)
    assert {command.__name__.replace("_", "-") for command in registered} == set(COMMANDS)


def test_version_is_printed() -> None:
    assert CliRunner().invoke(app, ["--version"]).output.strip() == f"alnnode {__version__}"


def test_settings_error_is_exit_code_3_and_names_the_key(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[listener]\nprot = 104\n", encoding="utf-8")
    done = alnnode("jobs", cwd=tmp_path)
    assert done.returncode == 3
    assert "listener.prot" in done.stderr
    assert "Traceback" not in done.stderr


def test_unknown_job_is_exit_code_1(tmp_path: Path) -> None:
    assert alnnode("migrate", cwd=tmp_path).returncode == 0
    done = alnnode("retry", "no-such-job", cwd=tmp_path)
    assert done.returncode == 1
    assert "alnnode jobs" in done.stderr


def test_folder_without_ct_is_exit_code_4(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("not DICOM", encoding="utf-8")
    done = alnnode("analyse", "in", "--out", "out", cwd=tmp_path)
    assert done.returncode == 4
    assert "no CT series" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("module", ["alnnode.cli.app", "alnnode.node.supervisor", "alnnode.receive.scp", "alnnode.node.sweep"])
def test_the_command_line_and_the_listener_do_not_load_torch(tmp_path: Path, module: str) -> None:
    code = f"import sys, {module}; print('torch' in sys.modules or 'highdicom' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"
