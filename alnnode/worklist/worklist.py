"""The worklist: workitems and their states after PS3.4 Annex CC. `Worklist` is the only writer.

The database knows states and owners; the data sets, which hold patient data, are files of the spool. Every change is one transaction that
locks the workitem's row: a new file, a new path in the row, the events of those who subscribed. The old file goes after the commit.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING

from pydantic_core import from_json, to_json
from sqlalchemy import func, insert, select, update
from sqlalchemy.exc import IntegrityError

from alnnode.db.engine import for_single_reads, for_writing
from alnnode.db.worklist_tables import SubscriptionRow, WorkitemRow
from alnnode.errors import WorkitemRefused
from alnnode.worklist import subscriptions, ups
from alnnode.worklist.subscriptions import EventType
from alnnode.worklist.ups import FINAL, State, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy.engine import Connection, Engine, RowMapping

    from alnnode.spool.spool import Spool
    from alnnode.worklist.ups import Json

KEPT = 1000  # documents in memory


@dataclass(frozen=True, slots=True)
class Workitem:
    """One workitem as it is now; ``document`` holds its state, never its Transaction UID."""

    workitem_uid: str
    state: State
    transaction_uid: str | None
    document: Json
    service_url: str
    performed_here: bool
    job_id: str | None
    cancel_requested: bool
    attempts: int
    lease_until: datetime | None
    changed_at: datetime


class Documents:
    """Data sets in the spool; a file never changes, so what was read once is kept in memory. Safe to share between threads."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._known: OrderedDict[str, Json] = OrderedDict()
        self._lock = Lock()

    def read(self, path: str) -> Json:
        """Return the data set; the caller must not change it."""
        with self._lock:
            if path in self._known:
                self._known.move_to_end(path)
                return self._known[path]
        document: Json = from_json(self._spool.path(path).read_bytes())
        self._keep(path, document)
        return document

    def write(self, document: Json) -> str:
        """Keep a data set durably; its path."""
        path = self._spool.put_document(to_json(document))
        self._keep(path, document)
        return path

    def forget(self, path: str) -> None:
        """Delete a data set that no row names any more."""
        with self._lock:
            self._known.pop(path, None)
        self._spool.delete([path])

    def _keep(self, path: str, document: Json) -> None:
        with self._lock:
            self._known[path] = document
            if len(self._known) > KEPT:
                self._known.popitem(last=False)


class Change:
    """A workitem inside the transaction that changes it."""

    def __init__(self, connection: Connection, item: Workitem) -> None:
        self.connection, self.item = connection, item
        self.document = item.document
        self.values: dict[str, object] = {}

    def enter(self, state: State, document: Json, transaction_uid: str | None = None) -> None:
        """Change the state, and tell those who subscribed."""
        self.document = dict(sorted({**document, ups.STATE: ups.text("CS", state)}.items()))
        self.values["state"] = state
        if transaction_uid is not None:
            self.values["transaction_uid"] = transaction_uid
        self.tell(EventType.STATE, state)

    def tell(self, kind: EventType, state: State | None = None, progress: int | None = None) -> bool:
        """Put an event report for each subscriber; whether there is any."""
        return subscriptions.tell(self.connection, self.item.workitem_uid, kind, state or self.item.state, progress)


