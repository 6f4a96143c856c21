"""A backfill: search an archive day by day, and retrieve its series one after the other, limited by a rate and by the load of the node."""

from __future__ import annotations

import asyncio
import fcntl
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

from alnnode.backfill.rows import BackfillRows
from alnnode.backfill.search import ArchiveSearch, may_be_wanted
from alnnode.clients.query_retrieve import Retriever
from alnnode.counted import counted
from alnnode.db import clock
from alnnode.errors import ServiceError
from alnnode.receive.acceptor import Acceptor
from alnnode.receive.received_series import ReceivedSeries
from alnnode.spool.opening import open_spool
from alnnode.worklist import wado_fetch
from alnnode.worklist.services import WorklistServices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy.engine import Engine

    from alnnode.backfill.rows import Wanted
    from alnnode.settings import Archive, Settings

MOST_FAILURES = (
    5  # series in a row that cannot be retrieved, before the backfill stops: then the archive or the node has a fault
)
POLL = 1.0  # seconds between two looks at the load of the node
SPACE = 2  # the backfill waits while less than this many times [retention] clean_below_mb is free
HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a backfill retrieves, and how fast.

    Attributes:
        archive: settings of the archive.
        first: the first day of the studies.
        last: the last day.
        rate: most series in an hour.
        waiting: most jobs that may wait in the node before it retrieves another series.
    """

    archive: Archive
    first: date
    last: date
    rate: float
    waiting: int


class Backfill:
    """One run, which can be stopped, killed and run again.

    Args:
        settings: of the node.
        engine: the database.
        plan: what to retrieve.
        say: gets lines for people.
    """

    def __init__(self, settings: Settings, engine: Engine, plan: Plan, say: Callable[[str], None]) -> None:
        self._settings, self._engine, self._plan, self._say = settings, engine, plan, say
        self.stop = threading.Event()
        modalities = {modality for route in settings.routes for modality in route.modalities}
        self._modalities = sorted(modalities) or ["CT"]
        conditions = [*self._modalities, *(route.model_dump_json() for route in settings.routes)]
        self.rows = BackfillRows(engine, plan.archive.name, conditions)
        self._search = ArchiveSearch(plan.archive, settings.node.ae_title, self.stop.is_set)
        self._spool = open_spool(settings)
        self._next_request, self._failures = 0.0, 0

    def run(self, *, search_only: bool = False) -> None:
        """Search each day, the newest first, and retrieve its series; return when all is done or `stop` is set.

        Raises:
            ServiceError: the archive cannot be searched, many series in a row fail, or another backfill works on this archive.
        """
        plan = self._plan
        with _lock(self._settings.node.data_dir / f"backfill-{plan.archive.name}.lock"):
            for number in range((plan.last - plan.first).days + 1):
                day = plan.last - timedelta(days=number)
                self._search_day(day)
                if not search_only:
                    self._retrieve_due(day)
                if self.stop.is_set():
                    return
            while not search_only and not self.stop.is_set() and (due := self.rows.next_due(plan.first, plan.last)):
                self.stop.wait(max(0.0, min(POLL, (due - clock.now(self._engine)).total_seconds())))
                self._retrieve_due(plan.first)

    def _search_day(self, day: date) -> None:
        if self.rows.is_searched(day):
            return
        found = self._search.series_of(day, self._modalities)
        wanted = [one for one in found if may_be_wanted(self._settings.routes, one.facts)]
        # The studies of today go on arriving, so today is searched again.
        new = self.rows.record_day(day, wanted, clock.now(self._engine), closed=day < date.today())  # noqa: DTZ011 - a day of the hospital
        self._say(f"{day}: {len(found)} series in the archive, {len(wanted)} of them for a route, {new} new")

    def _retrieve_due(self, first: date) -> None:
        """Retrieve the series of this day and of all later days that are due."""
        while self._wait_for_turn():
            wanted = self.rows.next(first, self._plan.last, clock.now(self._engine))
            if wanted is None:
                return
            self._next_request = time.monotonic() + HOUR / self._plan.rate
            self._retrieve(wanted)

    def _retrieve(self, wanted: Wanted) -> None:
        try:
            self._request(wanted)
        except ServiceError as error:
            if self.stop.is_set():
                self.rows.postponed(wanted)
                return
            self.rows.failed(wanted, str(error), clock.now(self._engine))
            self._failures += 1
            self._say(f"a series was not retrieved (attempt {wanted.attempt}): {error}")
            if self._failures >= MOST_FAILURES:
                raise ServiceError(
                    f"{self._failures} series in a row were not retrieved; the last error: {error}. Correct it, and run the command again"
                ) from error
        else:
            self._failures = 0
            self.rows.retrieved(wanted)

    def _request(self, wanted: Wanted) -> None:
        """Have the archive send a series to the listener, or fetch it by WADO-RS."""
        archive, settings = self._plan.archive, self._settings
        if archive.kind == "dicom":
            Retriever(archive, settings.node.ae_title).move(wanted.study_uid, wanted.series_uid, self.stop.is_set)
            return
        acceptor = Acceptor(settings, ReceivedSeries(self._engine), self._spool)
        try:
            services = WorklistServices.open(settings, self._engine, self._spool, acceptor)
            asyncio.run(wado_fetch.fetch(services, archive, wanted.study_uid, wanted.series_uid))
        finally:
            acceptor.close()

    def _wait_for_turn(self) -> bool:
        """Wait for the rate, for the jobs of the node and for disk space; return False when the backfill is to stop."""
        said = ""
        while not self.stop.is_set():
            reason = self._load()
            if not reason and (wait := self._next_request - time.monotonic()) <= 0:
                return True
            if reason and reason != said:
                self._say(f"waiting: {reason}")
                said = reason
            self.stop.wait(POLL if reason else min(POLL, wait))
        return False

    def _load(self) -> str:
        """Return why the node takes no further series now; empty when it does."""
        settings = self._settings.retention
        least = SPACE * max(settings.clean_below_mb, settings.min_free_mb)
        if self._spool.free_mb() < least:
            return f"less than {least} MiB of the disk are free"
        if self.rows.waiting_jobs() >= self._plan.waiting:
            return f"{counted(self._plan.waiting, 'job waits', 'jobs wait')} in the node"
        return ""


@contextmanager
def _lock(file: Path) -> Iterator[None]:
    with file.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ServiceError("another backfill of this archive runs; stop it first") from error
        yield
