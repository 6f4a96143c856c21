"""The state of a backfill in the database: a run that was stopped or killed goes on where it was, and asks nothing a second time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import func, select, update

from alnnode.db.engine import for_writing
from alnnode.db.inserts import insert_new
from alnnode.db.queue_tables import BackfillDayRow, BackfillSeriesRow, BackfillState
from alnnode.db.tables import Instance, Job
from alnnode.db.transitions import MAX_TEXT
from alnnode.records import JobState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Engine

    from alnnode.backfill.search import FoundSeries

ATTEMPTS = 3
PAUSE = timedelta(minutes=1)  # before the next attempt, times the number of attempts
_WAITING = (JobState.RECEIVING, JobState.READY)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A series to retrieve; ``attempt`` is 1 for the first attempt."""

    series_uid: str
    study_uid: str
    images: int | None
    attempt: int


class BackfillRows:
    """The rows of one archive and one search. One process at a time works on an archive."""

    def __init__(self, engine: Engine, archive: str, conditions: Sequence[str]) -> None:
        self._engine, self._writer, self._archive = engine, for_writing(engine), archive
        self._search = hashlib.sha256("\n".join(conditions).encode()).hexdigest()[:32]

    def is_searched(self, day: date) -> bool:
        """Return whether the series of a day are recorded."""
        return self._engine_one(select(BackfillDayRow.day).where(*self._of_day(day))) is not None

    def record_day(self, day: date, found: Sequence[FoundSeries], now: datetime, *, closed: bool) -> int:
        """Record the series of a day; return how many are new. A day that is ``closed`` is not searched again."""
        new = 0
        with self._writer.begin() as connection:
            for one in found:
                row = {"series_uid": one.series_uid, "study_uid": one.study_uid, "images": one.images, "day": day}
                state = {"archive": self._archive, "state": BackfillState.FOUND, "attempts": 0, "due_at": now}
                new += insert_new(connection, BackfillSeriesRow, row | state)
            if closed:
                insert_new(connection, BackfillDayRow, {"archive": self._archive, "search": self._search, "day": day})
        return new

    def next(self, first: date, last: date, now: datetime) -> Wanted | None:
        """Return the next series to retrieve, of the newest day first, and count the attempt; None when none is due.

        A series of which the node has all images is RETRIEVED without a request.
        """
        rows = BackfillSeriesRow
        due = (*self._open(first, last), rows.due_at <= now)
        held = select(func.count()).where(Instance.series_uid == rows.series_uid).scalar_subquery()
        query = select(rows.series_uid, rows.study_uid, rows.images, rows.attempts, held.label("held")).where(*due)
        with self._writer.begin() as connection:
            while row := connection.execute(query.order_by(rows.day.desc(), rows.series_uid).limit(1)).one_or_none():
                this = update(rows).where(rows.series_uid == row.series_uid)
                # Without a number, an attempt that was killed may have left a part of the series.
                if row.held and (not row.attempts if row.images is None else row.held >= row.images):
                    connection.execute(this.values(state=BackfillState.RETRIEVED))
                    continue
                connection.execute(this.values(attempts=rows.attempts + 1))
                return Wanted(row.series_uid, row.study_uid, row.images, row.attempts + 1)
        return None

    def next_due(self, first: date, last: date) -> datetime | None:
        """Return when the next series may be retrieved; None when none is left."""
        found = self._engine_one(select(func.min(BackfillSeriesRow.due_at)).where(*self._open(first, last)))
        return found if isinstance(found, datetime) else None

    def retrieved(self, wanted: Wanted) -> None:
        """Record that a series arrived."""
        self._change(wanted, state=BackfillState.RETRIEVED, last_error=None)

    def postponed(self, wanted: Wanted) -> None:
        """Record that an attempt was stopped by the node itself; it does not count."""
        self._change(wanted, attempts=wanted.attempt - 1)

    def failed(self, wanted: Wanted, error: str, now: datetime) -> None:
        """Record a failed attempt: the series is retrieved later, and FAILED after `ATTEMPTS` attempts."""
        state = BackfillState.FAILED if wanted.attempt >= ATTEMPTS else BackfillState.FOUND
        self._change(wanted, state=state, due_at=now + PAUSE * wanted.attempt, last_error=error[:MAX_TEXT])

    def retry_failed(self, first: date, last: date, now: datetime) -> int:
        """Make the FAILED series of these days due; return how many."""
        failed = self._of_days(first, last, BackfillState.FAILED)
        with self._writer.begin() as connection:
            change = update(BackfillSeriesRow).where(*failed).values(state=BackfillState.FOUND, attempts=0, due_at=now)
            return int(connection.execute(change).rowcount)

    def counts(self, first: date, last: date) -> dict[str, int]:
        """Return the number of series of these days in each state."""
        rows = BackfillSeriesRow
        query = select(rows.state, func.count()).where(rows.archive == self._archive, rows.day.between(first, last))
        with self._engine.connect() as connection:
            return {row[0]: row[1] for row in connection.execute(query.group_by(rows.state))}

    def waiting_jobs(self) -> int:
        """Return how many jobs wait for their images or for a worker."""
        return int(str(self._engine_one(select(func.count()).where(Job.state.in_(_WAITING)))))

    def _open(self, first: date, last: date) -> tuple[ColumnElement[bool], ...]:
        return self._of_days(first, last, BackfillState.FOUND)

    def _of_days(self, first: date, last: date, state: str) -> tuple[ColumnElement[bool], ...]:
        rows = BackfillSeriesRow
        return rows.archive == self._archive, rows.state == state, rows.day.between(first, last)

    def _of_day(self, day: date) -> tuple[ColumnElement[bool], ...]:
        return BackfillDayRow.archive == self._archive, BackfillDayRow.search == self._search, BackfillDayRow.day == day

    def _change(self, wanted: Wanted, **values: object) -> None:
        with self._writer.begin() as connection:
            connection.execute(
                update(BackfillSeriesRow).where(BackfillSeriesRow.series_uid == wanted.series_uid).values(values)
            )

    def _engine_one(self, query: object) -> object:
        with self._engine.connect() as connection:
            return connection.execute(query).scalar_one_or_none()  # type: ignore[call-overload]
