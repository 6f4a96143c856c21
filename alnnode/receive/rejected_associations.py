"""Keep a record of associations that the listener did not serve: a log line, a counter for monitoring, and a table for the status page.

Whoever can reach the port can cause them, so all that they can fill is bounded: the memory of a process, the log, the rows of the table, and
the rate of writing.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from alnnode.audit.repeated_events import LineBudget, RepeatedEvents
from alnnode.db import clock
from alnnode.db.engine import for_single_reads, for_writing
from alnnode.db.operation_tables import RejectionRow
from alnnode.db.progress_tables import TallyRow
from alnnode.db.tallies import Tally, add_to_tally
from alnnode.receive.connection_limits import UNKNOWN_ADDRESS
from alnnode.receive.rejections import REMEDIES, RejectedAssociation, Rejection, RejectionKind

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

REJECTED = "rejected"  # kind of the counters in `TallyRow`
MAX_ROWS = 200  # of the table; the rows with the oldest last rejection are deleted
MAX_WAITING = 100  # different rejections in the memory of a process; further ones are only counted
MAX_LINES = 30  # log lines of a process in `QUIET` seconds, with invented AE titles
QUIET = 60.0  # seconds between two log lines about equal rejections
WRITING_INTERVAL = 2.0  # seconds between two transactions of a process

_Key = tuple[RejectionKind, str, str, str]

log = structlog.get_logger()


@dataclass(slots=True)
class _Waiting:
    count: int
    first_at: datetime
    last_at: datetime
    detail: str


class RejectedAssociations:
    """Safe to share between threads and processes. Noting never raises and never waits for the database.

    A thread writes what was noted, at most once in ``interval`` seconds. It starts with the first rejection.
    """

    def __init__(self, engine: Engine, interval: float = WRITING_INTERVAL) -> None:
        self._writer, self._reader, self._interval = for_writing(engine), for_single_reads(engine), interval
        self._lock = threading.Lock()
        self._waiting: dict[_Key, _Waiting] = {}
        self._counts: dict[RejectionKind, int] = {}
        self._repeated, self._lines = RepeatedEvents(QUIET), LineBudget(MAX_LINES, QUIET)
        self._noted, self._closed = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def refused_peer(self, address: str, reason: str) -> None:
        """Count and list a connection that was refused before an association request; whoever refused it has logged it."""
        kind = RejectionKind.LIMIT
        if reason.startswith("TLS"):
            kind = RejectionKind.TLS
        elif reason == UNKNOWN_ADDRESS:
            kind = RejectionKind.ADDRESS
        self._note(Rejection(kind, address=address, detail=reason).cleaned(), datetime.now(UTC))

    def note(self, rejection: Rejection, now: datetime | None = None) -> None:
        """Log, count and list a rejection."""
        clean = rejection.cleaned()
        self._note(clean, now or datetime.now(UTC))
        if self._repeated.is_first(*_key(clean)) and self._lines.take():
            log.warning(
                "association_rejected",
                reason=clean.kind.value,
                called_ae_title=clean.called_ae,
                calling_ae_title=clean.calling_ae,
                address=clean.address,
                detail=clean.detail,
                remedy=REMEDIES[clean.kind],
                silent_for_s=QUIET,
            )

    def _note(self, clean: Rejection, moment: datetime) -> None:
        key = _key(clean)
        with self._lock:
            self._counts[clean.kind] = self._counts.get(clean.kind, 0) + 1
            if key in self._waiting:
                self._waiting[key].count += 1
                self._waiting[key].last_at, self._waiting[key].detail = moment, clean.detail
            elif len(self._waiting) < MAX_WAITING:
                self._waiting[key] = _Waiting(1, moment, moment, clean.detail)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="rejections", daemon=True)
                self._thread.start()
        self._noted.set()

    def close(self) -> None:
        """Write what was noted, and stop."""
        self._closed.set()
        self._noted.set()
        if self._thread is not None:
            self._thread.join(5)

    def recent(self, limit: int = MAX_ROWS) -> tuple[RejectedAssociation, ...]:
        """Return the rejections, the most recent first."""
        query = select(RejectionRow.__table__).order_by(RejectionRow.last_at.desc()).limit(limit)
        with self._reader.connect() as connection:
            rows = connection.execute(query).mappings().all()
        known = set(RejectionKind)
        return tuple(RejectedAssociation(**{**row, "kind": RejectionKind(row["kind"])}) for row in rows if row["kind"] in known)

    def totals(self) -> dict[RejectionKind, int]:
        """Return the number of rejections since the node was set up, by kind."""
        query = select(TallyRow.label, TallyRow.count).where(TallyRow.kind == REJECTED)
        with self._reader.connect() as connection:
            found = {label: count for label, count in connection.execute(query)}  # noqa: C416 - rows are not pairs to the type checker
        return {kind: found.get(kind.value, 0) for kind in RejectionKind}

    def _run(self) -> None:
        while not self._closed.is_set():
            self._noted.wait()
            self._noted.clear()
            self._write()
            self._closed.wait(self._interval)
        self._write()

    def _write(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, {}
            counts, self._counts = self._counts, {}
        if not counts:
            return
        try:
            with self._writer.begin() as connection:
                ahead = clock.now(connection) - datetime.now(UTC)  # of the database: the noted times are of this host
                for key, noted in sorted(waiting.items()):  # in one order: several processes write the same rows
                    _upsert(connection, key, replace(noted, first_at=noted.first_at + ahead, last_at=noted.last_at + ahead))
                for kind, count in sorted(counts.items()):
                    add_to_tally(connection, REJECTED, Tally(kind.value, 0, count, 0.0))
                _delete_oldest(connection)
        except SQLAlchemyError as error:
            log.warning("rejections_not_written", error=type(error).__name__)
            with self._lock:  # the counters must not lose any; the rows of a database that is away may
                for kind, count in counts.items():
                    self._counts[kind] = self._counts.get(kind, 0) + count


def _key(clean: Rejection) -> _Key:
    return clean.kind, clean.called_ae, clean.calling_ae, clean.address


def _upsert(connection: Connection, key: _Key, noted: _Waiting) -> None:
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    kind, called_ae, calling_ae, address = key
    connection.execute(
        dialect.insert(RejectionRow)
        .values(
            kind=kind.value, called_ae=called_ae, calling_ae=calling_ae, address=address,
            detail=noted.detail, count=noted.count, first_at=noted.first_at, last_at=noted.last_at,
        )
        .on_conflict_do_update(
            index_elements=["kind", "called_ae", "calling_ae", "address"],
            set_={"count": RejectionRow.count + noted.count, "last_at": noted.last_at, "detail": noted.detail},
        )
    )  # fmt: skip


def _delete_oldest(connection: Connection) -> None:
    """Delete the rows beyond `MAX_ROWS`."""
    last = select(RejectionRow.last_at).order_by(RejectionRow.last_at.desc()).offset(MAX_ROWS).limit(1).scalar_subquery()
    connection.execute(delete(RejectionRow).where(RejectionRow.last_at <= last))
