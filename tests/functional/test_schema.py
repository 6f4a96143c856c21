"""The schema while hosts are updated one by one: old and new versions start on one database, and migrations only add."""

import ast
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import event, inspect, text
from sqlalchemy.engine import Engine

from alnnode.db import engine as engines
from alnnode.db import row_counts, schema
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
    assert label_of(database_url) == OLD, "a start of the new version must not end the update for the old one"
    schema.migrate(database_url, schema.NO_LABEL)
    assert schema.schema_state(database_url) == head


def test_a_labelled_database_goes_on_to_the_next_schema_and_keeps_its_label(database_url) -> None:
    before = "0010_leases"  # the newest schema of the version that set the label
    engine = of_the_version_before(database_url, before)
    with engines.for_writing(engine).begin() as connection:
        schema.record_label(connection, before)
        connection.execute(text(f"UPDATE alembic_version SET version_num = '{OLD}'"))
    schema.migrate(database_url)
    with engine.connect() as connection:
        assert schema.missing(connection) == []
    assert label_of(database_url) == OLD
    schema.migrate(database_url, schema.NO_LABEL)
    assert schema.schema_state(database_url) == f"schema {schema.head()}"


def test_a_label_that_the_version_before_removed_is_not_set_again(database_url) -> None:
    before = "0010_leases"
    engine = of_the_version_before(database_url, before)
    with engines.for_writing(engine).begin() as connection:
        schema.record_label(connection, before)  # it left the record, which it does not know
    schema.migrate(database_url)
    assert label_of(database_url) == schema.head()
    schema.migrate(database_url, schema.head())
    schema.migrate(database_url)
    with engine.connect() as connection:
        assert schema._schema_of_tables(connection) is None


def test_the_label_of_a_later_version_is_not_removed_by_this_one(database_url) -> None:
    with engines.for_writing(engines.create(database_url)).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999_later'"))
    with pytest.raises(ServiceError, match="a later version made schema 9999_later"):
        schema.migrate(database_url, schema.NO_LABEL)


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


def of_the_version_before(database_url, version: str = OLD):
    """Return the engine of an empty database, with the tables of an earlier version and one job."""
    engine = engines.create(database_url)
    Base.metadata.drop_all(engine)
    with engines.for_writing(engine).begin() as connection:
        connection.execute(text("DROP TABLE alembic_version"))
        config = Config()
        config.set_main_option("script_location", str(schema.MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, version)
    insert_job(engine)
    return engine


def insert_job(engine, number: int = 1) -> None:
    """Record a series and its job, as every version does."""
    moment = "2026-01-01 00:00:00.000000"
    with engines.for_writing(engine).begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL lock_timeout = '5s'"))
        series = f"('1.2.{number}', '1.1', 'CT1', 'CT', '', '', '', '', '{moment}')"
        columns = "series_uid, study_uid, calling_ae, modality, body_part, series_description, study_description, kernel"
        connection.execute(text(f"INSERT INTO series ({columns}, last_received_at) VALUES {series}"))
        columns = "job_id, series_uid, study_uid, revision, state, attempts, enqueues, created_at, content_at"
        job = f"('{number}', '1.2.{number}', '1.1', 1, 'RECEIVING', 0, 0, '{moment}', '{moment}')"
        connection.execute(text(f"INSERT INTO jobs ({columns}) VALUES {job}"))


@pytest.mark.parametrize("database_url", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True)
def test_images_are_recorded_while_indexes_of_large_tables_are_built(database_url) -> None:
    engine, numbers = of_the_version_before(database_url), count(2)
    beside = engines.create(database_url)

    def record(_connection, _cursor, statement, *_) -> None:
        if statement.startswith("CREATE INDEX") and " ON jobs " in statement:
            insert_job(beside, next(numbers))

    event.listen(Engine, "before_cursor_execute", record)
    try:
        schema.migrate(database_url)
    finally:
        event.remove(Engine, "before_cursor_execute", record)
    assert next(numbers) == 5, "three indexes of the table of jobs were built"
    with engine.connect() as connection:
        assert schema.missing(connection) == []
        assert sum(row_counts.counts(connection, row_counts.JOB).values()) == 4


@pytest.mark.parametrize("database_url", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True)
def test_several_processes_migrate_at_the_same_time_and_finish_an_interrupted_build(database_url) -> None:
    engine = of_the_version_before(database_url)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(schema.migrate, [database_url] * 4))
    valid = text("SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_jobs_finished_at'::regclass")
    with engines.for_writing(engine).begin() as connection:
        assert schema.missing(connection) == []
        connection.execute(text("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_jobs_finished_at'::regclass"))
    schema.migrate(database_url)
    with engine.connect() as connection:
        assert connection.execute(valid).scalar_one()


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
