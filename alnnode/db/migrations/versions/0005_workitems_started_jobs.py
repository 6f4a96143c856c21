"""Whether the job of a workitem was started for it; service URLs of any length."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005_workitems_started_jobs"
down_revision = "0004_marks"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("workitems") as table:
        table.add_column(sa.Column("started_job", sa.Boolean(), server_default=sa.false(), nullable=False))
        table.alter_column("service_url", existing_type=sa.String(length=255), type_=sa.Text(), existing_nullable=False)
