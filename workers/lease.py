"""The lease of a running job: a thread renews it during the analysis; it is lost when another worker claims the job."""

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
    from alnnode.db.rows import Claim

RENEWALS = 4  # during one lease: three may fail before it ends

log = structlog.get_logger()


class LeaseLostError(AlnnodeError):
    """Another worker has claimed the job; the results of this worker are not recorded."""


class Lease:
    """Renews a claim during a ``with`` block."""

    def __init__(self, jobs: Jobs, claim: Claim, length: timedelta) -> None:
        self._jobs, self._claim, self._length = jobs, claim, length
        self._ended = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def check(self) -> None:
        """Check that the job is still claimed by this worker.

        Raises:
            LeaseLostError: another worker has claimed it.
        """
        if self._lost.is_set():
            raise LeaseLostError(f"job {self._claim.job_id} was taken over")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _renew(self) -> None:
        while not self._ended.wait(self._length.total_seconds() / RENEWALS):
            try:
                if not self._jobs.renew(self._claim, self._length):
                    self._lost.set()
                    return
            except SQLAlchemyError as error:
                log.warning("lease_not_renewed", job=self._claim.job_id, error=type(error).__name__)
