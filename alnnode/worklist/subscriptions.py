"""Store who subscribes to the events of workitems (PS3.4 CC.2.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite

from alnnode.db.engine import for_writing
from alnnode.db.worklist_tables import SubscriptionRow, WorkitemRow
from alnnode.worklist.event_reports import EventReport, EventType, add_report
from alnnode.worklist.ups import FILTERED, GLOBAL, UpsState

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Connection, Engine

    from alnnode.worklist.ups import Json

    ReadDocument = Callable[[str], Json]


class Filter(NamedTuple):
    """The conditions of a filtered subscription, and the path of the file that holds them."""

    conditions: Json
    path: str


def subscribe_to_new(connection: Connection, uid: str, document: Json, read: ReadDocument) -> None:
    """Subscribe to a new workitem the AEs that have a global subscription, as far as it matches their filters."""
    query = select(SubscriptionRow.__table__).where(SubscriptionRow.workitem_uid.in_((GLOBAL, FILTERED)))
    for row in connection.execute(query).mappings().all():
        if row["filters"] is None or _matches(document, read(row["filters"])):
            _add(connection, uid, row["subscriber"], lock=row["deletion_lock"])


def delete_subscriptions(connection: Connection, uid: str) -> None:
    """Delete all subscriptions to one workitem."""
    connection.execute(delete(SubscriptionRow).where(SubscriptionRow.workitem_uid == uid))


def _matches(document: Json, conditions: Json) -> bool:
    """Return whether each attribute of the conditions has the same first value in the document."""
    return all(_first_value(document, key) == _first_value(conditions, key) for key in conditions)


def _first_value(document: Json, key: str) -> str:
    """Return the first value of an attribute; of a name, its alphabetic component group."""
    found = next(iter(document.get(key, {}).get("Value", [])), "")
    return str(found.get("Alphabetic", "") if isinstance(found, dict) else found)


def _add(connection: Connection, uid: str, subscriber: str, *, lock: bool, filters: str | None = None) -> None:
    """Add a subscription, or replace an earlier one."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    connection.execute(
        dialect.insert(SubscriptionRow)
        .values(workitem_uid=uid, subscriber=subscriber, deletion_lock=lock, filters=filters)
        .on_conflict_do_update(index_elements=["workitem_uid", "subscriber"], set_={"deletion_lock": lock, "filters": filters})
    )


class Subscriptions:
    """Safe to share between threads."""

    def __init__(self, engine: Engine) -> None:
        self._writer = for_writing(engine)

    def subscribe(self, uid: str, subscriber: str, *, lock: bool, state: UpsState) -> None:
        """Subscribe to one workitem, and report its state."""
        with self._writer.begin() as connection:
            _add(connection, uid, subscriber, lock=lock)
            add_report(connection, subscriber, EventReport(uid, EventType.STATE, state))

    def subscribe_globally(self, subscriber: str, *, lock: bool, only: Filter | None, read: ReadDocument) -> str | None:
        """Subscribe to all present and future workitems, or to those that match a filter.

        Args:
            subscriber: the AE title.
            lock: whether workitems must not be deleted while the subscription exists.
            only: the filter; None subscribes to all workitems.
            read: reads the data set of a workitem by its path.

        Returns:
            The path of the filter of an earlier subscription, which is no longer needed; None if there is none.
        """
        kind = GLOBAL if only is None else FILTERED
        with self._writer.begin() as connection:
            earlier: str | None = connection.execute(
                select(SubscriptionRow.filters).where(
                    SubscriptionRow.workitem_uid == kind, SubscriptionRow.subscriber == subscriber
                )
            ).scalar_one_or_none()
            _add(connection, kind, subscriber, lock=lock, filters=None if only is None else only.path)
            rows = connection.execute(
                select(WorkitemRow.workitem_uid, WorkitemRow.state, WorkitemRow.document).where(
                    WorkitemRow.document.is_not(None)
                )
            ).all()
            for uid, state, document in rows:
                if only is None or _matches(read(str(document)), only.conditions):
                    _add(connection, uid, subscriber, lock=lock)
                    add_report(connection, subscriber, EventReport(uid, EventType.STATE, UpsState(state)))
        return earlier

    def unsubscribe(self, uid: str, subscriber: str) -> tuple[str, ...] | None:
        """End a subscription; ending a global one also ends those to single workitems.

        Returns:
            The paths of filters that are no longer needed; None if there is no such subscription.
        """
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
        """End a global subscription for future workitems; the subscriptions to present workitems remain.

        Returns:
            The paths of filters that are no longer needed; None if there is no such subscription.
        """
        which = (SubscriptionRow.workitem_uid == uid) & (SubscriptionRow.subscriber == subscriber)
        with self._writer.begin() as connection:
            found = connection.execute(select(SubscriptionRow.filters).where(which)).scalars().all()
            connection.execute(delete(SubscriptionRow).where(which))
        return tuple(path for path in found if path is not None) if found else None
