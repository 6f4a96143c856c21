"""Companions of an analysis: while the queue is long, its process analyses further waiting series at the same time.

Each companion has a thread: it claims its job and holds its lease as any analysis does. The threads read images and cut crops while one
of them uses the device, and a GPU gets the crops of all threads that wait in one batch (`alnnode.pipeline.Models`). If the process dies,
every job in it is retried, and a retried job has a process for itself: a series that kills its process cannot fail its companions.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from workers.runtime import Runtime

log = structlog.get_logger()


@contextmanager
def of(job_id: str, runtime: Runtime, analyse: Callable[[str], None]) -> Iterator[None]:
    """Analyse companions of a job during a ``with`` block, and wait for them at its end.

    Raises:
        SystemExit: the time limit of the task ended while companions ran. Their jobs are retried in another process.
    """
    threads = [threading.Thread(target=analyse, args=(other,), daemon=True) for other in choose(job_id, runtime)]
    runtime.shared = bool(threads)
    for thread in threads:
        thread.start()
    try:
        yield
        for thread in threads:
            thread.join()
    except SoftTimeLimitExceeded:
        log.warning("companions_abandoned", companions=len(threads))
        raise SystemExit(0) from None
    runtime.shared = False


def choose(job_id: str, runtime: Runtime) -> tuple[str, ...]:
    """Return the jobs that are analysed together with this one: at most half of those that wait, the rest is left to other workers."""
    most = runtime.settings.analysis.series_at_once - 1
    if not most:
        return ()
    try:
        waiting = runtime.tables.jobs.first_attempts(2 * most + 1)
    except SQLAlchemyError:
        return ()
    others = [other for other in waiting if other != job_id]
    return tuple(others[: min(most, len(others) // 2)]) if job_id in waiting else ()
