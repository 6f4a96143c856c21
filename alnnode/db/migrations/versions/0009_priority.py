"""The priority of jobs, the turns of senders, and the series of a backfill."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009_priority"
down_revision = "0008_notifications"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    op.create_table(
        "sender_turns",
        sa.Column("calling_ae", sa.String(length=16), nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("calling_ae", name=op.f("pk_sender_turns")),
    )
    op.create_table(
        "backfill_days",
        sa.Column("archive", sa.String(length=16), nullable=False),
        sa.Column("search", sa.String(length=32), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.PrimaryKeyConstraint("archive", "search", "day", name=op.f("pk_backfill_days")),
    )
    op.create_table(
        "backfill_series",
        sa.Column("series_uid", sa.String(length=64), nullable=False),
        sa.Column("study_uid", sa.String(length=64), nullable=False),
        sa.Column("archive", sa.String(length=16), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("images", sa.Integer(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.DateTime(), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("series_uid", name=op.f("pk_backfill_series")),
    )
    op.create_index(op.f("ix_backfill_series_archive_state_due_at"), "backfill_series", ["archive", "state", "due_at"])
