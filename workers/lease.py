"""The lease of a running job: renewed by a thread while the job is at work, lost when another worker took the job over."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

import structlog
from sqlalchemy.exc import SQLAlchemyError

from alnnode.errors import AlnnodeError

if TYPE_CHECKING:
    from datetime import timedelta
    from types import TracebackType

    from alnnode.analyse.jobs import Jobs

RENEWALS = 4  # in one lease: three may fail before it ends

log = structlog.get_logger()


class LeaseLostError(AlnnodeError):
    """Another worker has the job now; whatever this one still does must not count."""


class Lease:
    """Keeps a claim alive for the length of a ``with`` block."""

    def __init__(self, jobs: Jobs, job_id: str, attempt: int, length: timedelta) -> None:
        self._jobs, self._job_id, self._attempt, self._length = jobs, job_id, attempt, length
        self._ended = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def check(self) -> None:
        """Go on only while the job is this worker's.

        Raises:
            LeaseLostError: it no longer is.
        """
        if self._lost.is_set():
            raise LeaseLostError(f"job {self._job_id} was taken over")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._ended.wait(self._length.total_seconds() / RENEWALS):
            try:
                if not self._jobs.renew(self._job_id, self._length, self._attempt):
                    self._lost.set()
                    return
            except SQLAlchemyError as error:
                log.warning("lease_not_renewed", job=self._job_id, error=type(error).__name__)
