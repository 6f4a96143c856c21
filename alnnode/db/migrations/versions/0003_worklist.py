"""Workitems with their subscriptions and events; the present step of each analysis; counters for monitoring."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003_worklist"
down_revision = "0002_storage_commitment"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "workitems",
        sa.Column("workitem_uid", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=True),
        sa.Column("document", sa.String(length=255), nullable=True),
        sa.Column("service_url", sa.String(length=255), nullable=False),
        sa.Column("performed_here", sa.Boolean(), nullable=False),
        sa.Column("job_id", sa.String(length=32), nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("lease_until", sa.DateTime(), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("changed_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], name=op.f("fk_workitems_job_id_jobs")),
        sa.PrimaryKeyConstraint("workitem_uid", name=op.f("pk_workitems")),
    )
    op.create_index(op.f("ix_workitems_state_created_at"), "workitems", ["state", "created_at"])
    op.create_table(
        "ups_subscriptions",
        sa.Column("workitem_uid", sa.String(length=64), nullable=False),
        sa.Column("subscriber", sa.String(length=16), nullable=False),
        sa.Column("deletion_lock", sa.Boolean(), nullable=False),
        sa.Column("filters", sa.String(length=255), nullable=True),
        sa.PrimaryKeyConstraint("workitem_uid", "subscriber", name=op.f("pk_ups_subscriptions")),
    )
    op.create_table(
        "ups_events",
        sa.Column("event_id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("subscriber", sa.String(length=16), nullable=False),
        sa.Column("workitem_uid", sa.String(length=64), nullable=False),
        sa.Column("event_type", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("progress", sa.Integer(), nullable=True),
        sa.Column("sent", sa.Boolean(), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_ups_events")),
    )
    op.create_index(op.f("ix_ups_events_subscriber_event_id"), "ups_events", ["subscriber", "event_id"])
    op.create_table(
        "job_steps",
        sa.Column("job_id", sa.String(length=32), nullable=False),
        sa.Column("step", sa.String(length=16), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], name=op.f("fk_job_steps_job_id_jobs")),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_job_steps")),
    )
    op.create_table(
        "tallies",
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("label", sa.String(length=64), nullable=False),
        sa.Column("bin", sa.Integer(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "label", "bin", name=op.f("pk_tallies")),
    )


def downgrade() -> None:
    for table in ("tallies", "job_steps", "ups_events", "ups_subscriptions", "workitems"):
        op.drop_table(table)
