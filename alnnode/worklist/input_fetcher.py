"""Fetch the input of workitems from the configured archives. A lease in the database makes sure that only one process fetches it."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import TYPE_CHECKING, NamedTuple

import structlog

from alnnode.clients.query_retrieve import Retriever
from alnnode.counted import counted
from alnnode.errors import AlnnodeError, IncompleteSeries, ServiceError
from alnnode.spool.spool import name_of
from alnnode.worklist import ups, wado_fetch
from alnnode.worklist.workitem_input import NoInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alnnode.settings import Archive
    from alnnode.worklist.performer_rows import PerformerRows
    from alnnode.worklist.services import WorklistServices
    from alnnode.worklist.workitem import Workitem
    from alnnode.worklist.workitem_input import InputSeries

FETCH_LEASE = 30.0  # seconds; each call of `InputFetcher.advance` extends the lease while the fetch runs
FETCH_PAUSE = 10.0  # seconds before the next attempt, times the number of attempts
RECORDED = 30.0  # seconds within which the database must contain the fetched series
FETCHERS = 2  # threads
NOT_YET = "not here yet: "  # beginning of the progress description after a fetch; the rest is the result of the fetch

log = structlog.get_logger()


class _Fetch(NamedTuple):
    future: Future[int]
    stop: Event


class InputFetcher:
    """Fetches in threads. The performer calls `advance` in each round for every workitem whose input is not in the node."""

    def __init__(self, services: WorklistServices, rows: PerformerRows) -> None:
        self._services, self._rows = services, rows
        self._running: dict[str, _Fetch] = {}
        self._settled: set[str] = set()  # workitems whose last fetch retrieved either all objects or none
        self._pool = ThreadPoolExecutor(FETCHERS, thread_name_prefix="fetch")

    def close(self) -> None:
        """Stop all fetches; the next process starts them again."""
        for uid in tuple(self._running):
            self.stop(uid)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def stop(self, workitem_uid: str) -> None:
        """Stop to fetch for a workitem, because its input is complete or the workitem has ended."""
        fetch = self._running.pop(workitem_uid, None)
        if fetch is not None:
            fetch.stop.set()
            fetch.future.cancel()
        self._settled.discard(workitem_uid)

    def is_complete(self, item: Workitem) -> bool:
        """Return False if the series in the node may be incomplete: because a fetch is running, or because the last one failed in part."""
        return not item.attempts or item.workitem_uid in self._settled

    def advance(self, item: Workitem, series: InputSeries) -> None:
        """Begin a fetch, check a running one, or begin another attempt when its time has come.

        Raises:
            NoInputError: no configured archive matches the workitem, or all attempts have failed.
        """
        fetch = self._running.get(item.workitem_uid)
        if fetch is None:
            self._begin(item, series)
        elif fetch.future.done():
            self._finish(item, self._running.pop(item.workitem_uid).future)
        else:
            self._rows.extend_lease(item.workitem_uid, FETCH_LEASE)

    def _begin(self, item: Workitem, series: InputSeries) -> None:
        archives = wado_fetch.candidates(self._services.settings.archives, series)
        if not archives:
            unmatched = "no configured archive has the Retrieve URL or AE title of the workitem"
            reason = unmatched if series.urls or series.ae_titles else "no archive is configured"
            raise NoInputError(f"the series is not in this node, and {reason}")
        if item.attempts >= self._services.settings.internal.fetch_attempts and not self._is_leased(item):
            raise NoInputError(f"the series could not be fetched{_last_failure(item)}")
        if self._rows.acquire_lease(item.workitem_uid, FETCH_LEASE):
            self._rows.set_progress(item.workitem_uid, 5, "fetching the series")
            self._settled.discard(item.workitem_uid)
            stop = Event()
            self._running[item.workitem_uid] = _Fetch(self._pool.submit(self._fetch, archives, series, stop), stop)

    def _finish(self, item: Workitem, future: Future[int]) -> None:
        error = future.exception()
        if not isinstance(error, IncompleteSeries):
            self._settled.add(item.workitem_uid)
        # After a success the row of the series follows within a second; until then no process may fetch the series again.
        pause = RECORDED if error is None else FETCH_PAUSE * item.attempts
        self._rows.extend_lease(item.workitem_uid, pause)
        if error is None:
            result = f"the archive says that it sent {counted(future.result(), 'object')}"
        else:
            result = str(error) if isinstance(error, AlnnodeError) else type(error).__name__
            log.warning("fetch_failed", workitem=name_of(item.workitem_uid)[:12], attempt=item.attempts, error=result)
        self._rows.set_progress(item.workitem_uid, 5, f"{NOT_YET}{result}")

    def _fetch(self, archives: Sequence[Archive], series: InputSeries, stop: Event) -> int:
        """Fetch from the first archive that has the series; return how many objects were received, or will arrive at the listener.

        Raises:
            IncompleteSeries: an archive sent a part of the series.
            ServiceError: no archive sent the series.
        """
        failures: list[ServiceError] = []
        for archive in archives:
            if stop.is_set():
                break
            try:
                if archive.kind == "dicom":
                    retriever = Retriever(archive, self._services.settings.node.ae_title)
                    return retriever.move(series.study, series.series, stop.is_set)
                return asyncio.run(wado_fetch.fetch(self._services, archive, series.study, series.series))
            except ServiceError as error:
                failures.append(error)
        kind = IncompleteSeries if any(isinstance(error, IncompleteSeries) for error in failures) else ServiceError
        raise kind("; ".join(map(str, failures)))

    def _is_leased(self, item: Workitem) -> bool:
        return item.lease_until is not None and item.lease_until > self._rows.now()


def _last_failure(item: Workitem) -> str:
    """Return why the last attempt failed, from the workitem: another process may have made that attempt."""
    progress = ups.first_item(item.document, ups.PROGRESS)
    description = ups.value(progress, ups.tag("ProcedureStepProgressDescription"))
    return f": {description.removeprefix(NOT_YET)}" if description.startswith(NOT_YET) else ""
