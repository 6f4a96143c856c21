"""The guarded transition by which every stage changes the state of a job.

RECEIVING, READY, RUNNING, ANALYSED, DELIVERED; or NOT_ANALYSED, FAILED or SKIPPED with a reason. A transition is one
``UPDATE … WHERE state = :expected`` inside a transaction. Duplicate tasks, several sweeps and a worker whose lease has ended may
therefore call it at any time: the second caller changes nothing and gets False.
"""

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


def change_state(
    connection: Connection, job_id: str, expected: JobState, state: JobState, *guards: ColumnElement[bool], **values: object
) -> bool:
    """Change a job's state and columns if it is in the expected state and all guards hold; return whether it was changed."""
    changed = connection.execute(
        update(Job).where(Job.job_id == job_id, Job.state == expected, *guards).values(state=state, **values)
    )
    return bool(changed.rowcount)


def end_delivered_job(connection: Connection, job_id: str, now: datetime, *, held: bool = False) -> None:
    """End an ANALYSED job whose deliveries are all SENT: DELIVERED, or NOT_ANALYSED when its results say so.

    With ``held``, its results are held back until the sweep decides (`alnnode.analyse.study_reports`).
    """
    reason = connection.execute(select(Job.not_analysed).where(Job.job_id == job_id)).scalar_one()
    end = JobState.DELIVERED if reason is None else JobState.NOT_ANALYSED
    change_state(connection, job_id, JobState.ANALYSED, end, reason=reason, finished_at=now, due_at=now if held else None)
