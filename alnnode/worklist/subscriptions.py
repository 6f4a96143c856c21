"""Who is told of the changes of workitems (PS3.4 CC.2.3 and CC.2.4), and the event reports that wait for them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from alnnode.db.engine import for_single_reads, for_writing
from alnnode.db.worklist_tables import EventRow, SubscriptionRow, WorkitemRow
from alnnode.worklist.ups import FILTERED, GLOBAL, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Connection, Engine

    from alnnode.worklist.ups import Json

UNSENT = timedelta(days=1)  # that an event waits for its subscriber


class EventType(IntEnum):
    """PS3.4 Table CC.2.4-1."""

    STATE = 1
    CANCEL_REQUESTED = 2
    PROGRESS = 3


def tell(connection: Connection, uid: str, kind: EventType, state: State, progress: int | None) -> bool:
    """Put an event report for each subscriber of a workitem; whether there is any."""
    query = select(SubscriptionRow.subscriber).where(SubscriptionRow.workitem_uid == uid)
    subscribers = connection.execute(query).scalars().all()
    for subscriber in subscribers:
        put(connection, subscriber, uid, kind, state, progress)
    return bool(subscribers)


def put(connection: Connection, subscriber: str, uid: str, kind: EventType, state: State, progress: int | None = None) -> None:
    """Put one event report."""
    connection.execute(
        insert(EventRow).values(
            subscriber=subscriber, workitem_uid=uid, event_type=kind, state=state, progress=progress, sent=False, at=datetime.now(UTC)
        )
    )  # fmt: skip


def follow(connection: Connection, uid: str, document: Json, read: Callable[[str], Json]) -> None:
    """Subscribe to a new workitem those who asked for what is to come."""
    query = select(SubscriptionRow.__table__).where(SubscriptionRow.workitem_uid.in_((GLOBAL, FILTERED)))
    for row in connection.execute(query).mappings().all():
        if row["filters"] is None or matches(document, read(row["filters"])):
            add(connection, uid, row["subscriber"], lock=row["deletion_lock"])


def matches(document: Json, conditions: Json) -> bool:
    """Whether each attribute of the conditions has the same first value in the data set; a name, its alphabetic group."""
    return all(_first(document, key) == _first(conditions, key) for key in conditions)


def _first(document: Json, key: str) -> str:
    found = next(iter(document.get(key, {}).get("Value", [])), "")
    return str(found.get("Alphabetic", "") if isinstance(found, dict) else found)


def add(connection: Connection, uid: str, subscriber: str, *, lock: bool, filters: str | None = None) -> None:
    """Write a subscription, over an earlier one."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    connection.execute(
        dialect.insert(SubscriptionRow)
        .values(workitem_uid=uid, subscriber=subscriber, deletion_lock=lock, filters=filters)
        .on_conflict_do_update(index_elements=["workitem_uid", "subscriber"], set_={"deletion_lock": lock, "filters": filters})
    )


def drop(connection: Connection, uid: str) -> None:
    """End all subscriptions to one workitem."""
    connection.execute(delete(SubscriptionRow).where(SubscriptionRow.workitem_uid == uid))


class Subscriptions:
    """Safe to share between threads."""

    def __init__(self, engine: Engine) -> None:
        self._writer, self._reader = for_writing(engine), for_single_reads(engine)

    def subscribe(self, uid: str, subscriber: str, *, lock: bool, state: State) -> None:
        """Subscribe to one workitem, and report its state."""
        with self._writer.begin() as connection:
            add(connection, uid, subscriber, lock=lock)
            put(connection, subscriber, uid, EventType.STATE, state)

    def subscribe_all(
        self, subscriber: str, *, lock: bool, conditions: Json | None, filters: str | None, read: Callable[[str], Json]
    ) -> str | None:
        """Subscribe to what is there and what is to come, all or what matches; the path of earlier conditions, which nobody needs now."""
        kind = GLOBAL if conditions is None else FILTERED
        with self._writer.begin() as connection:
            old: str | None = connection.execute(
                select(SubscriptionRow.filters).where(
                    SubscriptionRow.workitem_uid == kind, SubscriptionRow.subscriber == subscriber
                )
            ).scalar_one_or_none()
            add(connection, kind, subscriber, lock=lock, filters=filters)
            rows = connection.execute(
                select(WorkitemRow.workitem_uid, WorkitemRow.state, WorkitemRow.document).where(
                    WorkitemRow.document.is_not(None)
                )
            ).all()
            for uid, state, document in rows:
                if conditions is None or matches(read(str(document)), conditions):
                    add(connection, uid, subscriber, lock=lock)
                    put(connection, subscriber, uid, EventType.STATE, State(state))
        return old

    def unsubscribe(self, uid: str, subscriber: str) -> tuple[str, ...] | None:
        """End a subscription; one to all ends those to each workitem too. Paths of conditions, or None when there was none."""
        which = SubscriptionRow.subscriber == subscriber
        if uid not in {GLOBAL, FILTERED}:
            which &= SubscriptionRow.workitem_uid == uid
        with self._writer.begin() as connection:
            query = select(SubscriptionRow.workitem_uid, SubscriptionRow.filters).where(which)
            found = connection.execute(query).all()
            if not found or (uid in {GLOBAL, FILTERED} and uid not in {row[0] for row in found}):
                return None
            connection.execute(delete(SubscriptionRow).where(which))
        return tuple(path for _, path in found if path is not None)

    def suspend(self, uid: str, subscriber: str) -> tuple[str, ...] | None:
        """Subscribe to nothing that is to come; what was subscribed to stays. Paths of conditions, or None when there was none."""
        which = (SubscriptionRow.workitem_uid == uid) & (SubscriptionRow.subscriber == subscriber)
        with self._writer.begin() as connection:
            found = connection.execute(select(SubscriptionRow.filters).where(which)).scalars().all()
            connection.execute(delete(SubscriptionRow).where(which))
        return tuple(path for path in found if path is not None) if found else None

    def first_unsent(self, subscriber: str) -> int:
        """Id before the first event that this subscriber has not got, or of the last of all."""
        unsent = select(func.min(EventRow.event_id)).where(EventRow.subscriber == subscriber, EventRow.sent.is_(False))
        with self._reader.connect() as connection:
            first: int | None = connection.execute(unsent).scalar_one_or_none()
            if first is not None:
                return first - 1
            return int(connection.execute(select(func.coalesce(func.max(EventRow.event_id), 0))).scalar_one())

    def after(self, subscriber: str, event_id: int) -> tuple[EventRow, ...]:
        """Return the events of a subscriber after this one, in order; also one of a smaller id that was committed later."""
        query = select(EventRow.__table__).where(
            EventRow.subscriber == subscriber, (EventRow.event_id > event_id) | EventRow.sent.is_(False)
        )
        with self._reader.connect() as connection:
            rows = connection.execute(query.order_by(EventRow.event_id).limit(100)).mappings().all()
        return tuple(EventRow(**row) for row in rows)

    def sent(self, event_id: int) -> None:
        """Note that an event was sent."""
        with self._writer.begin() as connection:
            connection.execute(update(EventRow).where(EventRow.event_id == event_id).values(sent=True))

    def purge(self, now: datetime) -> None:
        """Forget events that nobody came for, and those that were sent."""
        with self._writer.begin() as connection:
            connection.execute(delete(EventRow).where(EventRow.at < now - UNSENT))
