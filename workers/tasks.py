"""The Celery tasks, which call `workers.analysing` and `workers.delivering`.

No exception reaches Celery, which would print its text: the text of a database error holds parameters.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.exc import SQLAlchemyError

from alnnode import logs
from alnnode.errors import AlnnodeError
from alnnode.task_queue import ANALYSE_TASK, DELIVER_TASK
from workers import analysing, companions, delivering
from workers.outages import retried

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery

    from workers.runtime import Runtime

log = structlog.get_logger()


def register(app: Celery, runtime: Runtime) -> None:
    """Register both tasks. A failure of a job is written to the database; the sweep enqueues every other task that failed again."""

    def analyse(job_id: str) -> None:
        if runtime.suspect:
            # The pool starts another process, and Celery gives this task to it (task_reject_on_worker_lost).
            log.warning("process_replaced")
            raise SystemExit(0)
        with companions.of(job_id, runtime, lambda other: _run(analysing.analyse, other, runtime)):
            _run(analysing.analyse, job_id, runtime)

    def deliver(delivery_id: str) -> None:
        _run(delivering.deliver, delivery_id, runtime)

    app.task(name=ANALYSE_TASK, shared=False)(analyse)
    app.task(name=DELIVER_TASK, shared=False)(deliver)


def _run(work: Callable[[str, Runtime], None], identifier: str, runtime: Runtime) -> None:
    # Without the pauses, a worker that cannot reach the database would consume the whole queue, and the sweep would enqueue every message
    # again, for as long as the database is away.
    try:
        retried(partial(work, identifier, runtime), identifier)
    except Exception as error:  # noqa: BLE001 - see the module
        runtime.suspect |= not isinstance(error, AlnnodeError | SQLAlchemyError | OSError)
        log.error("task_failed", id=identifier, error=type(error).__name__, where=logs.where(error))  # noqa: TRY400
