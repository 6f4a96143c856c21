"""The schema of a database, which every process checks at its start without alembic, whose import is slow."""

import sqlite3

import pytest
from alembic.script import ScriptDirectory

from alnnode.db import schema
from alnnode.errors import ServiceError


def test_the_schema_of_this_version_is_that_of_the_newest_migration() -> None:
    assert schema.head() == ScriptDirectory(schema.MIGRATIONS).get_current_head()


def test_a_database_without_tables_of_a_node_and_one_of_another_version_are_told_apart(tmp_path) -> None:
    url = f"sqlite:///{tmp_path}/alnnode.db"
    with pytest.raises(ServiceError, match="there is no database"):
        schema.schema_state(url)
    with sqlite3.connect(tmp_path / "alnnode.db") as database:
        database.execute("CREATE TABLE other (x)")
    with pytest.raises(ServiceError, match="has schema none"):
        schema.schema_state(url)
    schema.migrate(url)
    assert schema.schema_state(url) == f"schema {schema.head()}"
    with sqlite3.connect(tmp_path / "alnnode.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '0001_first_tables'")
        database.execute("DROP TABLE leases")  # a label alone does not count (`tests/functional/test_schema.py`)
    with pytest.raises(ServiceError, match=f"has schema 0001_first_tables, this version needs {schema.head()}"):
        schema.schema_state(url)
