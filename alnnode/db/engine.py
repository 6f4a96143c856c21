"""Database engines that behave alike on SQLite and PostgreSQL.

SQLite runs with a write-ahead log (readers never wait for the writer), ``synchronous=FULL`` (a committed job survives a
power cut) and ``BEGIN IMMEDIATE`` for every transaction that writes: a deferred transaction would fail with "database is locked" when
it upgrades its lock, and no busy timeout prevents that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import create_engine, event, make_url

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

BUSY_TIMEOUT_MS = 30_000
# libpq gives a silent server up after these seconds (the last is in ms). Without them, a process that was cut off from the database, or
# whose database moved to another host, waits a quarter of an hour for the answer to one statement.
_LOST_SERVER = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
# The same for the server: it ends the transaction of a client that is silent, and with it the locks that other hosts wait for.
_LOST_CLIENT = (
    "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; SET tcp_user_timeout = 20000"
)


def create(url: str, pool_size: int = 5) -> Engine:
    """Return an engine for ``sqlite:///…`` or ``postgresql+psycopg://…``; it does not connect yet.

    It keeps up to ``pool_size`` connections, and opens as many more for a short time.
    """
    if make_url(url).get_backend_name() == "sqlite":
        return _sqlite(url, pool_size)
    given = make_url(url).query  # what the administrator says wins
    lost = {key: value for key, value in _LOST_SERVER.items() if key not in given}
    engine = create_engine(url, pool_size=pool_size, max_overflow=pool_size, pool_pre_ping=True, connect_args=lost)
    event.listen(engine, "connect", _notice_lost_client)
    return engine


def for_writing(engine: Engine) -> Engine:
    """Return the same engine (one pool) whose transactions take SQLite's write lock when they begin."""
    return engine.execution_options(writes=True)


def for_single_reads(engine: Engine) -> Engine:
    """Return the same engine (one pool) without transactions, for single statements: a statement is consistent by itself, and costs half."""
    if engine.dialect.name == "sqlite":
        return engine.execution_options(transactions=False)
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def _sqlite(url: str, pool_size: int) -> Engine:
    engine = create_engine(url, pool_size=pool_size, max_overflow=pool_size)
    event.listen(engine, "connect", _set_up)
    event.listen(engine, "begin", _begin)
    return engine


def _set_up(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # `_begin` begins the transactions, not the driver
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={BUSY_TIMEOUT_MS}", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _notice_lost_client(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute(_LOST_CLIENT)
    cursor.close()
    connection.commit()


def _begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    if options.get("transactions", True):
        connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("writes") else "BEGIN")
