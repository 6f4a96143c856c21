"""What an operator, or the requester of a workitem, may do to a job: retry it, analyse its series in a new revision, or cancel it."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from sqlalchemy import select

from alnnode.analyse.study_reports import deliver_held_report, lock_study
from alnnode.db import clock
from alnnode.db.engine import for_writing
from alnnode.db.series_jobs import NewJob, lock_series, open_job
from alnnode.db.tables import DeliveryState, Job, Result
from alnnode.db.transitions import change_state
from alnnode.deliver import delivery_rows
from alnnode.errors import JobConflict, JobNotFound
from alnnode.records import JobState

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from sqlalchemy.engine import Connection, Engine

CANCELLABLE = (JobState.READY, JobState.RUNNING, JobState.ANALYSED)


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

        Raises:
            JobNotFound: no job has that id.
            JobConflict: the files of its images were deleted.
        """
        with self._writer.begin() as connection:
            job = connection.execute(
                select(Job.state, Job.purged_at).where(Job.job_id == job_id).with_for_update()
            ).one_or_none()
            if job is None:
                raise JobNotFound(f"no job {job_id}")
            if job.purged_at is not None:
                raise _files_deleted()
            return _retry(connection, job_id, JobState(job.state), now or clock.now(connection))

    def reanalyse(self, job_id: str, now: datetime | None = None) -> str:
        """Open a new revision of the series of an ended job, whatever was delivered; return the id of the newest job of the series.

        The report of the new revision names the report that it replaces.

        Raises:
            JobNotFound: no job has that id.
            JobConflict: the files of its images were deleted.
        """
        with self._writer.begin() as connection:
            newest, _ = _open_revision(connection, job_id, now or clock.now(connection))
            return newest

    def cancel(
        self,
        job_id: str,
        who: str,
        now: datetime | None = None,
        destinations: Mapping[str, Collection[str]] = MappingProxyType({}),
    ) -> None:
        """End a job that is READY, RUNNING or ANALYSED, and its open deliveries; it can be retried.

        Results of an analysis that is running now are not recorded. A report on the study that was held back for this job is sent to
        ``destinations``, which gives the object roles that each wants.

        Raises:
            JobNotFound: no job has that id.
            JobConflict: it has ended already, or its series is still being received.
        """
        with self._writer.begin() as connection:
            study = connection.execute(select(Job.study_uid).where(Job.job_id == job_id)).scalar_one_or_none()
            if study is None:
                raise JobNotFound(f"no job {job_id}")
            lock_study(connection, study)
            found = connection.execute(select(Job.state).where(Job.job_id == job_id)).scalar_one()
            state, reason = JobState(found), f"cancelled by {who}"
            if state not in CANCELLABLE:
                raise JobConflict(f"a job that is {state.value} cannot be cancelled")
            delivery_rows.fail_open_deliveries(connection, job_id, reason)
            moment = now or clock.now(connection)
            ended = {"finished_at": moment, "lease_until": None, "due_at": None}
            change_state(connection, job_id, state, JobState.FAILED, reason=reason, **ended)
            deliver_held_report(connection, study, destinations, moment)


def _files_deleted() -> JobConflict:
    return JobConflict("the files of this job were deleted; send the series again")


def _retry(connection: Connection, job_id: str, state: JobState, now: datetime) -> JobState:
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
    if connection.execute(select(Result.job_id).where(Result.job_id == job_id).limit(1)).first() is not None:
        newest, opened = _open_revision(connection, job_id, now)
        if (
            opened
        ):  # An operator asks: the completion rule and the routes do not apply. Another revision goes on being received.
            change_state(connection, newest, JobState.RECEIVING, JobState.READY, due_at=now, enqueues=0)
        return JobState.READY
    change_state(connection, job_id, state, JobState.READY, reason=None, finished_at=None, attempts=0, enqueues=0, due_at=now)
    return JobState.READY


def _open_revision(connection: Connection, job_id: str, now: datetime) -> tuple[str, bool]:
    """Open a revision after a job that is the newest of its series; return the id of the newest job, and whether it was opened now."""
    job = connection.execute(select(Job.series_uid, Job.study_uid).where(Job.job_id == job_id)).one_or_none()
    if job is None:
        raise JobNotFound(f"no job {job_id}")
    lock_series(connection, job.series_uid)
    query = select(Job.job_id, Job.revision, Job.purged_at).where(Job.series_uid == job.series_uid)
    latest = connection.execute(query.order_by(Job.revision.desc()).limit(1)).one()
    if latest.job_id != job_id:
        return str(latest.job_id), False
    if latest.purged_at is not None:
        raise _files_deleted()
    return open_job(connection, NewJob(job.series_uid, job.study_uid, latest.revision + 1, job_id), now), True
