"""The loop of the sweep in its supervisor: one round after another, while this process leads."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.exc import SQLAlchemyError

from alnnode.db import engine
from alnnode.db.leader import Leader
from alnnode.errors import AlnnodeError, ServiceError
from alnnode.node.sweep import Sweep
from alnnode.spool.opening import open_spool
from alnnode.task_queue import Producer, ping

if TYPE_CHECKING:
    import threading

    from alnnode.audit.trail import Trail
    from alnnode.settings import Settings

log = structlog.get_logger()


def run_sweep(settings: Settings, trail: Trail, stop: threading.Event) -> None:
    """Sweep until ``stop`` is set. A fault of the database, the broker or the spool is logged; the next round tries again."""
    database = engine.create(settings.database_url)
    spool, producer = open_spool(settings), Producer(settings)
    sweep, leader = Sweep(settings, database, spool, producer, trail), Leader(database, "sweep")
    # The file of an SQLite database is on one host. Its sweep waits for no lease of a process that was killed.
    alone = database.dialect.name == "sqlite"
    broker_down = False
    while not stop.wait(settings.internal.sweep_interval):
        try:
            if not (alone or leader.leads()):
                continue
            if broker_down:  # a failed enqueueing delays the next one, so look first whether the broker answers
                ping(settings.broker_url)
            sweep.once()
            broker_down = False
        except (AlnnodeError, SQLAlchemyError, OSError) as error:
            broker_down = isinstance(error, ServiceError)
            reason = str(error) if isinstance(error, AlnnodeError) else type(error).__name__
            log.warning("sweep_failed", error=reason)
    with suppress(SQLAlchemyError):  # the lease ends soon anyway
        leader.resign()
