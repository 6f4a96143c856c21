"""The sweep: the periodic work of all stages, in one thread of the supervisor.

It makes complete series READY, enqueues jobs and deliveries, enqueues lost tasks again, and deletes files and rows whose time is over.
Several processes may run a sweep at the same time, and each may be killed at any point: every decision is in the database before it is
acted on, and a job or delivery that is enqueued twice is claimed once.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import structlog

from alnnode.analyse.jobs import Jobs
from alnnode.analyse.study_reports import HeldReports
from alnnode.db import clock, row_counts
from alnnode.db.pauses import ANALYSIS, Pauses, destination_target
from alnnode.deliver.commitment_answers import RESEND
from alnnode.deliver.deliveries import Deliveries
from alnnode.priors.prior_store import PriorStore
from alnnode.process.job_logs import JobLogs
from alnnode.receive import routes
from alnnode.receive.commitment_requests import CommitmentRequests
from alnnode.receive.received_series import ReceivedSeries
from alnnode.records import Locate
from alnnode.retention.file_retention import FileExpiry, FileRetention
from alnnode.retention.row_retention import RowRetention
from alnnode.spool.spool import ORPHAN_AGE
from alnnode.task_queue import ANALYSE, DELIVER
from alnnode.worklist.future_leases import reset_future_leases

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from sqlalchemy.engine import Engine

    from alnnode.audit.trail import Trail
    from alnnode.settings import Settings
    from alnnode.spool.spool import Spool

log = structlog.get_logger()

# A listener records an object within a second. An older journal entry is from a listener that was killed, or that cannot reach the
# database; in the second case the sweep cannot reach it either.
JOURNAL_AGE = 60.0
CLEANING_INTERVAL = 300.0  # seconds
FREE_SPACE_INTERVAL = 10.0  # seconds between two checks of the free space, while the disk is nearly full
LOG_MARGIN = timedelta(days=1)  # for which the log of a job outlasts its files
CLOCK_INTERVAL = 10.0  # seconds between two searches for times from before the clock was set back
HELD_INTERVAL = 5.0  # seconds between two decisions on reports that are held back: a long queue means many studies to look at


class Producer(Protocol):
    """Enqueues ids, and returns the ids that are on a queue."""

    def enqueue_analysis(self, job_id: str) -> None:
        """Ask a worker to run a job."""

    def enqueue_delivery(self, delivery_id: str) -> None:
        """Ask a worker to make all deliveries that are due at the destination of this delivery."""

    def queued(self, queue: str) -> Collection[str]:
        """Return the ids on a queue."""


class Sweep:
    """Call `once` about every second.

    Args:
        settings: of completion, routes, destinations and retention.
        engine: the database.
        spool: the files.
        producer: gets the ids; when it raises, a later sweep enqueues them.
        trail: gets a message for each study whose files are deleted.
    """

    def __init__(self, settings: Settings, engine: Engine, spool: Spool, producer: Producer, trail: Trail) -> None:
        self._settings, self._engine, self._spool, self._producer = settings, engine, spool, producer
        self._received, self._jobs, self._deliveries = ReceivedSeries(engine), Jobs(engine), Deliveries(engine)
        self._files, self._rows = FileRetention(engine, spool, trail), RowRetention(engine)
        self._held = HeldReports(engine, settings)
        self._requests, self._priors, self._pauses = CommitmentRequests(engine), PriorStore(spool.root), Pauses(engine)
        longest = max(settings.internal.retry_longest, settings.internal.commitment_timeout, RESEND.total_seconds())
        self._longest_waits = {one.name: timedelta(seconds=longest) for one in settings.destinations}
        self._job_logs = JobLogs(settings.node.data_dir)
        self._next_cleaning = self._next_free_space = self._next_clock = self._next_held = 0.0

    def once(self) -> None:
        """Do all work that is due.

        Raises:
            OSError, SQLAlchemyError, ServiceError: the disk, the database or the broker fails; the next call continues.
        """
        if time.monotonic() >= self._next_cleaning:
            self._next_cleaning = (
                time.monotonic() + CLEANING_INTERVAL
            )  # first: a cleaning that fails does not stop the rounds until then
            self.clean()
        self._free_space()
        self._reset_future_times()
        ready = self._received.complete_due(
            self._settings.completion,
            lambda facts: routes.unwanted(self._settings.routes, facts),
            marked=self._settings.analysis.locate is not Locate.AUTO,
            priority=lambda facts: routes.priority(self._settings.routes, facts),
        )
        for job_id in ready:
            log.info("job_ready", job=job_id)
        self._decide_on_held_reports()
        analyse, deliver = self._producer.enqueue_analysis, self._producer.enqueue_delivery
        paused = self._pauses.all()
        if ANALYSIS not in paused:
            self._enqueue(analyse, ready)
            self._enqueue(analyse, self._jobs.lost(queued=lambda: self._producer.queued(ANALYSE)))
        waiting = [name for name in self._longest_waits if destination_target(name) in paused]
        self._enqueue(deliver, self._deliveries.due(queued=lambda: self._producer.queued(DELIVER), paused=waiting))

    def clean(self, now: datetime | None = None) -> None:
        """Record the objects that a killed listener left, and delete all files and rows whose time is over."""
        from alnnode.receive import recorder  # noqa: PLC0415 - a supervisor starts without pydicom, whose import takes half a second

        moment = now or clock.now(self._engine)
        settings = self._settings.retention
        ended_before = moment - timedelta(days=settings.failed_days)
        expiry = FileExpiry(moment - timedelta(days=settings.delivered_days), ended_before, ended_before)
        counts = {
            "replayed": recorder.replay(self._received, self._spool, JOURNAL_AGE),
            "orphans": self._spool.delete_orphans(ORPHAN_AGE),
            "series": self._files.delete_expired(expiry, moment),
            "rows_of_series": self._delete_rows(moment),
            "commitment_requests": self._requests.delete_old(moment),
            "job_logs": self._job_logs.delete_before((min(expiry.delivered_before, ended_before) - LOG_MARGIN).timestamp()),
            "reports_forgotten": self._priors.delete_before((moment - timedelta(days=settings.follow_up_days)).timestamp()),
        }
        row_counts.compact(self._engine)
        if any(counts.values()):
            log.info("cleaned", **counts)

    def _delete_rows(self, now: datetime) -> int:
        days = self._settings.retention.keep_rows_days
        return self._rows.delete_expired(now - timedelta(days=days)) if days else 0

    def _reset_future_times(self) -> None:
        if time.monotonic() < self._next_clock:
            return
        self._next_clock = time.monotonic() + CLOCK_INTERVAL
        now = clock.now(self._engine)
        changed = self._jobs.reset_future_times(now) + self._deliveries.reset_future_times(self._longest_waits, now)
        changed += reset_future_leases(self._engine, now)
        if changed:
            log.warning("clock_set_back", rows=changed)

    def _decide_on_held_reports(self) -> None:
        if time.monotonic() >= self._next_held:
            self._next_held = time.monotonic() + HELD_INTERVAL
            for job_id in self._held.decide():
                log.info("held_report_sent", job=job_id)

    def _free_space(self) -> None:
        """Delete files before their time when the disk fills."""
        settings, free_mb = self._settings.retention, self._spool.free_mb
        if free_mb() >= settings.clean_below_mb or time.monotonic() < self._next_free_space:
            return
        self._next_free_space = time.monotonic() + FREE_SPACE_INTERVAL
        deleted = self._files.free_space(lambda: free_mb() >= settings.clean_to_mb)
        log.warning("disk_filling", free_mb=free_mb(), series_deleted_early=deleted)

    @staticmethod
    def _enqueue(put: Callable[[str], None], ids: Iterable[str]) -> None:
        for identifier in ids:
            put(identifier)
