"""Leases by which one process of several leads."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010_leases"
down_revision = "0009_priority"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("holder", sa.String(length=32), nullable=False),
        sa.Column("until", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
