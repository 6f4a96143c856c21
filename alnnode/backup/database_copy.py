"""Copy the database: SQLite by its backup API, PostgreSQL by pg_dump and pg_restore."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg.pq import Conninfo
from sqlalchemy import inspect, make_url
from sqlalchemy.exc import SQLAlchemyError

from alnnode.db import engine as engines
from alnnode.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Sequence

SQLITE_FILE, DUMP_FILE = "alnnode.db", "database.dump"
LONGEST = 6 * 3600.0  # seconds of one dump
CONNECT_TIMEOUT = "10"  # seconds for one host of the URL, after which libpq tries the next


class ProgramError(ServiceError):
    """A program of PostgreSQL failed."""


def is_sqlite(url: str) -> bool:
    """Return whether a database URL is one of SQLite."""
    return make_url(url).get_backend_name() == "sqlite"


def sqlite_path(url: str) -> Path:
    """Return the file of an SQLite database."""
    return Path(make_url(url).database or "")


def back_up(url: str, folder: Path) -> Path:
    """Write a consistent copy of the database into a folder; return its file. The node may run.

    Raises:
        ServiceError: the database cannot be read, or pg_dump is missing or failed.
    """
    if not is_sqlite(url):
        file = folder / DUMP_FILE
        _run("pg_dump", url, ["--format=custom", f"--file={file}"])
        return file
    source, file = sqlite_path(url), folder / SQLITE_FILE
    if not source.is_file():
        raise ServiceError(f"there is no database {source}: check [node] data_dir and [database] url")
    try:
        with (
            closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True)) as live,
            closing(sqlite3.connect(file)) as copy,
        ):
            live.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, without -wal
            _check(copy, file)
    except sqlite3.Error as error:
        raise ServiceError(f"the database {source} cannot be copied ({type(error).__name__}): check the disk") from error
    return file


def check(url: str, folder: Path) -> None:
    """Check, without a change, that the database of a backup is intact and that the database server accepts it.

    Raises:
        ServiceError: the copy is damaged, the server does not answer, its database has tables, or pg_restore is missing.
    """
    if is_sqlite(url):
        file = folder / SQLITE_FILE
        try:
            with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as copy:
                _check(copy, file)
        except sqlite3.Error as error:
            raise ServiceError(f"{file} is damaged ({type(error).__name__}): use another backup") from error
        return
    file = folder / DUMP_FILE
    try:
        _run("pg_restore", url, ["--file=/dev/null", f"{file}"])  # reads all of it
    except ProgramError as error:
        raise ServiceError(f"{file} is damaged ({error}): use another backup") from error
    engine = engines.create(url)
    try:
        tables = inspect(engine).get_table_names()
    except SQLAlchemyError as error:
        raise ServiceError(f"the database server does not answer ({type(error).__name__}): check [database] url") from error
    finally:
        engine.dispose()
    if tables:
        raise ServiceError(
            f"the database {make_url(url).database} has tables ({len(tables)}), which --replace cannot set aside: create an empty database "
            "and name it in [database] url"
        )


def restore(url: str, folder: Path) -> None:
    """Write the database of a backup to the place that the settings name. No process may use the database.

    Raises:
        ServiceError: the copy is damaged, or pg_restore is missing or failed.
    """
    if not is_sqlite(url):
        _run(
            "pg_restore",
            url,
            [
                "--exit-on-error",
                "--single-transaction",
                "--no-owner",
                f"--dbname={make_url(url).database}",
                f"{folder / DUMP_FILE}",
            ],
        )
        return
    target = sqlite_path(url)
    draft = target.with_name(f"{target.name}.restored")
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copyfile(folder / SQLITE_FILE, draft)
    try:
        with closing(sqlite3.connect(draft)) as copy:
            _check(copy, draft)
    except sqlite3.Error as error:
        raise ServiceError(f"the database of the backup is damaged ({type(error).__name__}): use another backup") from error
    draft.chmod(0o600)
    draft.replace(target)


def _check(copy: sqlite3.Connection, file: Path) -> None:
    if copy.execute("PRAGMA quick_check").fetchone() != ("ok",):
        raise ServiceError(f"{file} is damaged: use another backup")


def _run(program: str, url: str, arguments: Sequence[str]) -> None:
    """Run a program of PostgreSQL. It gets the address by environment variables, so that no process list shows the password.

    Raises:
        ProgramError: the program failed.
        ServiceError: the program is missing.
    """
    path = shutil.which(program)
    if path is None:
        raise ServiceError(
            f"{program} is not installed: install the client programs of PostgreSQL, or run on the database server: "
            f"{program} {' '.join(arguments)}"
        )
    environment = {**os.environ, **_libpq_environment(url)}
    try:
        done = subprocess.run([path, *arguments], env=environment, capture_output=True, text=True, timeout=LONGEST, check=False)
    except subprocess.TimeoutExpired as error:
        raise ProgramError(f"{program} took longer than {LONGEST / 3600:.0f} hours") from error
    if done.returncode:
        reason = next((line for line in done.stderr.splitlines() if line.strip()), f"exit code {done.returncode}")
        raise ProgramError(f"{program} failed: {reason[:300]}")


def _libpq_environment(url: str) -> dict[str, str]:
    """Return the environment variables by which libpq connects as the node does: also to several hosts, and with the same TLS."""
    parsed = make_url(url)
    _, values = parsed.get_dialect()().create_connect_args(parsed)
    variables = {one.keyword.decode(): one.envvar.decode() for one in Conninfo.get_defaults() if one.envvar}
    known = {variables[name]: str(value) for name, value in values.items() if name in variables}
    return {"PGCONNECT_TIMEOUT": CONNECT_TIMEOUT, **known}
