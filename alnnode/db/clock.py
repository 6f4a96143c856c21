"""The clock by which stored times are written and compared: that of the database, which all hosts of a node share.

On PostgreSQL the clocks of the hosts do not matter: `now` asks the server. SQLite has no server, and its file is on the host of the
node, so the clock of this host is the clock of the database.

The clock of the database can be set back, or a standby with another clock can take over. A time that lies further in the future than any
wait of its stage cannot be right: the clock was set back after it was written. Each stage resets such times in its own tables
(``reset_future_times``), because the row would otherwise wait for as long as the clock was set back. A clock that is set forward ends
leases and waits early, which costs at most one more attempt.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.engine import Connection

from alnnode.db.engine import for_single_reads

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

MAX_SKEW = timedelta(minutes=1)  # tolerance before a time in the future counts as written before the clock was set back
LONGEST_LEASE = timedelta(minutes=1)  # of `workers.runtime`; a worker that still holds a lease renews it sooner

_NOW = text("SELECT clock_timestamp()")


def now(database: Engine | Connection) -> datetime:
    """Return the present time of the database, aware and in UTC.

    Args:
        database: an engine; or the connection of an open transaction, so that the question needs no second connection.

    Raises:
        sqlalchemy.exc.OperationalError: the database cannot be reached.
    """
    if database.dialect.name == "sqlite":
        return datetime.now(UTC)
    if isinstance(database, Connection):
        return _asked(database)
    with for_single_reads(database).connect() as connection:
        return _asked(connection)


def offset(database: Engine) -> timedelta:
    """Return by how much the clock of the database is ahead of that of this host; add it to a time of this host."""
    if database.dialect.name == "sqlite":
        return timedelta()
    return now(database) - datetime.now(UTC)


def _asked(connection: Connection) -> datetime:
    moment: datetime = connection.execute(_NOW).scalar_one()
    return moment.astimezone(UTC)
