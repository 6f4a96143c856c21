"""When a series is complete: the announced number of instances, the grace after the release, or the quiet period."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import and_, case, func, select, update

from alnnode.db.clock import MAX_SKEW
from alnnode.db.queue_tables import BackfillSeriesRow
from alnnode.db.rows import SeriesFacts
from alnnode.db.series_jobs import lock_series
from alnnode.db.tables import Instance, Job, MarkOf, Series
from alnnode.records import JobState
from alnnode.records.priority import Priority

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.engine import Connection

    from alnnode.settings import Completion


_ANALYSED = (JobState.ANALYSED, JobState.DELIVERED, JobState.NOT_ANALYSED)


def receiving_jobs(connection: Connection) -> tuple[tuple[str, str], ...]:
    """Return job id and series UID of every RECEIVING job whose predecessor is not READY or RUNNING.

    A revision waits for its predecessor, so that its report can name the report that it replaces. Series of marks come first, so that
    images which were received together with marks use them.
    """
    marked = select(Instance.series_uid).join(MarkOf, MarkOf.sop_instance_uid == Instance.sop_instance_uid)
    earlier = select(Job.job_id).where(Job.state.in_((JobState.READY, JobState.RUNNING)))
    rows = connection.execute(
        select(Job.job_id, Job.series_uid)
        .where(Job.state == JobState.RECEIVING, Job.predecessor_id.is_(None) | Job.predecessor_id.not_in(earlier))
        .order_by(case((Job.series_uid.in_(marked), 0), else_=1), Job.created_at)
    )
    return tuple((job_id, series_uid) for job_id, series_uid in rows)


def is_selected(connection: Connection, job_id: str, series_uid: str) -> bool:
    """Return whether the routes have nothing to decide about a RECEIVING job.

    That is so if the job was READY before a late image was received (its ``due_at`` is set), or if an earlier revision of the series was
    analysed and its files exist. A route selected the series then; or a person asked for it, whom the routes would contradict.
    """
    was_ready = and_(Job.job_id == job_id, Job.due_at.is_not(None))
    analysed = and_(Job.series_uid == series_uid, Job.state.in_(_ANALYSED), Job.purged_at.is_(None))
    return connection.execute(select(Job.job_id).where(was_ready | analysed).limit(1)).first() is not None


def set_priority(connection: Connection, job_id: str, priority: Priority) -> None:
    """Give a job this priority, or the lowest when a backfill retrieves its series; it keeps a higher one that it has."""
    retrieved = select(BackfillSeriesRow.series_uid).where(
        BackfillSeriesRow.series_uid == Job.series_uid, BackfillSeriesRow.attempts > 0
    )
    own = case((and_(Job.revision == 1, retrieved.exists()), int(Priority.BACKFILL)), else_=int(priority))
    connection.execute(
        update(Job).where(Job.job_id == job_id).values(priority=case((Job.priority > own, Job.priority), else_=own))
    )


def facts_of_complete(connection: Connection, series_uid: str, completion: Completion, now: datetime) -> SeriesFacts | None:
    """Return the facts of the series when it is complete, else None; the series is locked."""
    series = lock_series(connection, series_uid)
    last, released, announced = series["last_received_at"], series["released_at"], series["announced"]
    if last > now + MAX_SKEW:  # the clock was set back: the waiting begins now
        since = now if released is not None and released >= last else released
        connection.execute(
            update(Series).where(Series.series_uid == series_uid).values(last_received_at=now, released_at=since)
        )
        last, released = now, since
    complete = now - last >= timedelta(seconds=completion.quiet)
    if completion.announced_count and announced:
        received = connection.execute(select(func.count()).where(Instance.series_uid == series_uid)).scalar_one()
        complete = complete or received >= announced
    elif released is not None and released >= last:
        complete = complete or now - released >= timedelta(seconds=completion.association_grace)
    if not complete:
        return None
    return SeriesFacts(
        calling_ae=series["calling_ae"],
        modality=series["modality"],
        body_part=series["body_part"],
        series_description=series["series_description"],
        study_description=series["study_description"],
        kernel=series["kernel"],
        slice_thickness=series["slice_thickness"],
        announced=announced,
    )