class Worklist:
    """Safe to share between threads. Times are aware and default to the clock."""

    def __init__(self, engine: Engine, spool: Spool) -> None:
        self.documents = Documents(spool)
        self._writer, self._reader = for_writing(engine), for_single_reads(engine)

    def create(self, uid: str, document: Json, service_url: str, now: datetime | None = None) -> bool:
        """Add a workitem that is SCHEDULED; whether anything had to be added to its data set.

        Raises:
            WorkitemRefused: the data set is not one of a new workitem, or there is a workitem of this UID.
        """
        moment = now or datetime.now(UTC)
        whole, modified = ups.created(document, uid, moment)
        path = self.documents.write(whole)
        try:
            with self._writer.begin() as connection:
                connection.execute(
                    insert(WorkitemRow).values(
                        workitem_uid=uid, state=State.SCHEDULED, document=path, service_url=service_url, performed_here=False,
                        cancel_requested=False, attempts=0, created_at=moment, changed_at=moment,
                    )
                )  # fmt: skip
                subscriptions.follow(connection, uid, whole, self.documents.read)
                subscriptions.tell(connection, uid, EventType.STATE, State.SCHEDULED, None)
        except IntegrityError as error:
            self.documents.forget(path)
            raise WorkitemRefused(Status.DUPLICATE, "There is a workitem of this UID already") from error
        return modified

    def get(self, uid: str) -> Workitem:
        """Return a workitem.

        Raises:
            WorkitemRefused: there is none of this UID, or no longer.
        """
        try:
            return self._read(uid)
        except FileNotFoundError:  # changed since its row was read
            return self._read(uid)

    def _read(self, uid: str) -> Workitem:
        query = select(WorkitemRow.__table__).where(WorkitemRow.workitem_uid == uid)
        with self._reader.connect() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return self._item(row)

    def list(self, *states: State) -> tuple[Workitem, ...]:
        """Return the workitems in these states, or all, the newest first."""
        query = select(WorkitemRow.__table__).where(WorkitemRow.document.is_not(None))
        if states:
            query = query.where(WorkitemRow.state.in_(states))
        with self._reader.connect() as connection:
            rows = connection.execute(query.order_by(WorkitemRow.created_at.desc(), WorkitemRow.workitem_uid)).mappings().all()
        found = []
        for row in rows:
            try:
                found.append(self._item(row))
            except FileNotFoundError:  # changed or deleted since the rows were read: the next look sees it
                continue
        return tuple(found)

    def counts(self) -> dict[State, int]:
        """How many workitems are in each state."""
        query = select(WorkitemRow.state, func.count()).where(WorkitemRow.document.is_not(None)).group_by(WorkitemRow.state)
        with self._reader.connect() as connection:
            return {State(state): count for state, count in connection.execute(query)}

    def update(self, uid: str, transaction_uid: str | None, changes: Json, now: datetime | None = None) -> None:
        """Replace attributes: of a SCHEDULED workitem by anybody, of one IN PROGRESS by who knows its Transaction UID (CC.2.6).

        Raises:
            WorkitemRefused: neither is so, or an attribute cannot be changed.
        """
        moment = now or datetime.now(UTC)
        with self.changing(uid, moment) as change:
            item = change.item
            if item.state in FINAL:
                raise WorkitemRefused(Status.NO_LONGER_UPDATED, "The UPS may no longer be updated")
            if item.state is State.SCHEDULED and transaction_uid:
                raise WorkitemRefused(Status.NOT_IN_PROGRESS, "The target URI did not reference a claimed Workitem")
            if item.state is State.IN_PROGRESS:
                _check_owner(item, transaction_uid)
            change.document = ups.updated(item.document, changes, moment)
            if ups.PROGRESS in changes:
                change.tell(EventType.PROGRESS)
            elif ups.READINESS in changes:
                change.tell(EventType.STATE)

    def change_state(
        self,
        uid: str,
        state: State,
        transaction_uid: str | None,
        now: datetime | None = None,
        edit: Callable[[Json], Json] = lambda document: document,
        *,
        here: bool = False,
    ) -> Status | None:
        """Claim, complete or cancel a workitem (CC.2.1); a warning when it is in that state already.

        ``edit`` completes the data set in the same transaction; ``here`` says that this node is the performer.

        Raises:
            WorkitemRefused: Table CC.1.1-2 does not allow it, or the final state requirements are not met.
        """
        moment = now or datetime.now(UTC)
        with self.changing(uid, moment) as change:
            item = change.item
            if state is State.SCHEDULED:
                raise WorkitemRefused(Status.ONLY_BY_CREATION, "The UPS may only become SCHEDULED when it is created")
            if item.state in FINAL and item.state is state:
                return Status.ALREADY_CANCELED if state is State.CANCELED else Status.ALREADY_COMPLETED
            if item.state in FINAL:
                raise WorkitemRefused(Status.NO_LONGER_UPDATED, "The UPS may no longer be updated")
            if state is State.IN_PROGRESS:
                if item.state is State.IN_PROGRESS:
                    raise WorkitemRefused(Status.ALREADY_IN_PROGRESS, "The UPS is already IN PROGRESS")
                if not transaction_uid:
                    raise WorkitemRefused(Status.WRONG_TRANSACTION, "The Transaction UID is missing")
                change.enter(state, edit(item.document), transaction_uid)
                change.values["performed_here"] = here
                return None
            if item.state is State.SCHEDULED:
                raise WorkitemRefused(Status.NOT_IN_PROGRESS, "The UPS is not yet in the IN PROGRESS state")
            _check_owner(item, transaction_uid)
            document = edit(item.document)
            if state is State.CANCELED:
                document = ups.progressed(document, ProcedureStepCancellationDateTime=ups.text("DT", ups.date_time(moment)))
            ups.check_final(document, state)
            change.enter(state, document)
            return None

    def request_cancel(self, uid: str, transaction_uid: str, reasons: Json, now: datetime | None = None) -> Status | None:
        """Cancel a SCHEDULED workitem, or ask the performer of one IN PROGRESS to (CC.2.2); a warning when it is CANCELED already.

        Args:
            uid: of the workitem.
            transaction_uid: under which a SCHEDULED one is claimed and canceled.
            reasons: Reason For Cancellation and the like; they go into the Procedure Step Progress Information.
            now: the moment.

        Raises:
            WorkitemRefused: it is COMPLETED, or nobody would hear of the request.
        """
        moment = now or datetime.now(UTC)
        with self.changing(uid, moment) as change:
            item = change.item
            if item.state is State.CANCELED:
                return Status.ALREADY_CANCELED
            if item.state is State.COMPLETED:
                raise WorkitemRefused(Status.IS_COMPLETED, "The UPS is already COMPLETED")
            told = change.tell(EventType.CANCEL_REQUESTED)
            if item.state is State.IN_PROGRESS and not (item.performed_here or told):
                raise WorkitemRefused(Status.NOBODY_TO_ASK, "The performer cannot be contacted")
            progress = next(iter(ups.items(item.document, ups.PROGRESS)), {})
            document = {**item.document, ups.PROGRESS: ups.sequence(dict(sorted({**progress, **reasons}.items())))}
            if item.state is State.IN_PROGRESS:
                change.document = document
                change.values["cancel_requested"] = True
                return None
            change.enter(State.IN_PROGRESS, item.document, transaction_uid)
            change.enter(State.CANCELED, _canceled(document, moment))
            return None

    @contextmanager
    def changing(self, uid: str, now: datetime) -> Iterator[Change]:
        """Lock a workitem for one change.

        Raises:
            WorkitemRefused: there is none of this UID, or no longer.
        """
        old = new = None
        try:
            with self._writer.begin() as connection:
                query = select(WorkitemRow.__table__).where(WorkitemRow.workitem_uid == uid).with_for_update()
                row = connection.execute(query).mappings().one_or_none()
                change = Change(connection, self._item(row))
                yield change
                if change.document is not change.item.document:
                    new = change.values["document"] = self.documents.write(change.document)
                    old = row["document"] if row is not None else None
                if change.values:
                    values = {**change.values, "changed_at": now}
                    connection.execute(update(WorkitemRow).where(WorkitemRow.workitem_uid == uid).values(values))
        except BaseException:
            if new is not None:
                self.documents.forget(new)
            raise
        if old is not None:
            self.documents.forget(old)

    def purge(self, ended_before: datetime) -> int:
        """Forget the data sets of workitems that ended before this and that nobody locked (CC.2.3.2); how many."""
        locked = select(SubscriptionRow.workitem_uid).where(SubscriptionRow.deletion_lock.is_(True))
        query = select(WorkitemRow.workitem_uid, WorkitemRow.document).where(
            WorkitemRow.state.in_(FINAL),
            WorkitemRow.changed_at < ended_before,
            WorkitemRow.document.is_not(None),
            WorkitemRow.workitem_uid.not_in(locked),
        )
        with self._writer.begin() as connection:
            rows: Sequence[tuple[str, str | None]] = [(uid, path) for uid, path in connection.execute(query)]
            for uid, _ in rows:
                connection.execute(update(WorkitemRow).where(WorkitemRow.workitem_uid == uid).values(document=None))
                subscriptions.drop(connection, uid)
        for _, path in rows:
            if path is not None:
                self.documents.forget(path)
        return len(rows)

    def _item(self, row: RowMapping | None) -> Workitem:
        if row is None:
            raise WorkitemRefused(Status.NO_SUCH_WORKITEM, "There is no workitem of this UID")
        if row["document"] is None:
            raise WorkitemRefused(Status.DELETED, "The workitem of this UID was deleted")
        names = [name for name in Workitem.__dataclass_fields__ if name not in {"state", "document"}]
        return Workitem(
            **{name: row[name] for name in names}, state=State(row["state"]), document=self.documents.read(row["document"])
        )


def _check_owner(item: Workitem, transaction_uid: str | None) -> None:
    if not transaction_uid:
        raise WorkitemRefused(Status.WRONG_TRANSACTION, "The Transaction UID is missing")
    if transaction_uid != item.transaction_uid:
        raise WorkitemRefused(Status.WRONG_TRANSACTION, "The Transaction UID is incorrect")


def _canceled(document: Json, moment: datetime) -> Json:
    """Return the document with what a canceled one must have (PS3.16 CID 9300)."""
    given = next(iter(ups.items(document, ups.PROGRESS)), {}).get(ups.tag("ProcedureStepDiscontinuationReasonCodeSequence"))
    unspecified = ups.sequence(ups.code("110513", "DCM", "Discontinued for unspecified reason"))
    return ups.progressed(
        document,
        ProcedureStepCancellationDateTime=ups.text("DT", ups.date_time(moment)),
        ProcedureStepDiscontinuationReasonCodeSequence=given if given and given.get("Value") else unspecified,
    )
