"""Inserts that several processes may make at the same time, in the dialect of the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.dialects import postgresql, sqlite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.engine import Connection

    from alnnode.db.tables import Base


def insert_new(connection: Connection, table: type[Base], values: Mapping[str, object]) -> bool:
    """Insert a row unless one of its keys exists; return whether it was inserted."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table).values(values).on_conflict_do_nothing()
    return connection.execute(statement.returning(table)).first() is not None
