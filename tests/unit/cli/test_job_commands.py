"""`alnnode jobs` and `alnnode retry` on a real database: what they list, which ids they take, and what they say without a node."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from job_rows import REASON, add_job, create_database
from sqlalchemy import update
from typer.testing import CliRunner

from alnnode.analyse.jobs import Jobs
from alnnode.cli.app import app, main
from alnnode.db import engine as engines
from alnnode.db.tables import Job
from alnnode.process import heartbeat
from alnnode.records import JobState
from alnnode.settings import Node, Settings

NOW = datetime.now(UTC)
FAILED = ("aaaa0000" + "1" * 24, "aaaa0000" + "2" * 24)  # alike in their first eight characters
OTHERS = ("bbbb" + "3" * 28, "cccc" + "4" * 28)


def command(*args: str):
    return CliRunner().invoke(app, args, env={"COLUMNS": "80"})


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    """A node with two FAILED jobs, one DELIVERED and one RECEIVING, of which one is two days old."""
    monkeypatch.chdir(tmp_path)
    settings = Settings(node=Node(data_dir=tmp_path / "data"))
    (tmp_path / "config.toml").write_text(f'[node]\ndata_dir = "{tmp_path / "data"}"\n')
    database = create_database(settings)
    states = (JobState.FAILED, JobState.FAILED, JobState.DELIVERED, JobState.RECEIVING)
    for number, (job_id, state) in enumerate(zip((*FAILED, *OTHERS), states, strict=True)):
        add_job(database, job_id, state, NOW - timedelta(days=2 if number == 1 else 0, minutes=number))
    return Jobs(database)


@pytest.mark.parametrize("words", [["jobs"], ["jobs", "--json"], ["retry", "abc"], ["retry", "--failed"]])
def test_before_the_first_start_the_command_says_which_settings_it_used_and_what_to_do(
    tmp_path, monkeypatch, capfd, words
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["alnnode", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capfd.readouterr().err
    assert ended.value.code == 1
    assert "no node has run with these settings (the defaults, because there is no config.toml here)" in said
    assert "--config" in said
    assert "Traceback" not in said
    assert "uncaught" not in said
    assert list(tmp_path.iterdir()) == [], "a command that only looks must not create a database"


def test_each_id_that_the_list_shows_at_80_columns_is_one_that_retry_takes(node) -> None:
    listed = command("jobs").output
    assert "…" not in listed
    words = [line.split()[0] for line in listed.splitlines() if line.split()[1] in {"FAILED", "DELIVERED", "RECEIVING"}]
    assert words == [FAILED[0][:9], OTHERS[0][:9], OTHERS[1][:9], FAILED[1][:9]]
    assert listed.count(REASON) == 2
    done = command("retry", *words[:2])
    assert done.exit_code == 0, done.output
    assert node.get(FAILED[0]).state is JobState.READY


def test_jobs_are_selected_by_state_and_age(node) -> None:
    def ids(*words: str) -> list[str]:
        return [job["job_id"] for job in json.loads(command("jobs", "--json", *words).output)]

    assert ids("--state", "failed") == list(FAILED)
    assert ids("--state", "FAILED", "--since", "24h") == [FAILED[0]]
    assert ids("--since", (NOW - timedelta(days=3)).strftime("%Y-%m-%d"), "--limit", "9") == [FAILED[0], *OTHERS, FAILED[1]]
    assert command("jobs", "--state", "SKIPPED").stderr.strip() == "No such job."
    for words in (["--state", "BROKEN"], ["--since", "yesterday"], ["--since", "999999d"]):
        done = command("jobs", *words)
        assert done.exit_code == 2
        assert "states are RECEIVING" in done.output or "90m, 24h, 7d" in done.output


def test_retry_failed_retries_those_of_the_period_and_no_other(node) -> None:
    done = command("retry", "--failed", "--since", "1d")
    assert done.exit_code == 0
    assert [node.get(job).state for job in (*FAILED, *OTHERS)] == ["READY", "FAILED", "DELIVERED", "RECEIVING"]
    assert command("retry", "--failed").exit_code == 0
    assert node.get(FAILED[1]).state is JobState.READY
    assert command("retry", "--failed").output.strip() == "No such job has failed."


def test_retry_names_each_word_that_is_no_job_and_retries_the_others(node) -> None:
    done = command("retry", "aaaa0000", "dddd", FAILED[1])
    assert done.exit_code == 1
    assert f"Several job ids begin with aaaa0000; give more characters: {', '.join(FAILED)}" in done.stderr
    assert "There is no job dddd" in done.stderr
    assert [node.get(job).state for job in FAILED] == ["FAILED", "READY"]
    for words in ([], ["x", "--failed"], ["x", "--since", "1d"]):
        assert command("retry", *words).exit_code == 2


def test_a_job_whose_files_were_deleted_does_not_stop_the_retry_of_the_others(node, tmp_path) -> None:
    database = engines.create(f"sqlite:///{tmp_path}/data/alnnode.db")
    with engines.for_writing(database).begin() as connection:
        connection.execute(update(Job).where(Job.job_id == FAILED[0]).values(purged_at=NOW))
    done = command("retry", "--failed")
    assert done.exit_code == 1
    assert f"{FAILED[0]}: not retried: the files of this job were deleted; send the series again" in done.stderr
    assert node.get(FAILED[1]).state is JobState.READY


def test_retry_says_whether_a_node_runs(node, tmp_path) -> None:
    assert "No node runs with these settings" in command("retry", FAILED[0]).stderr
    heartbeat.beat(tmp_path / "data", "analyse")
    assert "within a few seconds" in command("retry", FAILED[0]).stdout
