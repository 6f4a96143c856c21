"""Read the jobs of workitems, and store the job, the fetch lease and the progress of workitems, for `alnnode.worklist.performer`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import select, update

from alnnode.db import clock
from alnnode.db.engine import for_single_reads, for_writing
from alnnode.db.progress_tables import JobStepRow
from alnnode.db.tables import Job, Result
from alnnode.db.worklist_tables import WorkitemRow
from alnnode.records import JobState
from alnnode.worklist import ups
from alnnode.worklist.event_reports import EventType
from alnnode.worklist.ups import UpsState

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.engine import Engine

    from alnnode.records.priority import Priority
    from alnnode.worklist.worklist import Worklist


@dataclass(frozen=True, slots=True)
class WorkitemJob:
    """A job as the performer of its workitem needs it.

    Attributes:
        job_id: of the job.
        state: of the job.
        reason: why the job is FAILED or SKIPPED.
        not_analysed: why the series cannot be analysed; None if it was analysed.
        step: the step that a worker performs at present.
        has_results: whether the job has result objects.
        files_exist: whether the received and result files are not deleted yet.
        bundle_digest: of the model of the results.
        settings_digest: of the settings of the results.
    """

    job_id: str
    state: JobState
    reason: str | None
    not_analysed: str | None
    step: str | None
    has_results: bool
    files_exist: bool
    bundle_digest: str | None
    settings_digest: str | None


class PerformerRows:
    """Safe to share between threads and processes."""

    def __init__(self, engine: Engine, worklist: Worklist) -> None:
        self._engine, self._worklist = engine, worklist
        self._writer, self._reader = for_writing(engine), for_single_reads(engine)

    def now(self) -> datetime:
        """Return the time by which leases are written: that of the database."""
        return clock.now(self._engine)

    def job(self, job_id: str) -> WorkitemJob | None:
        """Return a job; None if there is none of this id."""
        return self._job(Job.job_id == job_id)

    def latest_job(self, series_uid: str) -> WorkitemJob | None:
        """Return the job of a series with the highest revision; None if there is none."""
        return self._job(Job.series_uid == series_uid)

    def _job(self, which: object) -> WorkitemJob | None:
        results = select(Result.job_id).where(Result.job_id == Job.job_id).exists()
        step = select(JobStepRow.step).where(JobStepRow.job_id == Job.job_id).scalar_subquery()
        query = (
            select(
                Job.job_id,
                Job.state,
                Job.reason,
                Job.not_analysed,
                step,
                results,
                Job.purged_at,
                Job.bundle_digest,
                Job.settings_digest,
            )
            .where(which)  # type: ignore[arg-type]
            .order_by(Job.revision.desc())
            .limit(1)
        )
        with self._reader.connect() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        return WorkitemJob(row[0], JobState(row[1]), row[2], row[3], row[4], bool(row[5]), row[6] is None, row[7], row[8])

    def is_only_for(self, job_id: str, workitem_uid: str) -> bool:
        """Return whether a job serves only this workitem: a workitem, and no route, started it, and no other workitem waits for it."""
        of_job = select(WorkitemRow.workitem_uid).where(WorkitemRow.job_id == job_id)
        others = of_job.where(WorkitemRow.state == UpsState.IN_PROGRESS, WorkitemRow.workitem_uid != workitem_uid)
        with self._reader.connect() as connection:
            started = connection.execute(of_job.where(WorkitemRow.started_job.is_(True)).limit(1)).first() is not None
            return started and connection.execute(others.limit(1)).first() is None

    def assign_job(self, workitem_uid: str, job_id: str, priority: Priority, *, started: bool = False) -> None:
        """Store the job of a workitem, and whether the job was started for this workitem and by no route.

        A job that has not begun gets the priority of the workitem if it has a lower one.
        """
        with self._writer.begin() as connection:
            connection.execute(
                update(WorkitemRow)
                .where(WorkitemRow.workitem_uid == workitem_uid)
                .values(job_id=job_id, lease_until=None, started_job=started)
            )
            waits = (Job.job_id == job_id, Job.state.in_((JobState.RECEIVING, JobState.READY)), Job.priority < int(priority))
            connection.execute(update(Job).where(*waits).values(priority=int(priority)))

    def acquire_lease(self, workitem_uid: str, seconds: float) -> bool:
        """Acquire the lease to fetch the input, and count an attempt; return False if another process holds the lease."""
        now = self.now()
        free = WorkitemRow.lease_until.is_(None) | (WorkitemRow.lease_until <= now)
        with self._writer.begin() as connection:
            changed = connection.execute(
                update(WorkitemRow)
                .where(WorkitemRow.workitem_uid == workitem_uid, free)
                .values(lease_until=now + timedelta(seconds=seconds), attempts=WorkitemRow.attempts + 1)
            )
        return bool(changed.rowcount)

    def extend_lease(self, workitem_uid: str, seconds: float) -> None:
        """Extend the lease that this process holds until this many seconds from now."""
        until = self.now() + timedelta(seconds=seconds)
        with self._writer.begin() as connection:
            connection.execute(update(WorkitemRow).where(WorkitemRow.workitem_uid == workitem_uid).values(lease_until=until))

    def set_progress(self, workitem_uid: str, percent: int, description: str) -> None:
        """Write the progress into a workitem, if its description differs from the present one."""
        with self._worklist.changing(workitem_uid, self.now()) as change:
            present = ups.value(ups.first_item(change.document, ups.PROGRESS), ups.tag("ProcedureStepProgressDescription"))
            if change.item.state is not UpsState.IN_PROGRESS or present == description:
                return
            change.document = ups.with_progress(
                change.document,
                ProcedureStepProgress=ups.text("DS", percent),
                ProcedureStepProgressDescription=ups.text("ST", description),
            )
            change.report(EventType.PROGRESS, progress=percent)
