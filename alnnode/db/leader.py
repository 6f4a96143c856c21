"""Elect one process of several by a lease in the database: the work that needs one leader is done by whoever holds the lease.

The lease names its holder by a random number of the process: neither the name of a host nor its clock decides. All times are of the
database (`alnnode.db.clock`).

A leader that is paused, or cut off from the database, may believe that it leads until its next renewal, while another process leads
already. So the work under a lease must allow two processes for a moment: its changes are transactions that decide again.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import structlog
from sqlalchemy import String, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, mapped_column

from alnnode.db import clock
from alnnode.db.engine import for_writing
from alnnode.db.tables import Base

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

LEASE = timedelta(seconds=10)  # a leader that was killed is replaced after this time
RENEWALS = 3  # during one lease

log = structlog.get_logger()


class LeaseRow(Base):
    """The present leader of one kind of work."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    holder: Mapped[str] = mapped_column(String(32))  # random, one for each process
    until: Mapped[datetime]


class Leader:
    """A candidate for one lease. Use it in one thread.

    Args:
        engine: the database.
        name: of the work, at most 32 characters.
        length: of the lease; tests shorten it.
    """

    def __init__(self, engine: Engine, name: str, length: timedelta = LEASE) -> None:
        self._writer, self._name, self._length = for_writing(engine), name, length
        self._me = uuid4().hex
        self._leads = False
        self._next_renewal = 0.0  # monotonic

    def leads(self) -> bool:
        """Return whether this process leads. Acquire the lease when it is free, and renew it in time.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database fails; this process does not lead until it answers.
        """
        if self._leads and time.monotonic() < self._next_renewal:
            return True
        led, self._leads = self._leads, False
        self._next_renewal = time.monotonic() + self._length.total_seconds() / RENEWALS
        self._leads = self._acquire()
        if self._leads and not led:
            log.info("lead_taken", work=self._name)
        elif led and not self._leads:
            log.warning("lead_lost", work=self._name)
        return self._leads

    def resign(self) -> None:
        """Give the lease back, so that another process leads at once."""
        if self._leads:
            self._leads = False
            with self._writer.begin() as connection:
                mine = (LeaseRow.name == self._name, LeaseRow.holder == self._me)
                connection.execute(update(LeaseRow).where(*mine).values(until=clock.now(connection)))

    def _acquire(self) -> bool:
        with self._writer.begin() as connection:
            now = clock.now(connection)
            dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
            mine = {"holder": self._me, "until": now + self._length}
            # An end further away than any lease is from before the clock of the database was set back.
            free = (
                (LeaseRow.holder == self._me) | (LeaseRow.until <= now) | (LeaseRow.until > now + self._length + clock.MAX_SKEW)
            )
            taken = connection.execute(
                dialect.insert(LeaseRow)
                .values(name=self._name, **mine)
                .on_conflict_do_update(index_elements=["name"], set_=mine, where=free)
                .returning(LeaseRow.holder)
            )
            return taken.first() is not None
