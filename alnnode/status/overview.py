"""Numbers over all jobs, for the status page and for monitoring. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import func, or_, select

from alnnode.db import clock, row_counts
from alnnode.db.rows import SeriesFacts
from alnnode.db.tables import CommitmentRequest, Delivery, DeliveryState, Instance, Job, RequestState, Series
from alnnode.records import JobState
from alnnode.spool.spool import name_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy.engine import Connection, Engine

OPEN = (JobState.RECEIVING, JobState.READY, JobState.RUNNING, JobState.ANALYSED)
QUANTILES = (0.5, 0.95)
_SEARCHED = 10_000  # the most recent jobs, whose digests of UIDs are compared; all jobs are searched by id and UID
_PREFIX = 6  # minimum length of the beginning of an id or digest


@dataclass(frozen=True, slots=True)
class StoredObjects:
    """The received objects in the spool."""

    instances: int
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class DestinationCounts:
    """The deliveries to one destination, by state."""

    name: str
    pending: int
    trying: int  # of the pending ones, those of which an attempt has failed
    committing: int
    sent: int
    failed: int
    last_sent_at: datetime | None
    last_error: str | None


@dataclass(frozen=True, slots=True)
class HourlyJobs:
    """The numbers of jobs that were opened and that ended in one hour."""

    begins: datetime
    opened: int
    ended: int


@dataclass(frozen=True, slots=True)
class EndedJob:
    """The durations of a job that ended."""

    at: datetime
    waited: float  # s from the first image to the analysis
    worked: float  # s from there to the end


@dataclass(frozen=True, slots=True)
class SeriesSummary:
    """A series in the job list; without patient data."""

    modality: str
    description: str
    sender: str
    last_received_at: datetime


@dataclass(frozen=True, slots=True)
class RecentSeries:
    """A received series with its attributes for routes, and its newest job."""

    received_at: datetime
    job_id: str | None
    facts: SeriesFacts


class Overview:
    """Safe to share between threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def states(self) -> dict[JobState, int]:
        """Return how many jobs are in each state."""
        with self._engine.connect() as connection:
            return {JobState(state): count for (_, state), count in row_counts.counts(connection, row_counts.JOB).items()}

    def held(self) -> StoredObjects:
        """Return the number and size of the received objects."""
        with self._engine.connect() as connection:
            return StoredObjects(*connection.execute(select(func.count(), func.coalesce(func.sum(Instance.size), 0))).one())

    def now(self) -> datetime:
        """Return the time by which all times of jobs are written: that of the database."""
        return clock.now(self._engine)

    def oldest(self, now: datetime | None = None) -> dict[JobState, float]:
        """Return the age (s) of the oldest job in each state that is not final."""
        moment = now or clock.now(self._engine)
        query = select(Job.state, func.min(Job.created_at)).where(Job.state.in_(OPEN)).group_by(Job.state)
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return {JobState(state): (moment - created).total_seconds() for state, created in rows}

    def stages(self, now: datetime | None = None) -> dict[str, dict[float, float]]:
        """Return the seconds per stage of jobs that ended in the last hour, by quantile; without stages that no job reached."""
        since = (now or clock.now(self._engine)) - timedelta(hours=1)
        query = select(Job.created_at, Job.claimed_at, Job.finished_at).where(Job.finished_at >= since)
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        spans = {
            "until analysis": [(claimed - created).total_seconds() for created, claimed, _ in rows if claimed],
            "analysis and delivery": [
                (finished - claimed).total_seconds() for _, claimed, finished in rows if claimed and finished
            ],
        }
        return {
            stage: {q: sorted(values)[min(len(values) - 1, int(q * len(values)))] for q in QUANTILES}
            for stage, values in spans.items()
            if values
        }

    def hours(self, count: int = 24, now: datetime | None = None) -> tuple[HourlyJobs, ...]:
        """Return the numbers of jobs that were opened and ended per hour, the oldest hour first."""
        moment = (now or clock.now(self._engine)).replace(minute=0, second=0, microsecond=0)
        first = moment - timedelta(hours=count - 1)
        with self._engine.connect() as connection:
            opened = connection.execute(select(Job.created_at).where(Job.created_at >= first)).scalars().all()
            ended = connection.execute(select(Job.finished_at).where(Job.finished_at >= first)).scalars().all()
        tally = [[0, 0] for _ in range(count)]
        for column, times in enumerate((opened, ended)):
            for at in times:
                if at is not None:
                    tally[min(count - 1, int((at - first).total_seconds() // 3600))][column] += 1
        return tuple(HourlyJobs(first + timedelta(hours=n), *pair) for n, pair in enumerate(tally))

    def ended(self, hours: int = 24, now: datetime | None = None, limit: int = 1000) -> tuple[EndedJob, ...]:
        """Return the jobs that were analysed and ended in the last ``hours``, the newest first."""
        since = (now or clock.now(self._engine)) - timedelta(hours=hours)
        query = select(Job.finished_at, Job.created_at, Job.claimed_at).where(
            Job.finished_at >= since, Job.claimed_at.is_not(None)
        )
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(Job.finished_at.desc()).limit(limit)).all()
        return tuple(
            EndedJob(ended, (claimed - created).total_seconds(), (ended - claimed).total_seconds())
            for ended, created, claimed in rows
            if ended is not None and claimed is not None
        )

    def series(self, uids: Collection[str]) -> dict[str, SeriesSummary]:
        """Return summaries of series by Series Instance UID."""
        query = select(
            Series.series_uid, Series.modality, Series.series_description, Series.calling_ae, Series.last_received_at
        ).where(Series.series_uid.in_(uids))
        with self._engine.connect() as connection:
            return {row[0]: SeriesSummary(row[1], row[2], row[3], row[4]) for row in connection.execute(query)}

    def find(self, words: str, studies: Collection[str], limit: int = 200) -> tuple[str, ...]:
        """Return the ids of jobs of these studies, and of jobs whose id, UID or digest of a UID is, or begins with, ``words``."""
        jobs = select(Job.job_id, Job.study_uid, Job.series_uid, Job.created_at)
        of_uid = or_(Job.study_uid.in_([words, *studies]), Job.series_uid == words)
        beginning = words.lower()
        of_id = (Job.job_id >= beginning) & (Job.job_id < f"{beginning}g")  # "g" follows all hexadecimal digits
        named = jobs.where(of_uid | of_id if len(words) >= _PREFIX else of_uid)
        recent = jobs.order_by(Job.created_at.desc()).limit(_SEARCHED)
        with self._engine.connect() as connection:
            found = {row.job_id: row for row in connection.execute(named)}
            if len(words) >= _PREFIX:
                rows = connection.execute(recent)
                found |= {row.job_id: row for row in rows if _begins_digest(beginning, row.study_uid, row.series_uid)}
        newest = sorted(found.values(), key=lambda row: row.created_at, reverse=True)
        return tuple(row.job_id for row in newest[:limit])

    def commitment_requests(self) -> dict[RequestState, int]:
        """Return how many storage commitment requests of senders are in each state."""
        query = select(CommitmentRequest.state, func.count()).group_by(CommitmentRequest.state)
        with self._engine.connect() as connection:
            return {RequestState(state): count for state, count in connection.execute(query)}

    def failed_jobs(self, destination: str, limit: int) -> tuple[str, ...]:
        """Return the jobs whose delivery to a destination is FAILED and whose files are not deleted, the oldest first."""
        query = (
            select(Job.job_id)
            .join(Delivery, Delivery.job_id == Job.job_id)
            .where(Delivery.destination == destination, Delivery.state == DeliveryState.FAILED, Job.purged_at.is_(None))
            .order_by(Job.created_at)
            .limit(limit)
        )
        with self._engine.connect() as connection:
            return tuple(connection.execute(query).scalars())

    def recent_series(self, limit: int) -> tuple[RecentSeries, ...]:
        """Return the series that were received last, the newest first."""
        columns = [getattr(Series, name) for name in SeriesFacts.__dataclass_fields__]
        newest = select(Job.job_id).where(Job.series_uid == Series.series_uid).order_by(Job.revision.desc()).limit(1)
        query = select(Series.last_received_at, newest.scalar_subquery(), *columns).order_by(Series.last_received_at.desc())
        with self._engine.connect() as connection:
            return tuple(RecentSeries(row[0], row[1], SeriesFacts(*row[2:])) for row in connection.execute(query.limit(limit)))

    def destinations(self) -> tuple[DestinationCounts, ...]:
        """Return the counts of every destination that has deliveries."""
        with self._engine.connect() as connection:
            amounts = row_counts.counts(connection, row_counts.DELIVERY)
            names = sorted({name for name, _ in amounts})
            return tuple(_destination(connection, name, amounts) for name in names)


def _destination(connection: Connection, name: str, amounts: Mapping[tuple[str, str], int]) -> DestinationCounts:
    pending, committing, sent, failed = (amounts.get((name, state), 0) for state in DeliveryState)
    return DestinationCounts(name, pending, _retried(connection, name), committing, sent, failed, *_latest(connection, name))


def _retried(connection: Connection, destination: str) -> int:
    """Return the number of deliveries to a destination that failed at least once and are tried again."""
    failed = (Delivery.state == DeliveryState.PENDING) & Delivery.last_error.is_not(None)
    query = select(func.count()).where(Delivery.destination == destination, failed)
    return int(connection.execute(query).scalar_one())


def _latest(connection: Connection, destination: str) -> tuple[datetime | None, str | None]:
    """Return when the latest results were sent to a destination, and its latest error."""
    sent = select(func.max(Delivery.sent_at)).where(Delivery.destination == destination)
    errors = select(Delivery.last_error).where(Delivery.destination == destination, Delivery.last_error.is_not(None))
    return connection.execute(sent).scalar(), connection.execute(errors.order_by(Delivery.due_at.desc()).limit(1)).scalar()


def _begins_digest(beginning: str, study_uid: str, series_uid: str) -> bool:
    return any(name_of(uid).startswith(beginning) for uid in (study_uid, series_uid))
