"""Folders and files that a command cannot write are named in one line, before the work begins."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from listening import free_port
from typer.testing import CliRunner

from alnnode.cli.app import app
from alnnode.errors import AlnnodeError


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "400"})
    assert done.exception is None or isinstance(done.exception, AlnnodeError | SystemExit), done.exception
    return done.exit_code, done.output + (str(done.exception) if isinstance(done.exception, AlnnodeError) else "")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "study").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("words", "option"), [(("analyse", "study", "--out"), "--out"), (("phantom",), "OUT")], ids=["analyse", "phantom"]
)
@pytest.mark.parametrize("place", ["file", "/proc/alnnode"])
def test_a_folder_for_results_that_cannot_be_created(words, option, place) -> None:
    code, said = run(*words, place)
    assert code == 1
    assert f"Cannot create the folder {place} (" in said
    assert f"choose another {option}." in said


def test_an_analysis_looks_at_the_rights_first(monkeypatch) -> None:
    monkeypatch.setattr("os.access", lambda _, mode: not mode & os.W_OK)  # root may write anywhere
    code, said = run("analyse", "study", "--out", "out")
    assert (code, "This user may not write into out: choose another --out." in said) == (1, True)


def test_a_backup_into_a_file(folder) -> None:
    (folder / "config.toml").write_text('[node]\ndata_dir = "data"\n', encoding="utf-8")
    code, said = run("backup", "file")
    assert code == 1
    assert f"{folder}/file is no folder: choose a new folder for each backup" in said


@pytest.mark.parametrize("place", ["file", "/proc/alnnode"])
def test_a_restore_into_a_data_directory_that_cannot_be_created(folder, place) -> None:
    (folder / "config.toml").write_text(f'[node]\ndata_dir = "{place}"\n', encoding="utf-8")
    code, said = run("restore", "study")
    assert code == 1
    assert f"cannot write into the data directory {os.path.abspath(place)} (" in said  # noqa: PTH100
    assert "correct [node] data_dir" in said


def test_answers_that_cannot_be_used_name_no_file_that_there_is_not(folder) -> None:
    code, said = run("init", "--no-test", "--port", "99999")
    assert code == 1  # 3 from the command itself: `main` gives the code of the error
    assert "The answers cannot be used, and config.toml was not written:\n  listener.port: " in said
    assert ".new" not in said


def test_the_next_commands_can_be_copied(folder) -> None:
    _, said = run("init", "--no-test", "--out", "my node.toml")
    assert "alnnode check --config 'my node.toml'" in said


def test_no_advisory_is_no_success(folder) -> None:
    assert run("advisories", "study") == (
        1,
        "There is no advisory in study: give JSON files, folders of them, or all.zip of osv.dev.\n",
    )


def test_a_terminal_without_the_check_mark_shows_the_checks(folder) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "iso8859-1"}
    command = [sys.executable, "-m", "alnnode", "init", "--port", str(free_port()), "--web-port", str(free_port())]
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=120)
    assert b"Traceback" not in done.stderr
    assert b"uncaught" not in done.stderr
    assert b"?  disk" in done.stdout


@pytest.mark.parametrize(("pacs", "told"), [("", True), ("127.0.0.1", False)])
def test_a_node_that_no_pacs_reaches_says_so(monkeypatch, pacs, told) -> None:
    monkeypatch.setattr("alnnode.cli.init_commands._own_address", lambda peer: peer or "192.0.2.7")
    _, said = run("init", "--no-test", "--pacs-host", pacs)
    assert ("Only this machine can send to the node: name the network of your PACS" in said) is told
