"""Hints of ``alnnode check``: what works now and may fail a hospital later. They do not fail the check."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from alnnode.backup.backup import LAST_BACKUP
from alnnode.db import engine as engines
from alnnode.db.schema import schema_state
from alnnode.db.tables import Delivery, DeliveryState, Job
from alnnode.errors import ServiceError
from alnnode.notify.outbox import NoticeOutbox
from alnnode.records import JobState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Engine

    from alnnode.settings import Settings

DAY = 86400.0  # seconds
BACKUP_DAYS = 7
MOST_WAITING = 50  # jobs


class Hint(NamedTuple):
    """One hint, with the columns of the table of ``alnnode check``."""

    what: str
    found: str
    advice: str


def hints(settings: Settings) -> Iterator[Hint]:
    """Yield the hints. A database that is missing or cannot be read has a check of its own."""
    yield from _settings(settings)
    yield from _backup(settings)
    try:
        schema_state(settings.database_url)
    except (ServiceError, OSError):
        return
    database = engines.create(settings.database_url)
    try:
        yield from _database(database)
    except (SQLAlchemyError, OSError):
        return
    finally:
        database.dispose()


def _settings(settings: Settings) -> Iterator[Hint]:
    if not settings.notify.channels:
        yield Hint("notifications", "none: the node tells nobody of a fault", "set [notify] webhook or mail")
    retention = settings.retention
    if retention.clean_below_mb and retention.clean_below_mb <= retention.min_free_mb:
        found = f"clean_below_mb {retention.clean_below_mb} is not above min_free_mb {retention.min_free_mb}"
        yield Hint("disk limits", found, "raise clean_below_mb: the node refuses images before it deletes delivered series")
    if settings.logging.level == "debug":
        yield Hint("log", 'level is "debug"', 'set [logging] level = "info": the log of a busy day fills disks')


def _backup(settings: Settings) -> Iterator[Hint]:
    advice = "run `alnnode backup FOLDER` each night, by a timer"
    try:
        age = time.time() - (settings.node.data_dir / LAST_BACKUP).stat().st_mtime
    except OSError:
        yield Hint("backup", "none by `alnnode backup`", advice)
        return
    if age > BACKUP_DAYS * DAY:
        yield Hint("backup", f"the last one is {age / DAY:.0f} days old", advice)


def _database(database: Engine) -> Iterator[Hint]:
    with database.connect() as connection:
        waiting = connection.execute(select(func.count()).where(Job.state == JobState.READY)).scalar_one()
        failing = connection.execute(
            select(Delivery.destination, func.count())
            .where(Delivery.state == DeliveryState.PENDING, Delivery.last_error.is_not(None))
            .group_by(Delivery.destination)
            .order_by(Delivery.destination)
        ).all()
    if waiting > MOST_WAITING:
        yield Hint("jobs", f"{waiting} wait for a worker", 'add workers or a GPU; docs/operations.md has "Scale out"')
    for name, count in failing:
        advice = "read the error on the status page, and correct the destination"
        yield Hint(f"deliveries to {name}", f"{count} wait after an error", advice)
    for channel, error, count in NoticeOutbox(database).troubles():
        yield Hint(
            f"notifications by {channel}", f"{count} not sent; {error}", "correct [notify], then run `alnnode notify --test`"
        )
