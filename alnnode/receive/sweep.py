"""The sweep: series that are complete become jobs, lost tasks are enqueued again, old bytes are deleted.

Every step may run in several processes at once and be killed at any point: what it decides is in the database before it acts on it,
and what it enqueues twice is taken once.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import structlog

from alnnode.audit.trail import Trail
from alnnode.deliver.commitment_answers import RESEND
from alnnode.priors.memory import Memory
from alnnode.receive import recorder, routes
from alnnode.records import Locate
from alnnode.retention.auditing import Deletion
from alnnode.spool.spool import ORPHAN_AGE
from alnnode.task_queue import ANALYSE, DELIVER

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from alnnode.analyse.jobs import Jobs
    from alnnode.receive.commitment_requests import Requests
    from alnnode.settings import Settings
    from alnnode.spool.spool import Spool

log = structlog.get_logger()

# A listener records within a second; what waits longer belongs to one that was killed (or whose database is away, which this is
# then told too).
JOURNAL_AGE = 60.0
CLEANING_INTERVAL = 300.0  # seconds
ROOM_INTERVAL = 10.0  # seconds between two looks for what can be deleted early
CLOCK_INTERVAL = 10.0  # seconds between two looks for what waits for a time that the clock was set back from


class Producer(Protocol):
    """Puts ids on the queues, and knows which are there."""

    def analyse(self, job_id: str) -> None:
        """Ask a worker to run a job."""

    def deliver(self, delivery_id: str) -> None:
        """Ask a worker to make all deliveries that are due at the destination of this one."""

    def queued(self, queue: str) -> Collection[str]:
        """Ids on a queue."""


class Sweep:
    """Call `once` every second or so.

    Args:
        settings: completion, routes and retention are read.
        jobs: the job tables.
        requests: commitment requests, of which old ones are deleted.
        spool: the bytes.
        producer: where ids go; when it raises, they are enqueued again by a later sweep.
        trail: is told what is deleted.
    """

    def __init__(
        self, settings: Settings, jobs: Jobs, requests: Requests, spool: Spool, producer: Producer, trail: Trail | None = None
    ) -> None:
        self._settings, self._jobs, self._requests, self._spool, self._producer = settings, jobs, requests, spool, producer
        self._trail = trail or Trail(settings)
        longest = max(settings.internal.retry_longest, settings.internal.commitment_timeout, RESEND.total_seconds())
        self._waits = {one.name: timedelta(seconds=longest) for one in settings.destinations}
        self._next_cleaning = self._next_room = self._next_clock = 0.0

    def once(self) -> None:
        """Do everything that is due.

        Raises:
            OSError, SQLAlchemyError, ServiceError: disk, database or broker does not do its part; the next call goes on.
        """
        if time.monotonic() >= self._next_cleaning:
            self.clean()
            self._next_cleaning = time.monotonic() + CLEANING_INTERVAL
        self._make_room()
        self._put_right()
        ready = self._jobs.complete_due(
            self._settings.completion,
            lambda facts: routes.unwanted(self._settings.routes, facts),
            marked=self._settings.analysis.locate is not Locate.AUTO,
        )
        for job_id in ready:
            log.info("job_ready", job=job_id)
        self._enqueue(self._producer.analyse, ready)
        self._enqueue(self._producer.analyse, self._jobs.lost(queued=lambda: self._producer.queued(ANALYSE)))
        self._enqueue(self._producer.deliver, self._jobs.due_deliveries(queued=lambda: self._producer.queued(DELIVER)))

    def clean(self, now: datetime | None = None) -> None:
        """Record what a killed listener left, and delete what is no longer kept."""
        moment = now or datetime.now(UTC)
        replayed = recorder.replay(self._jobs, self._spool, JOURNAL_AGE)
        orphans = self._spool.sweep_temporary(ORPHAN_AGE)
        keep = self._settings.retention
        with Deletion(self._spool, self._trail) as deletion:
            purged = self._jobs.purge(
                moment - timedelta(days=keep.delivered_days),
                moment - timedelta(days=keep.failed_days),
                deletion.delete,
                moment,
                told=deletion.told,
            )
        asked = self._requests.purge(moment)
        forgotten = Memory(self._spool.root).forget((moment - timedelta(days=keep.follow_up_days)).timestamp())
        if replayed or orphans or purged or asked or forgotten:
            log.info(
                "cleaned",
                replayed=replayed,
                orphans=orphans,
                series=purged,
                commitment_requests=asked,
                reports_forgotten=forgotten,
            )

    def _put_right(self) -> None:
        if time.monotonic() < self._next_clock:
            return
        self._next_clock = time.monotonic() + CLOCK_INTERVAL
        changed = self._jobs.put_right(self._waits)
        if changed:
            log.warning("clock_set_back", put_right=changed)

    def _make_room(self) -> None:
        """Delete what was delivered, before its days are over, when the disk fills up; what waits or failed stays."""
        keep, free = self._settings.retention, self._spool.free_mb
        if free() >= keep.clean_below_mb or time.monotonic() < self._next_room:
            return
        self._next_room = time.monotonic() + ROOM_INTERVAL
        now = datetime.now(UTC)
        never = datetime.fromtimestamp(0, UTC)
        with Deletion(self._spool, self._trail) as deletion:
            purged = self._jobs.purge(now, never, deletion.delete, now, lambda: free() >= keep.clean_to_mb, deletion.told)
        log.warning("disk_filling", free_mb=free(), series_deleted_early=purged)

    @staticmethod
    def _enqueue(put: Callable[[str], None], ids: Iterable[str]) -> None:
        for identifier in ids:
            put(identifier)
