"""Forget the bytes of series whose jobs ended long enough ago; the rows of jobs and results stay as the record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import and_, delete, func, or_, select, update

from alnnode.analyse import mark_rows
from alnnode.db.tables import Instance, Job, Result
from alnnode.receive.series_rows import lock_series
from alnnode.records import JobState

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Connection


def _kept(delivered_before: datetime, failed_before: datetime) -> ColumnElement[bool]:
    """Jobs whose bytes are still needed."""
    return and_(
        Job.purged_at.is_(None),
        ~or_(
            and_(Job.state == JobState.DELIVERED, Job.finished_at < delivered_before),
            and_(Job.state.in_((JobState.FAILED, JobState.SKIPPED)), Job.finished_at < failed_before),
        ),
    )


def expired(connection: Connection, delivered_before: datetime, failed_before: datetime) -> tuple[str, ...]:
    """Series UIDs that hold bytes and whose jobs have all ended before these times; first those that ended first."""
    needed = select(Job.series_uid).where(_kept(delivered_before, failed_before) | mark_rows.needed())
    query = select(Job.series_uid).where(Job.purged_at.is_(None), Job.series_uid.not_in(needed)).group_by(Job.series_uid)
    return tuple(connection.execute(query.order_by(func.max(Job.finished_at), Job.series_uid)).scalars())


def forget(
    connection: Connection, series_uid: str, delivered_before: datetime, failed_before: datetime, now: datetime
) -> tuple[str, ...]:
    """Delete the instance rows of one series and return the paths (relative to the spool) of all its files.

    The caller deletes the files inside the same transaction, while the series is locked: a slice that is sent again at this
    moment waits, and is then recorded as new.
    """
    lock_series(connection, series_uid)
    busy = select(Job.job_id).where(Job.series_uid == series_uid, _kept(delivered_before, failed_before) | mark_rows.needed())
    if connection.execute(busy.limit(1)).first() is not None:
        return ()
    jobs = select(Job.job_id).where(Job.series_uid == series_uid, Job.purged_at.is_(None))
    paths = [
        *connection.execute(select(Instance.path).where(Instance.series_uid == series_uid)).scalars(),
        *connection.execute(select(Result.path).where(Result.job_id.in_(jobs))).scalars(),
    ]
    mark_rows.forget(connection, series_uid)
    connection.execute(delete(Instance).where(Instance.series_uid == series_uid))
    connection.execute(update(Job).where(Job.series_uid == series_uid, Job.purged_at.is_(None)).values(purged_at=now))
    return tuple(paths)
