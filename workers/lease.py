"""The lease of a job or of a delivery: a thread renews it during the work; it is lost when another worker claims the job or the delivery."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

import structlog
from sqlalchemy.exc import SQLAlchemyError

from alnnode.errors import AlnnodeError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta
    from types import TracebackType

RENEWALS = 4  # during one lease: three may fail before it ends

log = structlog.get_logger()


class LeaseLostError(AlnnodeError):
    """Another worker has claimed the job or the delivery; the results of this worker are not recorded."""


class Lease:
    """Renews a claim during a ``with`` block.

    Args:
        renew: prolongs the lease; returns False when another worker has claimed the job or the delivery.
        length: the time from a renewal to the end of the lease.
        kind: of what is claimed: ``job`` or ``delivery``.
        name: its id.
    """

    def __init__(self, renew: Callable[[], bool], length: timedelta, kind: str, name: str) -> None:
        self._prolong, self._length, self._kind, self._name = renew, length, kind, name
        self._ended = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def check(self) -> None:
        """Check that the claim is still that of this worker.

        Raises:
            LeaseLostError: another worker has claimed it.
        """
        if self._lost.is_set():
            raise LeaseLostError(f"{self._kind} {self._name} was taken over")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _renew(self) -> None:
        while not self._ended.wait(self._length.total_seconds() / RENEWALS):
            try:
                if not self._prolong():
                    self._lost.set()
                    return
            except SQLAlchemyError as error:
                log.warning("lease_not_renewed", error=type(error).__name__, **{self._kind: self._name})
