"""Wait for a database that cannot be reached."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.exc import OperationalError

if TYPE_CHECKING:
    from collections.abc import Callable

PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0)  # seconds between the attempts of what cannot reach the database

log = structlog.get_logger()


def retried(work: Callable[[], object], identifier: str) -> None:
    """Do something, and try again for half a minute while the database cannot be reached.

    Raises:
        OperationalError: the database could not be reached.
    """
    for pause in PAUSES:
        try:
            work()
        except OperationalError:
            log.warning("database_away", id=identifier, wait=pause)
            time.sleep(pause)
        else:
            return
    work()
