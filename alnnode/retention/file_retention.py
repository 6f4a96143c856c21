"""Deletion of the files of series whose jobs ended long enough ago. The rows of jobs and results stay (`alnnode.retention.row_retention`)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import and_, delete, func, or_, select, update

from alnnode.db import clock
from alnnode.db.engine import for_writing
from alnnode.db.series_jobs import lock_jobs, lock_series
from alnnode.db.tables import Delivery, Instance, Job, MarkOf, Result
from alnnode.deliver.delivery_rows import OPEN
from alnnode.records import JobState
from alnnode.retention.auditing import RetentionAuditor

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.engine import Connection, Engine

    from alnnode.audit.trail import Trail
    from alnnode.spool.spool import Spool

NEVER = datetime.fromtimestamp(0, UTC)  # no job ended before


@dataclass(frozen=True, slots=True)
class FileExpiry:
    """Files of a series may be deleted when all its jobs ended before these times, by their final state."""

    delivered_before: datetime = NEVER
    failed_before: datetime = NEVER
    skipped_before: datetime = NEVER


class _SeriesFiles(NamedTuple):
    """The files of a series (relative to the spool) and its jobs; none when the series is needed."""

    study_uid: str
    paths: tuple[str, ...] = ()
    job_ids: tuple[str, ...] = ()


class FileRetention:
    """Deletes the received objects and the results of series. Safe to share between threads and processes.

    ``now`` arguments default to the clock of the database; all times are aware.
    """

    def __init__(self, engine: Engine, spool: Spool, trail: Trail) -> None:
        self._engine, self._spool, self._trail = engine, spool, trail
        self._writer = for_writing(engine)

    def delete_expired(self, expiry: FileExpiry, now: datetime | None = None) -> int:
        """Delete the files of expired series; return the number of series."""
        return self._delete(expiry, now or clock.now(self._engine), lambda: False)

    def free_space(self, enough: Callable[[], bool], now: datetime | None = None) -> int:
        """Delete files before their time, until ``enough``, because the disk fills; return the number of series.

        SKIPPED series come first, then DELIVERED and NOT_ANALYSED ones, each in the order in which they ended. A series that waits, runs or FAILED keeps its
        files, and so does a series of a reader's marks: its images may still be received.
        """
        moment = now or clock.now(self._engine)
        skipped = FileExpiry(skipped_before=moment)
        ended = FileExpiry(skipped_before=moment, delivered_before=moment)
        return sum(self._delete(expiry, moment, enough, keep_marks=True) for expiry in (skipped, ended))

    def _delete(self, expiry: FileExpiry, now: datetime, enough: Callable[[], bool], *, keep_marks: bool = False) -> int:
        with self._engine.connect() as connection:
            expired = _expired(connection, expiry, keep_marks=keep_marks)
        deleted = 0
        with RetentionAuditor(self._trail) as auditor:
            for series_uid in expired:
                if enough():
                    break
                # The files are deleted while the series is locked: an image that is received now waits, and is then recorded as new.
                with self._writer.begin() as connection:
                    found = _delete_instances(connection, series_uid, expiry, now)
                    paths = [*found.paths, *self._unrecorded(found)]
                    auditor.begin_series(map(self._spool.path, paths))
                    self._spool.delete(paths)
                if paths:
                    deleted += 1
                    auditor.series_deleted(found.study_uid, len(paths))
        return deleted

    def _unrecorded(self, found: _SeriesFiles) -> list[str]:
        """Return the results that a worker wrote and did not record, because it was killed or the disk was full."""
        recorded = set(found.paths)
        return [path for job_id in found.job_ids for path in self._spool.results(job_id) if path not in recorded]


def _needed(expiry: FileExpiry) -> ColumnElement[bool]:
    """Jobs whose files are needed: they have not expired, or their series holds marks on a series of images that has files.

    A job with an open delivery has not expired, also if it FAILED: another destination refused the results, and this one still gets them.

    Marks on marks are not used. Without that exception, a report that names its own series, or two that name each other, would be kept
    for ever.
    """
    expired = or_(
        and_(Job.state == JobState.DELIVERED, Job.finished_at < expiry.delivered_before),
        # A report that is held back may still be sent (`alnnode.analyse.study_reports`).
        and_(Job.state == JobState.NOT_ANALYSED, Job.due_at.is_(None), Job.finished_at < expiry.delivered_before),
        and_(Job.state == JobState.FAILED, Job.finished_at < expiry.failed_before),
        and_(Job.state == JobState.SKIPPED, Job.finished_at < expiry.skipped_before),
    )
    to_send = Job.job_id.in_(select(Delivery.job_id).where(Delivery.state.in_(OPEN)))
    marks = _series_of_marks()
    images = select(Job.series_uid).where(Job.purged_at.is_(None), Job.series_uid.not_in(marks))
    return and_(Job.purged_at.is_(None), ~expired | to_send) | Job.series_uid.in_(marks.where(MarkOf.series_uid.in_(images)))


def _series_of_marks() -> Select[str]:
    return select(Instance.series_uid).join(MarkOf, MarkOf.sop_instance_uid == Instance.sop_instance_uid)


def _expired(connection: Connection, expiry: FileExpiry, *, keep_marks: bool) -> tuple[str, ...]:
    """Return the UIDs of series that have files, all of whose jobs have expired, in the order in which they ended."""
    needed = select(Job.series_uid).where(_needed(expiry))
    query = select(Job.series_uid).where(Job.purged_at.is_(None), Job.series_uid.not_in(needed)).group_by(Job.series_uid)
    if keep_marks:
        query = query.where(Job.series_uid.not_in(_series_of_marks()))
    return tuple(connection.execute(query.order_by(func.max(Job.finished_at), Job.series_uid)).scalars())


def _delete_instances(connection: Connection, series_uid: str, expiry: FileExpiry, now: datetime) -> _SeriesFiles:
    """Lock a series, delete its instance rows and mark its jobs as purged, if it is still expired; return its recorded files."""
    study_uid = lock_series(connection, series_uid)["study_uid"]
    # The jobs too: a worker or the sweep may be about to open a delivery of a job that has ended.
    lock_jobs(connection, Job.series_uid == series_uid)
    needed = select(Job.job_id).where(Job.series_uid == series_uid, _needed(expiry))
    if connection.execute(needed.limit(1)).first() is not None:
        return _SeriesFiles(study_uid)
    with_files = (Job.series_uid == series_uid, Job.purged_at.is_(None))
    instances = Instance.series_uid == series_uid
    results = Result.job_id.in_(select(Job.job_id).where(*with_files))
    paths = [
        *connection.execute(select(Instance.path).where(instances)).scalars(),
        *connection.execute(select(Result.path).where(results)).scalars(),
    ]
    marks = MarkOf.sop_instance_uid.in_(select(Instance.sop_instance_uid).where(instances))
    connection.execute(delete(MarkOf).where(marks))
    connection.execute(delete(Instance).where(instances))
    purged = connection.execute(update(Job).where(*with_files).values(purged_at=now).returning(Job.job_id)).scalars()
    return _SeriesFiles(study_uid, tuple(paths), tuple(purged))
