"""Store event reports for the subscribers of workitems until they are sent (PS3.4 CC.2.4)."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import delete, func, insert, select, update

from alnnode.db import clock
from alnnode.db.engine import for_single_reads, for_writing
from alnnode.db.worklist_tables import EventRow, SubscriptionRow

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

    from alnnode.worklist.ups import UpsState

RETENTION = timedelta(days=1)  # how long a report waits for its subscriber
BATCH = 100  # reports of one query


class EventType(IntEnum):
    """PS3.4 Table CC.2.4-1."""

    STATE = 1
    CANCEL_REQUESTED = 2
    PROGRESS = 3


class EventReport(NamedTuple):
    """An event of a workitem, with its state after the event; ``progress`` is in percent."""

    workitem_uid: str
    kind: EventType
    state: UpsState
    progress: int | None = None


def report_to_subscribers(connection: Connection, event: EventReport) -> bool:
    """Add a report for each subscriber of a workitem; return whether there is any subscriber."""
    query = select(SubscriptionRow.subscriber).where(SubscriptionRow.workitem_uid == event.workitem_uid)
    subscribers = connection.execute(query).scalars().all()
    for subscriber in subscribers:
        add_report(connection, subscriber, event)
    return bool(subscribers)


def add_report(connection: Connection, subscriber: str, event: EventReport) -> None:
    """Add a report for one subscriber."""
    connection.execute(
        insert(EventRow).values(
            subscriber=subscriber,
            workitem_uid=event.workitem_uid,
            event_type=event.kind,
            state=event.state,
            progress=event.progress,
            sent=False,
            at=clock.now(connection),
        )
    )


class EventReports:
    """Safe to share between threads."""

    def __init__(self, engine: Engine) -> None:
        self._writer, self._reader = for_writing(engine), for_single_reads(engine)

    def before_first_unsent(self, subscriber: str) -> int:
        """Return the id before the first report that was not sent to this subscriber; if there is none, the highest id of all reports."""
        unsent = select(func.min(EventRow.event_id)).where(EventRow.subscriber == subscriber, EventRow.sent.is_(False))
        with self._reader.connect() as connection:
            first: int | None = connection.execute(unsent).scalar_one_or_none()
            if first is not None:
                return first - 1
            return int(connection.execute(select(func.coalesce(func.max(EventRow.event_id), 0))).scalar_one())

    def after(self, subscriber: str, event_id: int) -> tuple[EventRow, ...]:
        """Return the reports for a subscriber after this id, in order; also unsent reports of a smaller id, which were committed later."""
        query = select(EventRow.__table__).where(
            EventRow.subscriber == subscriber, (EventRow.event_id > event_id) | EventRow.sent.is_(False)
        )
        with self._reader.connect() as connection:
            rows = connection.execute(query.order_by(EventRow.event_id).limit(BATCH)).mappings().all()
        return tuple(EventRow(**row) for row in rows)

    def mark_sent(self, event_id: int) -> None:
        """Note that a report was sent."""
        with self._writer.begin() as connection:
            connection.execute(update(EventRow).where(EventRow.event_id == event_id).values(sent=True))

    def delete_old(self, now: datetime) -> None:
        """Delete reports that are older than `RETENTION`, sent or not."""
        with self._writer.begin() as connection:
            connection.execute(delete(EventRow).where(EventRow.at < now - RETENTION))
