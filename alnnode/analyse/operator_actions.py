"""What an operator, or the requester of a workitem, may do to a job: retry it, analyse its series in a new revision, or cancel it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import select

from alnnode.db import clock
from alnnode.db.engine import for_writing
from alnnode.db.series_jobs import NewJob, lock_series, open_job
from alnnode.db.tables import DeliveryState, Job, Result
from alnnode.db.transitions import change_state
from alnnode.deliver import delivery_rows
from alnnode.errors import JobConflict, JobNotFound
from alnnode.records import JobState

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.engine import Connection, Engine

CANCELLABLE = (JobState.READY, JobState.RUNNING, JobState.ANALYSED)
_TO_ANALYSE = (JobState.RECEIVING, JobState.READY, JobState.RUNNING)


class _Newest(NamedTuple):
    """The job of the last revision of a series."""

    job_id: str
    series_uid: str
    study_uid: str
    revision: int
    state: str
    purged_at: datetime | None


class OperatorActions:
    """Actions on single jobs, while the node runs. Safe to share between threads.

    ``now`` arguments default to the clock of the database; all times are aware.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine, self._writer = engine, for_writing(engine)

    def retry(self, job_id: str, now: datetime | None = None) -> JobState:
        """Repeat the failed step of an ended job; return its new state.

        Failed deliveries are made again, and a DELIVERED job sends the same bytes again. Every other job is analysed again: in a new
        revision when it has results, because results that were sent cannot be changed. A job that has not ended becomes due at once.
        If a later revision of the series is still to be analysed, nothing is repeated, and its state is returned.

        Raises:
            JobNotFound: no job has that id.
            JobConflict: the files of its images were deleted, or a later revision of the series has ended.
        """
        with self._writer.begin() as connection:
            newest = _lock_newest(connection, job_id)  # before the job, as the recorder does
            query = select(Job.state, Job.purged_at).where(Job.job_id == job_id).with_for_update()
            job = connection.execute(query).one()
            if job.purged_at is not None:
                raise _files_deleted()
            return _retry(connection, job_id, JobState(job.state), newest, now or clock.now(connection))

    def reanalyse(self, job_id: str, now: datetime | None = None) -> str:
        """Open a new revision of the series of an ended job, whatever was delivered; return the id of the newest job of the series.

        The report of the new revision names the report that it replaces.

        Raises:
            JobNotFound: no job has that id.
            JobConflict: the files of its images were deleted.
        """
        with self._writer.begin() as connection:
            newest = _lock_newest(connection, job_id)
            if newest.job_id != job_id:
                return newest.job_id
            return _open_revision(connection, newest, now or clock.now(connection))

    def cancel(self, job_id: str, who: str, now: datetime | None = None) -> None:
        """End a job that is READY, RUNNING or ANALYSED, and its open deliveries; it can be retried.

        Results of an analysis that is running now are not recorded.

        Raises:
            JobNotFound: no job has that id.
            JobConflict: it has ended already, or its series is still being received.
        """
        with self._writer.begin() as connection:
            found = connection.execute(select(Job.state).where(Job.job_id == job_id).with_for_update()).scalar_one_or_none()
            if found is None:
                raise JobNotFound(f"no job {job_id}")
            state, reason = JobState(found), f"cancelled by {who}"
            if state not in CANCELLABLE:
                raise JobConflict(f"a job that is {state.value} cannot be cancelled")
            delivery_rows.fail_open_deliveries(connection, job_id, reason)
            moment = now or clock.now(connection)
            ended = {"finished_at": moment, "lease_until": None, "due_at": None}
            change_state(connection, job_id, state, JobState.FAILED, reason=reason, **ended)


def _files_deleted() -> JobConflict:
    return JobConflict("the files of this job were deleted; send the series again")


def _retry(connection: Connection, job_id: str, state: JobState, newest: _Newest, now: datetime) -> JobState:
    if state in {JobState.RECEIVING, JobState.RUNNING}:
        return state
    if state is JobState.READY:
        change_state(connection, job_id, state, state, due_at=now, enqueues=0)
        return state
    states = [DeliveryState.FAILED]
    if state not in {JobState.FAILED, JobState.NOT_ANALYSED}:
        states += delivery_rows.OPEN if state is JobState.ANALYSED else [DeliveryState.SENT]
    if delivery_rows.reopen_deliveries(connection, job_id, states, now):
        change_state(connection, job_id, state, JobState.ANALYSED, reason=None, finished_at=None)
        return JobState.ANALYSED
    if newest.job_id != job_id:  # the report would be delivered after the one that replaces it
        if newest.state in _TO_ANALYSE:
            return JobState(newest.state)
        raise JobConflict(f"a later revision of this series has ended; retry that one: job {newest.job_id}")
    if connection.execute(select(Result.job_id).where(Result.job_id == job_id).limit(1)).first() is not None:
        # An operator asks: the completion rule and the routes do not apply.
        job_id, state = _open_revision(connection, newest, now), JobState.RECEIVING
    change_state(connection, job_id, state, JobState.READY, reason=None, finished_at=None, attempts=0, enqueues=0, due_at=now)
    return JobState.READY


def _lock_newest(connection: Connection, job_id: str) -> _Newest:
    """Lock the series of a job, and return the newest job of the series, which need not be this one."""
    series_uid = connection.execute(select(Job.series_uid).where(Job.job_id == job_id)).scalar_one_or_none()
    if series_uid is None:
        raise JobNotFound(f"no job {job_id}")
    lock_series(connection, series_uid)
    columns = (Job.job_id, Job.series_uid, Job.study_uid, Job.revision, Job.state, Job.purged_at)
    query = select(*columns).where(Job.series_uid == series_uid).order_by(Job.revision.desc()).limit(1)
    return _Newest(*connection.execute(query).one())


def _open_revision(connection: Connection, newest: _Newest, now: datetime) -> str:
    if newest.purged_at is not None:
        raise _files_deleted()
    return open_job(connection, NewJob(newest.series_uid, newest.study_uid, newest.revision + 1, newest.job_id), now)
