"""The tasks: thin names around `workers.analysing` and `workers.delivering`.

Nothing they raise reaches Celery, which would print its text: that of a database's error holds parameters.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from alnnode import logs
from alnnode.errors import AlnnodeError
from alnnode.task_queue import ANALYSE_TASK, DELIVER_TASK
from workers import analysing, delivering

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery

    from workers.analyst import Runtime

log = structlog.get_logger()

PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0)  # seconds between the tries of a task whose database is away


def register(app: Celery, runtime: Runtime) -> None:
    """Give ``app`` both tasks. A job's own trouble is in the database; what ends a task otherwise, the sweep enqueues again."""

    def analyse(job_id: str) -> None:
        if runtime.suspect:
            # The pool starts another process and Celery gives it this task (task_reject_on_worker_lost).
            log.warning("process_replaced")
            raise SystemExit(0)
        _quietly(analysing.analyse, job_id, runtime)

    def deliver(delivery_id: str) -> None:
        _quietly(delivering.deliver, delivery_id, runtime)

    app.task(name=ANALYSE_TASK, shared=False)(analyse)
    app.task(name=DELIVER_TASK, shared=False)(deliver)


def _quietly(work: Callable[[str, Runtime], None], identifier: str, runtime: Runtime) -> None:
    # A worker that failed at once while the database is away would take a whole queue of messages to their end, each of which the sweep
    # would enqueue again, for as long as that lasts.
    for pause in (*PAUSES, None):
        try:
            work(identifier, runtime)
        except Exception as error:  # noqa: BLE001 - as the module says
            if pause is not None and isinstance(error, OperationalError):
                log.warning("database_away", id=identifier, wait=pause)
                time.sleep(pause)
                continue
            runtime.suspect |= not isinstance(error, AlnnodeError | SQLAlchemyError | OSError)
            log.error("task_failed", id=identifier, error=type(error).__name__, where=logs.where(error))  # noqa: TRY400
        return
