"""Migrate a database to the schema of this version. The migrations are part of the installed package; no alembic.ini is needed."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import make_url, text
from sqlalchemy.exc import OperationalError

from alnnode.db import engine as engines
from alnnode.db import progress_tables, row_counts, worklist_tables  # noqa: F401 - they add their tables to the metadata
from alnnode.errors import ServiceError

MIGRATIONS = Path(__file__).parent / "migrations"
# An arbitrary number that every alnnode process uses.
_POSTGRES_LOCK = 0x616C6E6E


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def migrate(url: str) -> None:
    """Create or upgrade the tables. Several processes may call it at the same time; a current database is not changed.

    The folder of an SQLite file is created if it is missing.

    Raises:
        sqlalchemy.exc.OperationalError: the database cannot be reached.
    """
    database = make_url(url).database
    if make_url(url).get_backend_name() == "sqlite" and database:
        Path(database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    engine = engines.create(url)
    config = _config()
    try:
        with engines.for_writing(engine).begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _POSTGRES_LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        engine.dispose()


def schema_state(url: str) -> str:
    """Return a text that names the schema, if it is the one that this version of the node needs.

    Raises:
        ServiceError: the schema is another one, or the database cannot be reached.
    """
    if make_url(url).get_backend_name() == "sqlite" and not Path(make_url(url).database or "").is_file():
        raise ServiceError("there is no database yet; run `alnnode migrate`")
    engine = engines.create(url)
    try:
        with engine.connect() as connection:
            present = MigrationContext.configure(connection).get_current_revision()
    except OperationalError as error:
        raise ServiceError("the database cannot be reached; check [database] url and that the server runs") from error
    finally:
        engine.dispose()
    wanted = ScriptDirectory.from_config(_config()).get_current_head()
    if present != wanted:
        raise ServiceError(f"the database has schema {present or 'none'}, this version needs {wanted}; run `alnnode migrate`")
    return f"schema {present}"
