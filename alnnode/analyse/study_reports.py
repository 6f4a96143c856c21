"""The one report on a study of which no series was analysed.

A CT study has a localizer, thick slices and several kernels. A "not analysed" report for each of them would hide the one report that matters; no
report at all could be read as "nothing found". So one report says that a study was not analysed, if none of its series was.

A job that ends NOT_ANALYSED while another series of the study is open holds its report back: ``due_at`` of the job is set until that is
decided. The sweep decides when no series of the study is open any more, regardless of what ended the last one: a worker, an operator, a workitem, the
routes or a destination. It opens the deliveries of one report, or of none if the study was analysed or reported.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import and_, or_, select, update
from sqlalchemy.orm import aliased

from alnnode.db import clock
from alnnode.db.engine import for_single_reads, for_writing
from alnnode.db.series_jobs import lock_jobs
from alnnode.db.tables import Delivery, Job
from alnnode.db.transitions import change_state
from alnnode.deliver import delivery_rows
from alnnode.records import JobState

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Connection, Engine

    from alnnode.db.rows import Claim
    from alnnode.settings import Settings

# A series that is still received is open: no route may select it, but then it ends SKIPPED, and the sweep decides.
_OPEN = (JobState.RECEIVING, JobState.READY, JobState.RUNNING, JobState.ANALYSED)
_HAS_DELIVERY = select(Delivery.job_id).where(Delivery.job_id == Job.job_id).exists()
# A job that was cancelled, or that a destination refused, has deliveries of which none was sent: nobody has its report.
_REPORTED = or_(
    Job.state == JobState.DELIVERED,
    select(Delivery.job_id).where(Delivery.job_id == Job.job_id, Delivery.sent_at.is_not(None)).exists(),
)
# As a range, because SQLite uses no index for IS NOT NULL.
_HELD = and_(Job.state == JobState.NOT_ANALYSED, Job.due_at > datetime.fromtimestamp(0, UTC))


class HeldReports:
    """The reports that are held back, for the sweep. Safe to share between threads and processes."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine, self._writer, self._reader = engine, for_writing(engine), for_single_reads(engine)
        wanted = settings.destinations if settings.analysis.report_not_analysed == "study" else ()
        self._destinations = {destination.name: destination.objects for destination in wanted}

    def decide(self, now: datetime | None = None) -> tuple[str, ...]:
        """Decide for each study that has no open series now; return the ids of the jobs whose reports are to be delivered.

        No report is sent that is outdated, because its series has a later revision, or after the settings changed to send none for a study.
        """
        other = aliased(Job)
        is_open = select(other.job_id).where(other.study_uid == Job.study_uid, other.state.in_(_OPEN)).exists()
        with self._reader.connect() as connection:
            studies = connection.execute(select(Job.study_uid).where(_HELD, ~is_open).distinct()).scalars().all()
        moment = now or (clock.now(self._engine) if studies else datetime.now(UTC))
        decided = []
        for study_uid in studies:
            with self._writer.begin() as connection:
                decided.append(_decide(connection, study_uid, self._destinations, moment))
        return tuple(job_id for job_id in decided if job_id is not None)


def _decide(connection: Connection, study_uid: str, destinations: Mapping[str, Collection[str]], now: datetime) -> str | None:
    lock_jobs(connection, Job.study_uid == study_uid)
    if _has_job(connection, study_uid, Job.state.in_(_OPEN)):  # since the query
        return None
    later = aliased(Job)
    outdated = select(later.job_id).where(later.series_uid == Job.series_uid, later.revision > Job.revision).exists()
    held = and_(Job.study_uid == study_uid, _HELD)
    newest = select(Job.job_id).where(held, ~outdated, Job.purged_at.is_(None)).order_by(Job.finished_at.desc(), Job.job_id)
    job_id = connection.execute(newest.limit(1)).scalar_one_or_none()
    connection.execute(update(Job).where(held).values(due_at=None))
    if job_id is None or _has_job(connection, study_uid, _REPORTED):
        return None
    if not delivery_rows.open_for_results(connection, job_id, destinations, now):
        return None
    change_state(connection, job_id, JobState.NOT_ANALYSED, JobState.ANALYSED, finished_at=None)
    return job_id


def is_study_reported(connection: Connection, claim: Claim) -> bool:
    """Return whether another series of the study is open, analysed or reported, inside a transaction that writes.

    False if an earlier revision of this series was delivered, because this report must replace that one. The jobs of the study are
    locked.
    """
    # Of two jobs of a study that end at the same time, the second sees what the first decided.
    lock_jobs(connection, Job.study_uid == claim.study_uid)
    earlier = and_(Job.series_uid == claim.series_uid, Job.job_id != claim.job_id, _HAS_DELIVERY)
    if connection.execute(select(Job.job_id).where(earlier).limit(1)).first() is not None:
        return False
    return _has_job(connection, claim.study_uid, Job.series_uid != claim.series_uid, or_(Job.state.in_(_OPEN), _REPORTED))


def _has_job(connection: Connection, study_uid: str, *which: ColumnElement[bool]) -> bool:
    return connection.execute(select(Job.job_id).where(Job.study_uid == study_uid, *which).limit(1)).first() is not None
