"""The guarded step that every change of a job's state is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select, update

from alnnode.db.tables import Job
from alnnode.records import JobState

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Connection

MAX_TEXT = 1000  # characters of a reason or an error


def move(
    connection: Connection, job_id: str, expected: JobState, state: JobState, *guards: ColumnElement[bool], **values: object
) -> bool:
    """Make one guarded step; whether it was made."""
    changed = connection.execute(
        update(Job).where(Job.job_id == job_id, Job.state == expected, *guards).values(state=state, **values)
    )
    return bool(changed.rowcount)


def finish(connection: Connection, job_id: str, now: datetime) -> None:
    """End an analysed job whose deliveries are all made."""
    reason = connection.execute(select(Job.not_analysed).where(Job.job_id == job_id)).scalar_one()
    end = JobState.DELIVERED if reason is None else JobState.FAILED
    move(connection, job_id, JobState.ANALYSED, end, reason=reason, finished_at=now)
