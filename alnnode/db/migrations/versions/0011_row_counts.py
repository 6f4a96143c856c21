"""Numbers of rows by state, and indexes for pages and searches over a million jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011_row_counts"
down_revision = "0010_leases"
branch_labels = None
depends_on = None

# Table, kind, and the label of a row.
COUNTED = (("jobs", "job", "''"), ("deliveries", "delivery", "{row}.destination"))
COLUMNS = "row_counts (kind, label, state, change)"


def upgrade() -> None:
    op.create_table(
        "row_counts",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("label", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("change", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_row_counts")),
    )
    postgresql = op.get_bind().dialect.name == "postgresql"
    count = _count_on_postgresql if postgresql else _count_on_sqlite
    for table, kind, label in COUNTED:
        count(table, kind, label)
        column = label.format(row=table)
        # PostgreSQL locks the table when the trigger is made, so that no change is lost before this sum.
        op.execute(f"INSERT INTO {COLUMNS} SELECT '{kind}', {column}, state, count(*) FROM {table} GROUP BY 2, 3")  # noqa: S608
    if not postgresql:  # there, `alnnode.db.large_indexes` builds them without a lock
        _create_indexes()


def _create_indexes() -> None:
    op.create_index(op.f("ix_jobs_finished_at"), "jobs", ["finished_at"])
    op.create_index(op.f("ix_jobs_study_uid"), "jobs", ["study_uid"])
    op.create_index(op.f("ix_jobs_state_created_at"), "jobs", ["state", "created_at"])
    op.create_index(op.f("ix_results_series_instance_uid"), "results", ["series_instance_uid"])
    op.create_index(op.f("ix_deliveries_destination_sent_at"), "deliveries", ["destination", "sent_at"])
    failed = sa.text("last_error IS NOT NULL")
    op.create_index("ix_deliveries_last_error", "deliveries", ["destination", "due_at"], sqlite_where=failed)


def _count_on_postgresql(table: str, kind: str, label: str) -> None:
    before, after = label.format(row="OLD"), label.format(row="NEW")
    op.execute(
        f"""
        CREATE OR REPLACE FUNCTION count_{table}() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'UPDATE' AND OLD.state = NEW.state THEN
                RETURN NULL;
            END IF;
            IF TG_OP <> 'INSERT' THEN
                INSERT INTO {COLUMNS} VALUES ('{kind}', {before}, OLD.state, -1);
            END IF;
            IF TG_OP <> 'DELETE' THEN
                INSERT INTO {COLUMNS} VALUES ('{kind}', {after}, NEW.state, 1);
            END IF;
            RETURN NULL;
        END $$
        """  # noqa: S608
    )
    op.execute(
        f"CREATE TRIGGER {table}_counted AFTER INSERT OR DELETE OR UPDATE OF state ON {table} "
        f"FOR EACH ROW EXECUTE FUNCTION count_{table}()"
    )


def _count_on_sqlite(table: str, kind: str, label: str) -> None:
    before = f"INSERT INTO {COLUMNS} VALUES ('{kind}', {label.format(row='OLD')}, OLD.state, -1);"  # noqa: S608 - constants of this module
    after = f"INSERT INTO {COLUMNS} VALUES ('{kind}', {label.format(row='NEW')}, NEW.state, 1);"  # noqa: S608
    op.execute(f"CREATE TRIGGER {table}_counted_insert AFTER INSERT ON {table} BEGIN {after} END")
    op.execute(f"CREATE TRIGGER {table}_counted_delete AFTER DELETE ON {table} BEGIN {before} END")
    op.execute(
        f"CREATE TRIGGER {table}_counted_update AFTER UPDATE OF state ON {table} WHEN OLD.state <> NEW.state "
        f"BEGIN {before} {after} END"
    )
