"""The job state NOT_ANALYSED; what is paused; rejected associations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007_administration"
down_revision = "0006_unanswered_questions"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Before this version, a series that could not be analysed ended FAILED with the reason that its results give.
    op.execute(
        "UPDATE jobs SET state = 'NOT_ANALYSED' WHERE state = 'FAILED' AND not_analysed IS NOT NULL AND reason = not_analysed"
    )
    op.create_table(
        "pauses",
        sa.Column("target", sa.String(length=64), nullable=False),
        sa.Column("paused_at", sa.DateTime(), nullable=False),
        sa.Column("paused_by", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("target", name=op.f("pk_pauses")),
    )
    op.create_table(
        "rejected_associations",
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("called_ae", sa.String(length=16), nullable=False),
        sa.Column("calling_ae", sa.String(length=16), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("detail", sa.String(length=255), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("first_at", sa.DateTime(), nullable=False),
        sa.Column("last_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "called_ae", "calling_ae", "address", name=op.f("pk_rejected_associations")),
    )
    op.create_index(op.f("ix_rejected_associations_last_at"), "rejected_associations", ["last_at"])
