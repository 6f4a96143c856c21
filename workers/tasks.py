"""The tasks: thin names around `workers.analysing` and `workers.delivering`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alnnode.queue import ANALYSE_TASK, DELIVER_TASK
from workers import analysing, delivering

if TYPE_CHECKING:
    from celery import Celery

    from workers.runtime import Runtime


def register(app: Celery, runtime: Runtime) -> None:
    """Give ``app`` both tasks. A task never raises for a job's own trouble: that is in the database."""

    def analyse(job_id: str) -> None:
        analysing.analyse(job_id, runtime)

    def deliver(delivery_id: str) -> None:
        delivering.deliver(delivery_id, runtime)

    app.task(name=ANALYSE_TASK)(analyse)
    app.task(name=DELIVER_TASK)(deliver)
