"""Rows of jobs in a database, without the files and the analyses behind them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import insert

from alnnode.db import engine as engines
from alnnode.db.schema import migrate
from alnnode.db.tables import Job, Series
from alnnode.records import JobState

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from alnnode.settings import Settings

FACTS = ("study_uid", "calling_ae", "modality", "body_part", "series_description", "study_description", "kernel")
REASON = "The series has 3 images, fewer than the 20 that an analysis needs. Please send the whole series to this node [/x]."


def create_database(settings: Settings) -> Engine:
    """Make the database of a node that has no job."""
    migrate(settings.database_url)
    return engines.create(settings.database_url)


def add_job(database: Engine, job_id: str, state: JobState = JobState.FAILED, created: datetime | None = None) -> None:
    """Add a job of a series of its own; a FAILED one has `REASON`."""
    moment = created or datetime.now(UTC)
    with engines.for_writing(database).begin() as connection:
        facts = dict.fromkeys(FACTS, "x")
        connection.execute(insert(Series).values(series_uid=f"1.{int(job_id, 16)}", last_received_at=moment, **facts))
        connection.execute(
            insert(Job).values(
                job_id=job_id,
                series_uid=f"1.{int(job_id, 16)}",
                study_uid="1",
                state=state,
                revision=1,
                reason=REASON if state is JobState.FAILED else None,
                attempts=1,
                enqueues=0,
                content_at=moment,
                created_at=moment,
            )
        )
