"""Figures over all jobs, for people and for monitoring. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import case, func, select

from alnnode.records import JobState
from alnnode.store.tables import Delivery, DeliveryState, Instance, Job

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

OPEN = (JobState.RECEIVING, JobState.READY, JobState.RUNNING, JobState.ANALYSED)
QUANTILES = (0.5, 0.95)


@dataclass(frozen=True, slots=True)
class Stock:
    """What the spool holds of received objects."""

    instances: int
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class DestinationFigures:
    """Where one destination stands."""

    name: str
    pending: int
    sent: int
    failed: int
    last_sent_at: datetime | None
    last_error: str | None


@dataclass(frozen=True, slots=True)
class Hour:
    """Jobs that came in and ended in one hour."""

    begins: datetime
    opened: int
    ended: int


class Overview:
    """Safe to share between threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def states(self) -> dict[JobState, int]:
        """How many jobs are in each state."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(Job.state, func.count()).group_by(Job.state)).all()
        return {JobState(state): count for state, count in rows}

    def held(self) -> Stock:
        """How many objects, and how large."""
        with self._engine.connect() as connection:
            return Stock(*connection.execute(select(func.count(), func.coalesce(func.sum(Instance.size), 0))).one())

    def oldest(self, now: datetime | None = None) -> dict[JobState, float]:
        """Age (s) of the oldest job in each state that is no end."""
        moment = now or datetime.now(UTC)
        query = select(Job.state, func.min(Job.created_at)).where(Job.state.in_(OPEN)).group_by(Job.state)
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return {JobState(state): (moment - created).total_seconds() for state, created in rows}

    def stages(self, now: datetime | None = None) -> dict[str, dict[float, float]]:
        """Seconds per stage of the jobs that ended in the last hour, by quantile; a stage that none went through is left out."""
        since = (now or datetime.now(UTC)) - timedelta(hours=1)
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

    def hours(self, count: int = 24, now: datetime | None = None) -> tuple[Hour, ...]:
        """Jobs opened and ended per hour, the oldest hour first."""
        moment = (now or datetime.now(UTC)).replace(minute=0, second=0, microsecond=0)
        first = moment - timedelta(hours=count - 1)
        with self._engine.connect() as connection:
            opened = connection.execute(select(Job.created_at).where(Job.created_at >= first)).scalars().all()
            ended = connection.execute(select(Job.finished_at).where(Job.finished_at >= first)).scalars().all()
        tally = [[0, 0] for _ in range(count)]
        for column, times in enumerate((opened, ended)):
            for at in times:
                if at is not None:
                    tally[min(count - 1, int((at - first).total_seconds() // 3600))][column] += 1
        return tuple(Hour(first + timedelta(hours=n), *pair) for n, pair in enumerate(tally))

    def destinations(self) -> tuple[DestinationFigures, ...]:
        """Every destination that ever had a delivery."""
        amounts = [
            func.sum(case((Delivery.state == state, 1), else_=0))
            for state in (DeliveryState.PENDING, DeliveryState.SENT, DeliveryState.FAILED)
        ]
        query = select(Delivery.destination, *amounts, func.max(Delivery.sent_at)).group_by(Delivery.destination)
        errors = (
            select(Delivery.destination, Delivery.last_error)
            .where(Delivery.last_error.is_not(None))
            .order_by(Delivery.due_at.asc())
        )
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(Delivery.destination)).all()
            last = dict(row._tuple() for row in connection.execute(errors))  # noqa: SLF001 - the public name of a Row's tuple
        return tuple(
            DestinationFigures(name, pending, sent, failed, at, last.get(name)) for name, pending, sent, failed, at in rows
        )
