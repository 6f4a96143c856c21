"""What people may do to a job: run it again, or end it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import and_, select

from alnnode.db.tables import DeliveryState, Job, Result
from alnnode.db.transitions import move
from alnnode.deliver import delivery_rows
from alnnode.errors import JobConflict, JobNotFound
from alnnode.receive import series_rows
from alnnode.records import JobState

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.engine import Connection

CANCELLABLE = (JobState.READY, JobState.RUNNING, JobState.ANALYSED)


def again(connection: Connection, job_id: str, state: JobState, now: datetime) -> JobState:
    """Do as little as is needed; see `alnnode.analyse.jobs.Jobs.retry`."""
    if state in {JobState.RECEIVING, JobState.RUNNING}:
        return state
    if state is JobState.READY:
        move(connection, job_id, state, state, due_at=now, enqueues=0)
        return state
    states = [DeliveryState.FAILED]
    if state is not JobState.FAILED:
        states += delivery_rows.OPEN if state is JobState.ANALYSED else [DeliveryState.SENT]
    if delivery_rows.again(connection, job_id, states, now):
        move(connection, job_id, state, JobState.ANALYSED, reason=None, finished_at=None)
        return JobState.ANALYSED
    if connection.execute(select(Result.job_id).where(Result.job_id == job_id).limit(1)).first() is not None:
        following, opened = anew(connection, job_id, now), and_(Job.predecessor_id == job_id, Job.created_at == now)
        # A person asks: nothing is waited for, and no route is asked. A revision that is being received goes its own way.
        move(connection, following, JobState.RECEIVING, JobState.READY, opened, due_at=now, enqueues=0)
        return JobState.READY
    move(connection, job_id, state, JobState.READY, reason=None, finished_at=None, attempts=0, enqueues=0, due_at=now)
    return JobState.READY


def anew(connection: Connection, job_id: str, now: datetime) -> str:
    """Open a revision after an ended job; see `alnnode.analyse.jobs.Jobs.anew`."""
    job = connection.execute(select(Job.series_uid, Job.study_uid).where(Job.job_id == job_id)).one_or_none()
    if job is None:
        raise JobNotFound(f"no job {job_id}")
    series_rows.lock_series(connection, job.series_uid)
    newest = select(Job.job_id, Job.revision, Job.purged_at).where(Job.series_uid == job.series_uid)
    newest = newest.order_by(Job.revision.desc()).limit(1)
    latest = connection.execute(newest).one()
    if latest.job_id != job_id:
        return str(latest.job_id)
    if latest.purged_at is not None:
        raise JobConflict("the images of this job are no longer kept; send the series again")
    following = latest.revision + 1
    series_rows.open_job(connection, job.series_uid, job.study_uid, revision=following, predecessor_id=job_id, at=now)
    return str(connection.execute(newest).one().job_id)


def cancel(connection: Connection, job_id: str, state: JobState, reason: str, now: datetime) -> None:
    """End a job and its open deliveries."""
    if state not in CANCELLABLE:
        raise JobConflict(f"a job that is {state.value} cannot be cancelled")
    delivery_rows.stop(connection, job_id, reason)
    move(connection, job_id, state, JobState.FAILED, reason=reason, finished_at=now, lease_until=None, due_at=None)
