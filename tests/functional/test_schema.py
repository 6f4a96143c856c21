"""The schema while hosts are updated one by one: old and new versions start on one database, and migrations only add."""

import ast
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from alnnode.db import engine as engines
from alnnode.db import schema
from alnnode.db.tables import Base
from alnnode.errors import ServiceError

OLD = "0006_unanswered_questions"
VERSIONS = schema.MIGRATIONS / "versions"
ADDS = {"create_table", "add_column", "create_index", "f"}  # calls of `op`; `f` gives a name


def label_of(url: str) -> str:
    with engines.create(url).connect() as connection:
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()


def test_a_database_that_is_labelled_for_the_version_before_serves_both(database_url) -> None:
    head = schema.schema_state(database_url)
    schema.migrate(database_url, OLD)
    assert label_of(database_url) == OLD  # what the version before looks at
    assert schema.schema_state(database_url) == f"schema {OLD}"
    schema.migrate(database_url)
    assert schema.schema_state(database_url) == head


def test_a_later_schema_serves_this_version_and_is_left_alone(database_url) -> None:
    with engines.for_writing(engines.create(database_url)).begin() as connection:
        connection.execute(text("ALTER TABLE jobs ADD COLUMN of_a_later_version INTEGER"))
        connection.execute(text("UPDATE alembic_version SET version_num = '9999_later'"))
    assert schema.schema_state(database_url) == "schema 9999_later"
    schema.migrate(database_url)
    assert label_of(database_url) == "9999_later"


@pytest.mark.parametrize(
    "change", ["DROP TABLE leases", "ALTER TABLE deliveries DROP COLUMN unanswered", "DROP INDEX ix_deliveries_state_due_at"]
)
def test_a_schema_that_lacks_something_is_refused_whatever_its_label(database_url, change) -> None:
    with engines.for_writing(engines.create(database_url)).begin() as connection:
        connection.execute(text(change))
        connection.execute(text("UPDATE alembic_version SET version_num = '9999_later'"))
    with pytest.raises(ServiceError, match="run `alnnode migrate`"):
        schema.schema_state(database_url)


def test_an_unknown_label_is_refused(database_url) -> None:
    with pytest.raises(ServiceError, match="knows no schema 0007_never"):
        schema.migrate(database_url, "0007_never")


def test_the_migrations_make_everything_that_the_tables_name(database_url) -> None:
    with engines.create(database_url).connect() as connection:
        assert schema.missing(connection) == []
        assert set(inspect(connection).get_table_names()) == {*Base.metadata.tables, "alembic_version"}


# Reviewed by hand. 0007 renames the state of ended jobs, as every process of that version does; processes of the version before leave such jobs
# alone, but cannot list them. 0011 adds triggers, which write into a table of their own.
REVIEWED = {"0007_administration": {"execute"}, "0011_row_counts": {"execute", "get_bind"}}


@pytest.mark.parametrize("path", sorted(path for path in VERSIONS.glob("0*.py") if path.stem > OLD), ids=lambda path: path.stem)
def test_a_migration_only_adds(path: Path) -> None:
    """So the version before works on the later schema, and a host can be updated, or put back, while the others run."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert set(bad(tree)) == REVIEWED.get(path.stem, set()), (
        "it may only add tables, indexes and columns that are nullable or have a server_default"
    )


def bad(tree: ast.Module) -> list[str]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    found = [call.func.attr for call in calls if ast.unparse(call.func.value) == "op" and call.func.attr not in ADDS]
    for call in calls:
        if call.func.attr == "add_column":
            column = call.args[1]
            given = {word.arg: ast.unparse(word.value) for word in column.keywords}
            if given.get("nullable") != "True" and "server_default" not in given:
                found.append(ast.unparse(call))
    return found


@pytest.mark.parametrize(
    "line",
    [
        "op.drop_column('jobs', 'x')",
        "op.execute('DELETE')",
        "op.alter_column('jobs', 'x')",
        "op.add_column('jobs', sa.Column('x', sa.Integer(), nullable=False))",
    ],
)
def test_a_planted_change_that_the_version_before_cannot_bear_is_found(line) -> None:
    assert bad(ast.parse(line))
