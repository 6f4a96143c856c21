"""The number of storage commitment requests that a destination accepted and did not answer."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006_unanswered_questions"
down_revision = "0005_workitems_started_jobs"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("deliveries", sa.Column("unanswered", sa.Integer(), nullable=False, server_default="0"))
