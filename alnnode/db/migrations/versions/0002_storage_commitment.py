"""Storage commitment: requests of senders, and commitment by destinations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002_storage_commitment"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("deliveries", sa.Column("uncommitted", sa.Text(), nullable=True))
    op.add_column("deliveries", sa.Column("resends", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("deliveries", sa.Column("committed_at", sa.DateTime(), nullable=True))
    op.create_table(
        "transactions",
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("delivery_id", sa.String(length=32), nullable=False),
        sa.Column("asked_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["delivery_id"], ["deliveries.delivery_id"], name=op.f("fk_transactions_delivery_id_deliveries")
        ),
        sa.PrimaryKeyConstraint("transaction_uid", name=op.f("pk_transactions")),
    )
    op.create_index(op.f("ix_transactions_delivery_id"), "transactions", ["delivery_id"])
    op.create_table(
        "commitment_requests",
        sa.Column("request_id", sa.String(length=32), nullable=False),
        sa.Column("requester", sa.String(length=16), nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("objects", sa.Text(), nullable=False),
        sa.Column("duplicate", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("received_at", sa.DateTime(), nullable=False),
        sa.Column("due_at", sa.DateTime(), nullable=False),
        sa.Column("answered_at", sa.DateTime(), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_commitment_requests")),
    )
    op.create_index(
        op.f("ix_commitment_requests_requester_transaction_uid"), "commitment_requests", ["requester", "transaction_uid"]
    )
    op.create_index(op.f("ix_commitment_requests_state_due_at"), "commitment_requests", ["state", "due_at"])
