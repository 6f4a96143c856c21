"""What the performer of workitems asks of jobs and writes into workitems; see `alnnode.worklist.performer`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import select, update

from alnnode.db.engine import for_single_reads, for_writing
from alnnode.db.progress_tables import JobStepRow
from alnnode.db.tables import Job, Result
from alnnode.db.worklist_tables import WorkitemRow
from alnnode.records import JobState
from alnnode.worklist import ups
from alnnode.worklist.subscriptions import EventType
from alnnode.worklist.ups import State

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from alnnode.worklist.worklist import Worklist


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as its workitem sees it; ``results`` says whether there are any."""

    job_id: str
    state: JobState
    reason: str | None
    not_analysed: str | None
    step: str | None
    results: bool
    kept: bool
    bundle_digest: str | None
    settings_digest: str | None


class Performing:
    """Safe to share between threads and processes."""

    def __init__(self, engine: Engine, worklist: Worklist) -> None:
        self._writer, self._reader, self._worklist = for_writing(engine), for_single_reads(engine), worklist

    def job(self, job_id: str) -> JobView | None:
        """Return a job."""
        return self._job(Job.job_id == job_id)

    def job_of(self, series_uid: str) -> JobView | None:
        """Return the newest job of a series."""
        return self._job(Job.series_uid == series_uid)

    def _job(self, which: object) -> JobView | None:
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
        return JobView(row[0], JobState(row[1]), row[2], row[3], row[4], bool(row[5]), row[6] is None, row[7], row[8])

    def is_only_for(self, job_id: str, workitem_uid: str) -> bool:
        """Whether nobody else wants what a job does: a workitem had it started, and no other one waits for it."""
        of_job = select(WorkitemRow.workitem_uid).where(WorkitemRow.job_id == job_id)
        others = of_job.where(WorkitemRow.state == State.IN_PROGRESS, WorkitemRow.workitem_uid != workitem_uid)
        with self._reader.connect() as connection:
            started = connection.execute(of_job.where(WorkitemRow.started_job.is_(True)).limit(1)).first() is not None
            return started and connection.execute(others.limit(1)).first() is None

    def attach(self, workitem_uid: str, job_id: str, *, started: bool = False) -> None:
        """Write down which job does the work, and whether it was started for this workitem: by no route."""
        with self._writer.begin() as connection:
            connection.execute(
                update(WorkitemRow)
                .where(WorkitemRow.workitem_uid == workitem_uid)
                .values(job_id=job_id, lease_until=None, started_job=started)
            )

    def lease(self, workitem_uid: str, seconds: float, *, counts: bool, now: datetime | None = None) -> bool:
        """Take the right to fetch the input, for so long; False while another process has it."""
        moment = now or datetime.now(UTC)
        free = WorkitemRow.lease_until.is_(None) | (WorkitemRow.lease_until <= moment)
        with self._writer.begin() as connection:
            changed = connection.execute(
                update(WorkitemRow)
                .where(WorkitemRow.workitem_uid == workitem_uid, *([free] if counts else []))
                .values(lease_until=moment + timedelta(seconds=seconds), attempts=WorkitemRow.attempts + int(counts))
            )
        return bool(changed.rowcount)

    def progress(self, workitem_uid: str, percent: int, words: str, now: datetime | None = None) -> None:
        """Write how far the work is, when that is news."""
        moment = now or datetime.now(UTC)
        with self._worklist.changing(workitem_uid, moment) as change:
            present = next(iter(ups.items(change.document, ups.PROGRESS)), {})
            if (
                change.item.state is not State.IN_PROGRESS
                or ups.value(present, ups.tag("ProcedureStepProgressDescription")) == words
            ):
                return
            change.document = ups.progressed(
                change.document,
                ProcedureStepProgress=ups.text("DS", percent),
                ProcedureStepProgressDescription=ups.text("ST", words),
            )
            change.tell(EventType.PROGRESS, progress=percent)
