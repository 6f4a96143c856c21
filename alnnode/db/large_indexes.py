"""Indexes that PostgreSQL builds while the node works: outside of the transaction of a migration, and without a lock on the table.

A migration holds the locks of its changes until its end. An index of a table with a million rows takes so long that no image could be
recorded meanwhile. So migrations leave indexes of tables that have rows to this module; on SQLite, they make them themselves.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sqlalchemy import Index, text
from sqlalchemy.schema import CreateIndex

from alnnode.db.tables import Base

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

# An arbitrary number that every alnnode process uses, other than that of the migrations.
_LOCK = 0x616C6E69
_POLL = 0.2  # seconds
# Of the schema in which the tables of the node are. False: a build was interrupted, and no query uses the index.
_VALID = text(
    "SELECT c.relname, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
    "WHERE c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'jobs'::regclass)"
)


def build_missing(engine: Engine) -> None:
    """Build the indexes of the tables that a PostgreSQL database lacks, and those whose build was interrupted.

    Several processes may call it at the same time. The lock is polled, because a build waits for every transaction that is older: also
    for that of a process which waits for the lock.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if not _missing(connection):
            return
        while not connection.execute(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": _LOCK}).scalar_one():
            time.sleep(_POLL)
        try:
            for index, interrupted in _missing(connection):
                if interrupted:
                    connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {index.name}"))
                statement = str(CreateIndex(index).compile(dialect=connection.dialect))
                connection.execute(text(statement.replace("INDEX", "INDEX CONCURRENTLY", 1)))
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})


def _missing(connection: Connection) -> list[tuple[Index, bool]]:
    """Return the indexes that are missing, and those whose build was interrupted (True)."""
    found: dict[str, bool] = {name: valid for name, valid in connection.execute(_VALID)}  # noqa: C416 - `dict` of rows has no types
    wanted = [index for table in Base.metadata.sorted_tables for index in sorted(table.indexes, key=lambda one: str(one.name))]
    return [(index, str(index.name) in found) for index in wanted if not found.get(str(index.name))]
