"""Store workitems and their states (PS3.4 Annex CC). `Worklist` is the only writer of both.

The database holds states and owners; the data sets contain patient data and are files in the spool. Each change is one transaction that locks the
row of the workitem and writes a new file, the path of the file in the row, and the event reports for the subscribers. The old file is deleted after
the commit.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from sqlalchemy import func, insert, select, update
from sqlalchemy.exc import IntegrityError

from alnnode.db import clock
from alnnode.db.engine import for_single_reads, for_writing
from alnnode.db.worklist_tables import SubscriptionRow, WorkitemRow
from alnnode.errors import WorkitemRefused
from alnnode.worklist import state_transitions
from alnnode.worklist.event_reports import EventReport, EventType, report_to_subscribers
from alnnode.worklist.subscriptions import delete_subscriptions, subscribe_to_new
from alnnode.worklist.ups import FINAL_STATES, UpsState, UpsStatus
from alnnode.worklist.ups_requirements import created
from alnnode.worklist.workitem import Workitem, WorkitemChange
from alnnode.worklist.workitem_documents import WorkitemDocuments

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from sqlalchemy.engine import Engine

    from alnnode.spool.spool import Spool
    from alnnode.worklist.state_transitions import StateChange
    from alnnode.worklist.ups import Json


MAX_UNFINISHED = 5000  # workitems that are SCHEDULED or IN PROGRESS; a hospital schedules some hundreds a day


class Worklist:
    """Safe to share between threads. Times have a time zone; the default is the present time."""

    def __init__(self, engine: Engine, spool: Spool) -> None:
        self.documents = WorkitemDocuments(spool)
        self._engine, self._writer, self._reader = engine, for_writing(engine), for_single_reads(engine)

    def create(self, uid: str, document: Json, service_url: str, now: datetime | None = None) -> bool:
        """Create a SCHEDULED workitem; return whether attributes were added to its data set.

        Raises:
            WorkitemRefused: the data set is not valid for a new workitem, the UID is already in use, or too many workitems are unfinished.
        """
        time = now or clock.now(self._engine)
        if sum(count for state, count in self.counts().items() if state not in FINAL_STATES) >= MAX_UNFINISHED:
            raise WorkitemRefused(UpsStatus.RESOURCES, "Too many workitems are neither completed nor canceled")
        complete, modified = created(document, uid, time)
        path = self.documents.write(complete)
        try:
            with self._writer.begin() as connection:
                connection.execute(
                    insert(WorkitemRow).values(
                        workitem_uid=uid, state=UpsState.SCHEDULED, document=path, service_url=service_url,
                        performed_here=False, cancel_requested=False, attempts=0, created_at=time, changed_at=time,
                    )
                )  # fmt: skip
                subscribe_to_new(connection, uid, complete, self.documents.read)
                report_to_subscribers(connection, EventReport(uid, EventType.STATE, UpsState.SCHEDULED))
        except IntegrityError as error:
            self.documents.delete(path)
            raise WorkitemRefused(UpsStatus.DUPLICATE, "There is already a workitem of this UID") from error
        return modified

    def get(self, uid: str) -> Workitem:
        """Return a workitem.

        Raises:
            WorkitemRefused: there is no workitem of this UID, or it was deleted.
        """
        try:
            return self._read(uid)
        except FileNotFoundError:  # the workitem was changed after its row was read
            return self._read(uid)

    def _read(self, uid: str) -> Workitem:
        query = select(WorkitemRow.__table__).where(WorkitemRow.workitem_uid == uid)
        with self._reader.connect() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return Workitem.from_row(row, self.documents.read)

    def each(self, *states: UpsState, oldest_first: bool = False) -> Iterator[Workitem]:
        """Yield the workitems in these states, or all workitems; the most recent first. Each data set is read when its turn comes."""
        query = select(WorkitemRow.__table__).where(WorkitemRow.document.is_not(None))
        if states:
            query = query.where(WorkitemRow.state.in_(states))
        with self._reader.connect() as connection:
            rows = connection.execute(query.order_by(WorkitemRow.created_at.desc(), WorkitemRow.workitem_uid)).mappings().all()
        for row in reversed(rows) if oldest_first else rows:
            with suppress(FileNotFoundError):  # changed or deleted after the rows were read: the next call returns its new data
                yield Workitem.from_row(row, self.documents.read)

    def counts(self) -> dict[UpsState, int]:
        """Return the number of workitems in each state."""
        query = select(WorkitemRow.state, func.count()).where(WorkitemRow.document.is_not(None)).group_by(WorkitemRow.state)
        with self._reader.connect() as connection:
            return {UpsState(state): count for state, count in connection.execute(query)}

    def update(self, uid: str, transaction_uid: str | None, changes: Json, now: datetime | None = None) -> None:
        """Replace attributes of a workitem; see `state_transitions.update`.

        Raises:
            WorkitemRefused: there is no such workitem, or the update is not allowed.
        """
        time = now or clock.now(self._engine)
        with self.changing(uid, time) as change:
            state_transitions.update(change, transaction_uid, changes, time)

    def change_state(self, uid: str, request: StateChange, now: datetime | None = None) -> UpsStatus | None:
        """Claim, complete or cancel a workitem; see `state_transitions.change_state`.

        Raises:
            WorkitemRefused: there is no such workitem, or the transition is not allowed.
        """
        time = now or clock.now(self._engine)
        with self.changing(uid, time) as change:
            return state_transitions.change_state(change, request, time)

    def request_cancel(self, uid: str, transaction_uid: str, reasons: Json, now: datetime | None = None) -> UpsStatus | None:
        """Cancel a workitem, or ask its performer to do so; see `state_transitions.request_cancel`.

        Raises:
            WorkitemRefused: there is no such workitem, or it cannot be canceled.
        """
        time = now or clock.now(self._engine)
        with self.changing(uid, time) as change:
            return state_transitions.request_cancel(change, transaction_uid, reasons, time)

    @contextmanager
    def changing(self, uid: str, now: datetime) -> Iterator[WorkitemChange]:
        """Lock a workitem for one change, and write the change at the end.

        Raises:
            WorkitemRefused: there is no workitem of this UID, or it was deleted.
        """
        old = new = None
        try:
            with self._writer.begin() as connection:
                query = select(WorkitemRow.__table__).where(WorkitemRow.workitem_uid == uid).with_for_update()
                row = connection.execute(query).mappings().one_or_none()
                change = WorkitemChange(connection, Workitem.from_row(row, self.documents.read))
                yield change
                if change.document is not change.item.document:
                    new = change.values["document"] = self.documents.write(change.document)
                    old = row["document"] if row is not None else None
                if change.values:
                    values = {**change.values, "changed_at": now}
                    connection.execute(update(WorkitemRow).where(WorkitemRow.workitem_uid == uid).values(values))
        except BaseException:
            if new is not None:
                self.documents.delete(new)
            raise
        if old is not None:
            self.documents.delete(old)

    def delete_ended(self, ended_before: datetime) -> int:
        """Delete the data sets of workitems that ended before this time and have no deletion lock (CC.2.3.2); return their number."""
        locked = select(SubscriptionRow.workitem_uid).where(SubscriptionRow.deletion_lock.is_(True))
        query = select(WorkitemRow.workitem_uid, WorkitemRow.document).where(
            WorkitemRow.state.in_(FINAL_STATES),
            WorkitemRow.changed_at < ended_before,
            WorkitemRow.document.is_not(None),
            WorkitemRow.workitem_uid.not_in(locked),
        )
        with self._writer.begin() as connection:
            rows: Sequence[tuple[str, str | None]] = [(uid, path) for uid, path in connection.execute(query)]
            for uid, _ in rows:
                connection.execute(update(WorkitemRow).where(WorkitemRow.workitem_uid == uid).values(document=None))
                delete_subscriptions(connection, uid)
        for _, path in rows:
            if path is not None:
                self.documents.delete(path)
        return len(rows)
