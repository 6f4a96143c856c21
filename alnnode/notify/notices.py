"""Write notices: of faults that begin, last and end, and of jobs that fail. Several observers may run: each event is written once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

from sqlalchemy import delete, or_, select, update

from alnnode.db.engine import for_writing
from alnnode.db.inserts import insert_new
from alnnode.db.notify_tables import ConditionRow, NoticeRow
from alnnode.db.tables import Job
from alnnode.notify.faults import Faults
from alnnode.records import JobState

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

    from alnnode.notify.faults import Fault
    from alnnode.settings import Settings

LOOK_BACK = timedelta(days=1)  # jobs that failed earlier are not told, for example when notifications are switched on
CANCELLED = "cancelled by %"  # reasons of jobs that a person ended


@dataclass(frozen=True, slots=True)
class Event:
    """What a notice says, and what identifies it."""

    kind: str
    subject: str
    since: datetime
    text: str


class Notices:
    """Observes the node and writes notices."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._faults, self._writer = Faults(settings), for_writing(engine)
        self._after = timedelta(seconds=settings.notify.after)

    def observe(self, now: datetime) -> int:
        """Write the notices of all events since the last call; return how many were written now.

        Raises:
            OSError, SQLAlchemyError: the disk or the database fails; the next call continues.
        """
        with self._writer.begin() as connection:
            events = [*self._conditions(connection, now), *_failed_jobs(connection, now)]
            return sum(_write(connection, event, now) for event in events)

    def _conditions(self, connection: Connection, now: datetime) -> list[Event]:
        present = {fault.name: fault for fault in self._faults.present(connection)}
        known = {row.name: row for row in connection.execute(select(ConditionRow.__table__)).all()}
        events = []
        for name in present.keys() - known.keys():
            insert_new(connection, ConditionRow, {"name": name, "since": now})
        for name, row in known.items():
            since = min(row.since, now)  # it lies in the future if the clock was set back
            short = name not in present and row.notified_at is None
            if short or self._faults.is_gone(name):
                _forget(connection, name)
            elif end := self._faults.end(connection, name, since):
                if name not in present:
                    events.append(Event(end.kind, name, since, end.text))
                    _forget(connection, name)
                elif row.notified_at is None:  # the destination accepts some results: the waiting begins now
                    connection.execute(update(ConditionRow).where(ConditionRow.name == name).values(since=now))
            elif row.notified_at is None and self._lasts(present[name], since, now):
                fault = present[name]
                events.append(Event(fault.kind, name, since, f"{fault.text} First seen at {since:%Y-%m-%d %H:%M} UTC."))
                changed = {"notified_at": now, "since": since}
                connection.execute(update(ConditionRow).where(ConditionRow.name == name).values(changed))
        return events

    def _lasts(self, fault: Fault, since: datetime, now: datetime) -> bool:
        return fault.at_once or now - since >= self._after


def _forget(connection: Connection, name: str) -> None:
    connection.execute(delete(ConditionRow).where(ConditionRow.name == name))


def _failed_jobs(connection: Connection, now: datetime) -> list[Event]:
    """Return the jobs that failed and have no notice. A series that cannot be analysed, and a job that a person cancelled, are no faults."""
    told = select(NoticeRow.event_id).where(
        NoticeRow.kind == "job_failed", NoticeRow.subject == Job.job_id, NoticeRow.since == Job.finished_at
    )
    failed = (
        select(Job.job_id, Job.finished_at, Job.reason)
        .where(
            Job.state == JobState.FAILED,
            Job.finished_at >= now - LOOK_BACK,
            or_(Job.not_analysed.is_(None), Job.reason != Job.not_analysed),
            or_(Job.reason.is_(None), Job.reason.not_like(CANCELLED)),
            ~told.exists(),
        )
        .order_by(Job.finished_at, Job.job_id)
        .limit(1000)
    )
    return [
        Event("job_failed", row.job_id, row.finished_at, f"Job {row.job_id} failed: {row.reason or 'no reason was recorded'}")
        for row in connection.execute(failed).all()
    ]


def _write(connection: Connection, event: Event, now: datetime) -> bool:
    values = {"kind": event.kind, "subject": event.subject, "since": event.since, "text": event.text, "at": now}
    return insert_new(connection, NoticeRow, {"event_id": uuid4().hex, **values})
