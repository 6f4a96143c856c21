"""The command: its help, its exit codes, its one-line errors."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from listening import free_port
from typer.testing import CliRunner

from alnnode import __version__
from alnnode.cli import check, reference
from alnnode.cli.app import COMMANDS as REGISTERED
from alnnode.cli.app import app
from alnnode.errors import ServiceError
from alnnode.node.data_dir import make_data_dir
from alnnode.settings import Node, Settings

COMMANDS = (
    "init",
    "serve",
    "web",
    "token",
    "listen",
    "sweep",
    "work",
    "migrate",
    "analyse",
    "phantom",
    "check",
    "jobs",
    "retry",
    "reload",
    "pause",
    "resume",
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


HEAVY = {"pydantic", "sqlalchemy", "pydicom", "pynetdicom", "numpy", "torch", "structlog", "celery"}


def test_the_help_loads_no_library_but_that_of_the_command_line(tmp_path: Path) -> None:
    code = (
        "import sys; from alnnode.cli.app import app; app(['--help'], standalone_mode=False);"
        f"print('LOADED', *({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert "Usage" in done.stdout
    assert done.stdout.splitlines()[-1] == "LOADED"


def write_settings(folder: Path, data_dir: Path | str) -> None:
    """Write settings with free ports."""
    ports = f"[listener]\nport = {free_port()}\n[web]\nport = {free_port()}\n"
    (folder / "config.toml").write_text(f'[node]\ndata_dir = "{data_dir}"\n{ports}', encoding="utf-8")


def test_check_is_green_before_the_first_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_settings(tmp_path, "data")
    monkeypatch.setattr(check, "_device", lambda _: "CPU")  # the import of torch takes seconds
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["check"], env={"COLUMNS": "400"})
    assert done.exit_code == 0, done.output
    assert "none yet: `alnnode serve` creates it" in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"], "the check leaves nothing behind"


@pytest.mark.parametrize("place", ["/proc/alnnode", "file/data"])
def test_a_data_directory_that_cannot_be_created_is_named_as_such(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    folder = tmp_path / place  # an absolute place wins
    result = check.disk(Settings(node=Node(data_dir=folder)))
    assert not result.passed
    assert result.found.startswith(f"cannot create {folder} (")
    assert "correct [node] data_dir" in result.advice
    with pytest.raises(ServiceError, match=f"cannot write into the data directory {folder}"):
        make_data_dir(folder)


def test_readme_names_every_command() -> None:
    text = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    assert not [command for command in COMMANDS if f"alnnode {command}" not in text]
    registered = [info.callback for info in app.registered_commands]
    assert registered == list(REGISTERED)
    assert {command.__name__.replace("_", "-") for command in registered} == set(COMMANDS)


def test_the_reference_is_the_one_that_the_commands_give() -> None:
    text = (Path(__file__).parents[3] / "docs" / "cli.md").read_text(encoding="utf-8")
    assert text == reference.page(), "run: python -m alnnode.cli.reference docs/cli.md"
    for command in COMMANDS:
        shown = CliRunner().invoke(app, [command, "--help"]).output
        options = set(re.findall(r"--[a-z][a-z-]+", shown)) - {"--help"}
        section = text.split(f"## alnnode {command}\n")[1].split("\n## ")[0]
        assert not [option for option in options if option not in section], command


def test_completion_offers_the_commands() -> None:
    words = {
        "_ALNNODE_COMPLETE": "complete_bash",
        "COMP_WORDS": "alnnode ch",
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_ARGS": "alnnode ch",
    }
    done = CliRunner().invoke(app, [], env=words, prog_name="alnnode")
    assert done.output.split() == ["check"]


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


BROKER = {"celery", "kombu", "redis"}
CLIENTS = {"httpx", "joserfc", "smtplib", "psycopg"}


@pytest.mark.parametrize(
    ("module", "later"),
    [
        (
            "alnnode.node.supervisor",
            BROKER | CLIENTS | {"pydicom", "pynetdicom", "numpy", "scipy", "alembic", "alnnode.node.sweep"},
        ),
        ("alnnode.receive.scp", BROKER | CLIENTS | {"alembic", "starlette", "jinja2", "scipy"}),
        ("alnnode.web.server", BROKER | CLIENTS | {"alembic", "scipy", "torch", "highdicom"}),
    ],
)
def test_the_processes_that_a_node_waits_for_import_no_library_that_they_need_later(
    tmp_path: Path, module: str, later: set[str]
) -> None:
    code = f"import sys, {module}; print('LOADED', *({later!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["LOADED"]


@pytest.mark.parametrize("module", ["alnnode.cli.app", "alnnode.node.supervisor", "alnnode.receive.scp", "alnnode.node.sweep"])
def test_the_command_line_and_the_listener_do_not_load_torch(tmp_path: Path, module: str) -> None:
    code = f"import sys, {module}; print('torch' in sys.modules or 'highdicom' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"
