"""One workitem as the database and the spool hold it, and its change inside a transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from alnnode.errors import WorkitemRefused
from alnnode.worklist import ups
from alnnode.worklist.event_reports import EventReport, EventType, report_to_subscribers
from alnnode.worklist.ups import UpsState, UpsStatus

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy.engine import Connection, RowMapping

    from alnnode.worklist.ups import Json

    ReadDocument = Callable[[str], Json]


@dataclass(frozen=True, slots=True)
class Workitem:
    """One workitem; ``document`` is its data set, which contains the state but never the Transaction UID."""

    workitem_uid: str
    state: UpsState
    transaction_uid: str | None
    document: Json
    service_url: str
    performed_here: bool
    job_id: str | None
    cancel_requested: bool
    attempts: int
    lease_until: datetime | None
    changed_at: datetime

    @classmethod
    def from_row(cls, row: RowMapping | None, read: ReadDocument) -> Workitem:
        """Return the workitem of a row.

        Raises:
            WorkitemRefused: there is no row, or the data set of the workitem was deleted.
            FileNotFoundError: the workitem was changed after the row was read.
        """
        if row is None:
            raise WorkitemRefused(UpsStatus.NO_SUCH_WORKITEM, "There is no workitem of this UID")
        if row["document"] is None:
            raise WorkitemRefused(UpsStatus.DELETED, "The workitem of this UID was deleted")
        names = [name for name in cls.__dataclass_fields__ if name not in {"state", "document"}]
        return cls(**{name: row[name] for name in names}, state=UpsState(row["state"]), document=read(row["document"]))


class WorkitemChange:
    """A workitem inside the transaction that changes it.

    Attributes:
        connection: of the transaction.
        item: the workitem before the change.
        document: the data set after the change.
        values: the columns to change.
    """

    def __init__(self, connection: Connection, item: Workitem) -> None:
        self.connection, self.item = connection, item
        self.document = item.document
        self.values: dict[str, object] = {}

    def enter(self, state: UpsState, document: Json, transaction_uid: str | None = None) -> None:
        """Change the state, and report it to the subscribers."""
        self.document = dict(sorted({**document, ups.STATE: ups.text("CS", state)}.items()))
        self.values["state"] = state
        if transaction_uid is not None:
            self.values["transaction_uid"] = transaction_uid
        self.report(EventType.STATE, state)

    def report(self, kind: EventType, state: UpsState | None = None, progress: int | None = None) -> bool:
        """Report an event to each subscriber; return whether there is any subscriber."""
        event = EventReport(self.item.workitem_uid, kind, state or self.item.state, progress)
        return report_to_subscribers(self.connection, event)
