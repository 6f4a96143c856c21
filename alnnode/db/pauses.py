"""Pauses: an administrator stops the analysis, or the deliveries to one destination, until it is resumed.

What runs goes on to its end, and nothing new begins. Receiving goes on in every case. Jobs and deliveries wait in the database as they do while
a worker or a destination is away, and the sweep enqueues them after the resumption.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from alnnode.db import clock
from alnnode.db.engine import for_single_reads, for_writing
from alnnode.db.operation_tables import PauseRow

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.engine import Connection, Engine

ANALYSIS = "analysis"
_POSTGRES_LOCK = 0x616C6E70  # an arbitrary number that every alnnode process uses


@dataclass(frozen=True, slots=True)
class Pause:
    """Since when the analysis or a destination is paused, and who paused it."""

    at: datetime
    by: str


def destination_target(name: str) -> str:
    """Return the name under which the pause of a destination is stored."""
    return f"destination {name}"


def forbids(connection: Connection, target: str) -> bool:
    """Return whether ``target`` is paused, inside the transaction that begins its work.

    A pause that is made meanwhile waits for the end of the transaction, and finds the work that it began. On SQLite, the write lock of the
    transaction does that; on PostgreSQL, a lock that the beginnings share.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock_shared(_POSTGRES_LOCK)))
    return connection.execute(select(PauseRow.target).where(PauseRow.target == target)).first() is not None


class Pauses:
    """Safe to share between threads and processes."""

    def __init__(self, engine: Engine) -> None:
        self._writer, self._reader = for_writing(engine), for_single_reads(engine)

    def pause(self, target: str, who: str, now: datetime | None = None) -> None:
        """Pause ``target``: `ANALYSIS`, or what `destination_target` returns. A pause that exists stays as it is.

        After the call, no job is claimed that was not RUNNING before, if the target is `ANALYSIS`.
        """
        with self._writer.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(select(func.pg_advisory_xact_lock(_POSTGRES_LOCK)))
            dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
            values = {"target": target, "paused_at": now or clock.now(connection), "paused_by": who[:64]}
            connection.execute(dialect.insert(PauseRow).values(values).on_conflict_do_nothing(index_elements=["target"]))

    def resume(self, target: str) -> bool:
        """End a pause; return whether there was one."""
        with self._writer.begin() as connection:
            return bool(connection.execute(delete(PauseRow).where(PauseRow.target == target)).rowcount)

    def is_paused(self, target: str) -> bool:
        """Return whether ``target`` is paused."""
        with self._reader.connect() as connection:
            return connection.execute(select(PauseRow.target).where(PauseRow.target == target)).first() is not None

    def all(self) -> dict[str, Pause]:
        """Return all pauses by their target."""
        with self._reader.connect() as connection:
            rows = connection.execute(select(PauseRow.target, PauseRow.paused_at, PauseRow.paused_by))
            return {target: Pause(at, by) for target, at, by in rows}
