"""Migrate a database to the schema of this version. The migrations are part of the installed package; no alembic.ini is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import delete, inspect, make_url, select, text

from alnnode.db import engine as engines
from alnnode.db import (  # noqa: F401 - they add their tables to the metadata
    large_indexes,
    leader,
    notify_tables,
    operation_tables,
    progress_tables,
    queue_tables,
    row_counts,
    worklist_tables,
)
from alnnode.db.faults import in_words
from alnnode.db.progress_tables import TallyRow
from alnnode.db.tables import Base
from alnnode.db.tallies import Tally, add_to_tally
from alnnode.errors import ServiceError

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy.engine import Connection

MIGRATIONS = Path(__file__).parent / "migrations"
# An arbitrary number that every alnnode process uses.
_POSTGRES_LOCK = 0x616C6E6E
_VERSION_TABLE = "alembic_version"
NO_LABEL = "none"
_LABELLED = "schema"  # kind of the row of `TallyRow` that names the schema of the tables while the database has another label


def head() -> str:
    """Return the schema of this version: the name of the newest migration."""
    return max(path.stem for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def _present(connection: Connection) -> str | None:
    """Return the schema of the database; None when it has no tables of a node."""
    if not inspect(connection).has_table(_VERSION_TABLE):
        return None
    found: str | None = connection.execute(text(f"SELECT version_num FROM {_VERSION_TABLE}")).scalar_one_or_none()  # noqa: S608 - a constant
    return found


def _config() -> Config:
    from alembic.config import Config  # noqa: PLC0415 - only a migration needs alembic, whose import takes a quarter of a second

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def migrate(url: str, label: str | None = None) -> None:
    """Create or upgrade the tables. Several processes may call it at the same time; a current database is not changed.

    The folder of an SQLite file is created if it is missing. On PostgreSQL, the node can work meanwhile: indexes of large tables are built
    after the transaction of the migrations, without a lock.

    Args:
        url: of the database.
        label: an earlier schema that the database is then labelled with, so that processes of the version which needs that schema start
            beside those of this version. Migrations only add, so nothing has to be removed. The label stays until `NO_LABEL` is given.

    Raises:
        ServiceError: this version knows no schema of that name, or the database cannot be reached or changed.
    """
    database = make_url(url).database
    if make_url(url).get_backend_name() == "sqlite" and database:
        Path(database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    engine = engines.create(url)
    try:
        with in_words(url), engines.for_writing(engine).begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _POSTGRES_LOCK})
            known = True
            if label is not None or _present(connection) != head() or missing(connection):
                known = _upgrade(connection, label)
        if engine.dialect.name == "postgresql" and known:
            large_indexes.build_missing(engine)
    finally:
        engine.dispose()


def _upgrade(connection: Connection, label: str | None) -> bool:
    """Upgrade inside a transaction. Return whether the schema was known: only a later version may build indexes of a later schema."""
    from alembic import command  # noqa: PLC0415 - as in `_config`
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = _config()
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if label not in {None, NO_LABEL, *known}:
        raise ServiceError(f"this version knows no schema {label}; it knows {', '.join(sorted(known))}")
    present = _present(connection)
    if label == NO_LABEL and present is not None and present not in known:
        raise ServiceError(f"a later version made schema {present}; run `alnnode migrate` of that version")
    lacking = missing(connection) if present not in {None, *known} else []
    if lacking:  # migrations only add, so a later version has all of this one
        raise ServiceError(f"the schema {present} of a later version lacks {', '.join(lacking[:3])}; restore a backup")
    tables = None if present is None else _schema_of_tables(connection)
    if tables not in {None, present} and present in known and tables in known:
        command.stamp(config, tables)  # otherwise the upgrade would make the tables since the label a second time
        label = label or present
    if present is None or missing(connection):
        command.upgrade(config, "head")
    elif present in known:  # it may have been labelled by a version that did not record it
        command.stamp(config, "head")
    if label is not None:
        record_label(connection, None if label in {NO_LABEL, head()} else head())
        command.stamp(config, "head" if label == NO_LABEL else label)
    return present is None or present in known


def _schema_of_tables(connection: Connection) -> str | None:
    """Return the schema that the tables of a labelled database have; None when it is not labelled."""
    if not inspect(connection).has_table(TallyRow.__tablename__):
        return None
    return connection.execute(select(TallyRow.label).where(TallyRow.kind == _LABELLED)).scalar_one_or_none()


def record_label(connection: Connection, tables: str | None) -> None:
    """Record the schema that the tables of a labelled database have, inside a transaction; None when it is not labelled any more."""
    connection.execute(delete(TallyRow).where(TallyRow.kind == _LABELLED))
    if tables is not None:
        add_to_tally(connection, _LABELLED, Tally(tables, 0, 1, 0.0))


def has_no_database(url: str) -> bool:
    """Return whether the file of an SQLite database does not exist; `migrate` creates it. A place that this user may not see may have one."""
    try:
        return make_url(url).get_backend_name() == "sqlite" and not Path(make_url(url).database or "").is_file()
    except PermissionError:
        return False


def missing(connection: Connection) -> list[str]:
    """Return the names of tables, columns and indexes of this version that a database lacks."""
    found = inspect(connection)
    tables = set(found.get_table_names())
    lacking = []
    for table in Base.metadata.sorted_tables:
        if table.name not in tables:
            lacking.append(table.name)
            continue
        there = {column["name"] for column in found.get_columns(table.name)} | {
            one["name"] for one in found.get_indexes(table.name)
        }
        needed = [*table.columns.keys(), *(str(index.name) for index in table.indexes)]
        lacking += [f"{table.name}.{name}" for name in needed if name not in there]
    return lacking


def schema_state(url: str) -> str:
    """Return a text that names the schema, if it has everything that this version of the node needs.

    The schema of a later version has it, because migrations only add.

    Raises:
        ServiceError: the schema lacks something, or the database cannot be reached.
    """
    if has_no_database(url):
        raise ServiceError(f"there is no database {make_url(url).database} yet; run `alnnode migrate`, or `alnnode serve`")
    engine = engines.create(url)
    try:
        with in_words(url), engine.connect() as connection:
            present, wanted = _present(connection), head()
            suffices = present == wanted or (present is not None and not missing(connection))
    finally:
        engine.dispose()
    if not suffices:
        raise ServiceError(f"the database has schema {present or 'none'}, this version needs {wanted}; run `alnnode migrate`")
    return f"schema {present}"
