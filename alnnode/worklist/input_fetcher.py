"""Fetches the input of workitems from the configured archives. That somebody does so is a lease in the database: one process at a time."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Event
from typing import TYPE_CHECKING, NamedTuple

import structlog

from alnnode.clients.query_retrieve import Retriever
from alnnode.errors import AlnnodeError, IncompleteSeries, ServiceError
from alnnode.spool.spool import name_of
from alnnode.worklist import ups, wado_fetch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alnnode.settings import Archive
    from alnnode.web.services import Services
    from alnnode.worklist.performing import Performing
    from alnnode.worklist.wado_fetch import Wanted
    from alnnode.worklist.worklist import Workitem

FETCH_LEASE = 30.0  # seconds; renewed with every look while the input is being fetched
FETCH_PAUSE = 10.0  # seconds before the next try, times the tries there were
RECORDED = 30.0  # seconds that the row of what was fetched may take
FETCHERS = 2
NOT_YET = "not here yet: "  # begins the progress of a workitem whose series was asked for in vain; the rest says why

log = structlog.get_logger()


class NoInputError(AlnnodeError):
    """The input of a workitem cannot be had; the text is for its requester."""


class _Fetch(NamedTuple):
    future: Future[int]
    stop: Event


class Fetcher:
    """Call `step` with each look at a workitem whose input is not here."""

    def __init__(self, opened: Services, performing: Performing) -> None:
        self._opened, self._performing = opened, performing
        self._running: dict[str, _Fetch] = {}
        self._settled: set[str] = set()  # workitems whose last fetch brought all or nothing
        self._pool = ThreadPoolExecutor(FETCHERS, thread_name_prefix="fetch")

    def close(self) -> None:
        """End; what is being fetched is fetched anew at the next start."""
        for uid in tuple(self._running):
            self.forget(uid)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def forget(self, workitem_uid: str) -> None:
        """Stop fetching for a workitem that has its input, or is at its end."""
        fetch = self._running.pop(workitem_uid, None)
        if fetch is not None:
            fetch.stop.set()
            fetch.future.cancel()
        self._settled.discard(workitem_uid)

    def is_whole(self, item: Workitem) -> bool:
        """Whether what is here of the series is no part that a fetch brings just now, or left behind when it failed."""
        return not item.attempts or item.workitem_uid in self._settled

    def step(self, item: Workitem, wanted: Wanted) -> None:
        """Begin to fetch, see how it goes, or try again when it is time.

        Raises:
            NoInputError: no configured archive is the one to ask, or none gave the series often enough.
        """
        fetch = self._running.get(item.workitem_uid)
        if fetch is None:
            self._begin(item, wanted)
        elif fetch.future.done():
            self._settle(item, self._running.pop(item.workitem_uid).future)
        else:
            self._performing.lease(item.workitem_uid, FETCH_LEASE, counts=False)

    def _begin(self, item: Workitem, wanted: Wanted) -> None:
        archives = wado_fetch.candidates(self._opened.settings.archives, wanted)
        if not archives:
            named = "no configured archive has the Retrieve URL or AE title of the workitem"
            raise NoInputError(
                f"the series is not in this node, and {named if wanted.urls or wanted.ae_titles else 'no archive is configured'}"
            )
        if item.attempts >= self._opened.settings.internal.fetch_attempts and not _leased(item):
            raise NoInputError(f"the series could not be fetched{_trouble(item)}")
        if self._performing.lease(item.workitem_uid, FETCH_LEASE, counts=True):
            self._performing.progress(item.workitem_uid, 5, "fetching the series")
            self._settled.discard(item.workitem_uid)
            stop = Event()
            self._running[item.workitem_uid] = _Fetch(self._pool.submit(self._fetch, archives, wanted, stop), stop)

    def _settle(self, item: Workitem, future: Future[int]) -> None:
        error = future.exception()
        if not isinstance(error, IncompleteSeries):
            self._settled.add(item.workitem_uid)
        # After a success the row of the series follows within a second; until then nobody else may fetch it.
        pause = RECORDED if error is None else FETCH_PAUSE * item.attempts
        self._performing.lease(item.workitem_uid, pause, counts=False)
        if error is None:
            words = f"the archive says that it sent {future.result()} objects"
        else:
            words = str(error) if isinstance(error, AlnnodeError) else type(error).__name__
            log.warning("fetch_failed", workitem=name_of(item.workitem_uid)[:12], attempt=item.attempts, error=words)
        self._performing.progress(item.workitem_uid, 5, f"{NOT_YET}{words}")

    def _fetch(self, archives: Sequence[Archive], wanted: Wanted, stop: Event) -> int:
        """Fetch from the first archive that has the series; how many objects came, or are on their way through the listener."""
        troubles: list[ServiceError] = []
        for one in archives:
            if stop.is_set():
                break
            try:
                if one.kind == "dicom":
                    return Retriever(one, self._opened.settings.node.ae_title).move(wanted.study, wanted.series, stop.is_set)
                return asyncio.run(wado_fetch.fetch(self._opened, one, wanted.study, wanted.series))
            except ServiceError as error:
                troubles.append(error)
        kind = IncompleteSeries if any(isinstance(error, IncompleteSeries) for error in troubles) else ServiceError
        raise kind("; ".join(map(str, troubles)))


def _leased(item: Workitem) -> bool:
    return item.lease_until is not None and item.lease_until > datetime.now(UTC)


def _trouble(item: Workitem) -> str:
    """Return why the last try was in vain: it stands in the workitem, so that another process knows it too."""
    progress = next(iter(ups.items(item.document, ups.PROGRESS)), {})
    words = ups.value(progress, ups.tag("ProcedureStepProgressDescription"))
    return f": {words.removeprefix(NOT_YET)}" if words.startswith(NOT_YET) else ""
