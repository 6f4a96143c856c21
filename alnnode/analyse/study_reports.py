"""Whether the radiologist learns of a study by another of its series, so that "not analysed" need not be reported for this one.

A CT study has a localizer, thick slices and several kernels. A report for each of them would hide the one report that matters; no report
at all could be read as "nothing found". So one report says that a study was not analysed, if none of its series was.

A job that ends NOT_ANALYSED while another job of the study is open holds its report back. If the other job then ends without a report
(FAILED, or NOT_ANALYSED without results), the report that was held back is delivered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import and_, or_, select

from alnnode.db.tables import Delivery, Job, Result
from alnnode.db.transitions import change_state
from alnnode.deliver import delivery_rows
from alnnode.records import JobState

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Connection

    from alnnode.db.rows import Claim
    from alnnode.settings import Settings

# The last of the open jobs decides once more: it reports the study if it cannot be analysed either. A series that is still being received does
# not count: perhaps no route selects it, and nobody would decide then.
_ANALYSED_OR_OPEN = (JobState.READY, JobState.RUNNING, JobState.ANALYSED, JobState.DELIVERED)
_HAS_DELIVERY = select(Delivery.job_id).where(Delivery.job_id == Job.job_id).exists()


def held_destinations(settings: Settings) -> dict[str, Collection[str]]:
    """Return the object roles that each destination wants of a report that was held back; empty if the site holds none back."""
    if settings.analysis.report_not_analysed != "study":
        return {}
    return {destination.name: destination.objects for destination in settings.destinations}


def lock_study(connection: Connection, study_uid: str) -> None:
    """Lock the jobs of a study: of two series that end at the same time, the second must see the first as ended.

    The order is that in which the recorder locks the jobs of the series of a batch, so that the two never wait for each other.
    """
    series = Job.series_uid.collate("C") if connection.dialect.name == "postgresql" else Job.series_uid
    jobs = select(Job.job_id).where(Job.study_uid == study_uid).order_by(series, Job.revision)
    connection.execute(jobs.with_for_update()).all()


def is_study_reported(connection: Connection, claim: Claim) -> bool:
    """Return whether another series of the study is analysed, is still to be analysed, or is reported, inside a transaction that writes.

    False if an earlier revision of this series was delivered, because this report must replace that one. The jobs of the study are
    locked.
    """
    lock_study(connection, claim.study_uid)
    earlier = and_(Job.series_uid == claim.series_uid, Job.job_id != claim.job_id, _HAS_DELIVERY)
    if connection.execute(select(Job.job_id).where(earlier).limit(1)).first() is not None:
        return False
    return _is_reported(connection, claim.study_uid, Job.series_uid != claim.series_uid)


def deliver_held_report(
    connection: Connection, study_uid: str, destinations: Mapping[str, Collection[str]], now: datetime
) -> None:
    """Open the deliveries of the newest report that was held back, if no series of the study is analysed, open or reported now.

    Call this inside the transaction in which a job of the study ends without a report, after `lock_study`.
    """
    if not destinations or _is_reported(connection, study_uid):
        return
    has_results = select(Result.job_id).where(Result.job_id == Job.job_id).exists()
    held = (Job.study_uid == study_uid, Job.state == JobState.NOT_ANALYSED, Job.purged_at.is_(None), has_results)
    newest = select(Job.job_id).where(*held).order_by(Job.finished_at.desc(), Job.job_id).limit(1)
    job_id = connection.execute(newest).scalar_one_or_none()
    if job_id is not None and delivery_rows.open_for_results(connection, job_id, destinations, now):
        change_state(connection, job_id, JobState.NOT_ANALYSED, JobState.ANALYSED, finished_at=None)


def _is_reported(connection: Connection, study_uid: str, *which: ColumnElement[bool]) -> bool:
    reported = or_(Job.state.in_(_ANALYSED_OR_OPEN), _HAS_DELIVERY)
    query = select(Job.job_id).where(Job.study_uid == study_uid, reported, *which)
    return connection.execute(query.limit(1)).first() is not None
