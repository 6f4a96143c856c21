"""The references of objects with a reader's marks to series."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004_marks"
down_revision = "0003_worklist"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "marks",
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("series_uid", sa.String(length=64), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["sop_instance_uid"], ["instances.sop_instance_uid"], name=op.f("fk_marks_sop_instance_uid_instances")
        ),
        sa.PrimaryKeyConstraint("sop_instance_uid", "series_uid", name=op.f("pk_marks")),
    )
    op.create_index(op.f("ix_marks_series_uid_revision"), "marks", ["series_uid", "revision"])
