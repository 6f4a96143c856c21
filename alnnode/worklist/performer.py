"""Perform workitems: claim those for this node, fetch their input, start a job for each, and write the result into the workitem.

The performer is a thread of the HTTP service. The analysis itself is an ordinary job, whose state belongs to `alnnode.analyse.jobs`. The performer
keeps its own state in the database, so that another process, or the same one after a restart, continues its work.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import structlog
from sqlalchemy.exc import SQLAlchemyError

from alnnode.errors import JobConflict, JobNotFound, WorkitemRefused
from alnnode.model import bundle
from alnnode.records import JobState
from alnnode.records.priority import Priority
from alnnode.spool.spool import name_of
from alnnode.worklist import ups
from alnnode.worklist.input_fetcher import InputFetcher
from alnnode.worklist.performed_procedure import begun, canceled, completed
from alnnode.worklist.performer_rows import PerformerRows
from alnnode.worklist.state_transitions import StateChange
from alnnode.worklist.ups import UpsState
from alnnode.worklist.workitem_input import NoInputError, input_series

if TYPE_CHECKING:
    from alnnode.worklist.performer_rows import WorkitemJob
    from alnnode.worklist.services import WorklistServices
    from alnnode.worklist.state_transitions import Edit
    from alnnode.worklist.ups import Json
    from alnnode.worklist.workitem import Workitem

CLEANING_INTERVAL = 300.0  # seconds
INTERVAL = 0.5  # seconds between two rounds; each round is one query
PROGRESS_PERCENT = {"read": 35, "locate": 45, "classify": 70, "explain": 80, "report": 90}  # by step of the analysis

NOT_SUPPORTED = ("110522", "Object types not supported")  # PS3.16 CID 9300
_WITH_RESULTS = (JobState.ANALYSED, JobState.DELIVERED, JobState.NOT_ANALYSED, JobState.FAILED)

log = structlog.get_logger()


class Performer:
    """`start` begins a thread that calls `once` every `INTERVAL` seconds."""

    def __init__(self, services: WorklistServices) -> None:
        self._services, self._rows = services, PerformerRows(services.engine, services.worklist)
        self._fetcher = InputFetcher(services, self._rows)
        self._next_cleaning = 0.0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="performer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread and all fetches; the next process starts the fetches again."""
        self._closed.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._fetcher.close()

    def _run(self) -> None:
        while not self._closed.wait(INTERVAL):
            try:
                self.once()
            except Exception as error:  # noqa: BLE001 - the next round retries; if this thread ended, no workitem would be performed
                log.warning("worklist_failed", error=type(error).__name__)  # the message may contain UIDs

    def once(self) -> None:
        """Claim new workitems for this node, and advance those that it performs."""
        if time.monotonic() >= self._next_cleaning:
            self._clean()
            self._next_cleaning = time.monotonic() + CLEANING_INTERVAL
        for item in self._services.worklist.each(UpsState.SCHEDULED, UpsState.IN_PROGRESS, oldest_first=True):
            try:
                if item.state is UpsState.SCHEDULED:
                    self._claim(item)
                elif item.performed_here:
                    self._advance(item)
            except WorkitemRefused:
                continue  # another process changed the workitem first
            except SQLAlchemyError:
                raise
            except Exception as error:  # noqa: BLE001 - a failing workitem must not stop the others or the thread
                log.warning("workitem_failed", workitem=name_of(item.workitem_uid)[:12], error=type(error).__name__)

    def _clean(self) -> None:
        now, retention = self._rows.now(), self._services.settings.retention
        self._services.worklist.delete_ended(now - timedelta(days=retention.failed_days))
        self._services.event_reports.delete_old(now)

    def _claim(self, item: Workitem) -> None:
        if self._is_for_this_node(item.document):
            edit = begun(self._services.settings.node.ae_title)
            claim = StateChange(UpsState.IN_PROGRESS, f"2.25.{uuid4().int}", edit, performed_here=True)
            self._services.worklist.change_state(item.workitem_uid, claim)
            log.info("workitem_claimed", workitem=name_of(item.workitem_uid)[:12])

    def _is_for_this_node(self, document: Json) -> bool:
        """Return whether a workitem requests, of this node and for now, a procedure of the settings."""
        settings = self._services.settings
        requested = {f"{ups.value(one, '00080102')}:{ups.value(one, '00080100')}" for one in ups.items(document, ups.CODES)}
        stations = ups.items(document, ups.tag("ScheduledStationNameCodeSequence"))
        due = ups.parse_date_time(ups.value(document, ups.START))
        return (
            bool(requested & set(settings.worklist.codes))
            and (not stations or settings.node.ae_title in {ups.value(one, "00080100") for one in stations})
            and ups.value(document, ups.READINESS) == "READY"
            and (due is None or due <= self._rows.now())
        )

    def _advance(self, item: Workitem) -> None:
        if item.cancel_requested:
            self._cancel(item)
            return
        job = None if item.job_id is None else self._rows.job(item.job_id)
        try:
            if job is None:
                self._obtain_input(item)
            else:
                self._follow_job(item, job)
        except NoInputError as error:
            # PS3.16 CID 9300: not all objects to be analysed are available.
            self._end(item, UpsState.CANCELED, canceled(str(error), ("110523", "Object set incomplete")))

    def _cancel(self, item: Workitem) -> None:
        """Cancel a workitem, and its job unless another workitem or a route needs the job."""
        if item.job_id is not None and self._rows.is_only_for(item.job_id, item.workitem_uid):
            with suppress(JobConflict, JobNotFound):  # the job has ended, or its images are still being received
                self._services.operator.cancel(item.job_id, "the requester of its workitem")
        self._end(item, UpsState.CANCELED, canceled(None, ("110513", "Discontinued for unspecified reason")))

    def _obtain_input(self, item: Workitem) -> None:
        """Assign a job to a workitem if its series is in the node, or else fetch the series."""
        series = input_series(item.document)
        job = self._rows.latest_job(series.series)
        if job is None or not job.files_exist or not self._fetcher.is_complete(item):
            self._fetcher.advance(item, series)
            return
        if (
            self._is_outdated(job)
            or job.state is JobState.NOT_ANALYSED
            or (job.state is JobState.FAILED and job.not_analysed is not None)
        ):
            again = self._services.operator.reanalyse(job.job_id)
            self._rows.assign_job(item.workitem_uid, again, _priority(item), started=True)
        elif job.state in {JobState.FAILED, JobState.SKIPPED}:
            self._retry(item, job)  # the workitem requests the analysis now, whatever became of the job before
        else:
            self._rows.assign_job(item.workitem_uid, job.job_id, _priority(item))
        self._fetcher.stop(item.workitem_uid)

    def _retry(self, item: Workitem, job: WorkitemJob) -> None:
        self._services.operator.retry(job.job_id)
        self._rows.assign_job(item.workitem_uid, job.job_id, _priority(item), started=True)

    def _is_outdated(self, job: WorkitemJob) -> bool:
        """Return whether the results of a job are from another model or other settings than the present ones."""
        settings = self._services.settings
        if not job.has_results or job.state not in _WITH_RESULTS:
            return False
        present = bundle.digest(bundle.resolve(settings.analysis.bundle)), settings.result_digest
        return (job.bundle_digest, job.settings_digest) != present

    def _follow_job(self, item: Workitem, job: WorkitemJob) -> None:
        """Write the state of its job into a workitem."""
        if job.state is JobState.SKIPPED:  # no route selects the series, but the requester of the workitem does
            self._retry(item, job)
        elif job.state in {JobState.ANALYSED, JobState.DELIVERED} or (job.state in _WITH_RESULTS and job.has_results):
            self._conclude(item, job)
        elif job.state is JobState.NOT_ANALYSED:
            self._end(item, UpsState.CANCELED, canceled(job.reason, NOT_SUPPORTED))
        elif job.state is JobState.FAILED:
            self._end(item, UpsState.CANCELED, canceled(job.reason, ("110501", "Equipment failure")))
        elif job.state is JobState.RUNNING:
            percent = PROGRESS_PERCENT.get(job.step or "", 30)
            self._rows.set_progress(item.workitem_uid, percent, f"analysing: {job.step}" if job.step else "analysing")
        elif job.state is JobState.RECEIVING:
            self._rows.set_progress(item.workitem_uid, 10, "waiting for images")
        else:
            self._rows.set_progress(item.workitem_uid, 20, "waiting for the analysis")

    def _conclude(self, item: Workitem, job: WorkitemJob) -> None:
        """Complete a workitem with the results of its job; cancel it if the series could not be analysed."""
        rows = self._services.jobs.results(job.job_id)
        if job.not_analysed is None:
            self._end(item, UpsState.COMPLETED, completed(rows, item.service_url))
            return
        self._end(item, UpsState.CANCELED, canceled(job.not_analysed, NOT_SUPPORTED, completed(rows, item.service_url)))

    def _end(self, item: Workitem, state: UpsState, edit: Edit) -> None:
        self._fetcher.stop(item.workitem_uid)
        self._services.worklist.change_state(item.workitem_uid, StateChange(state, item.transaction_uid, edit))
        log.info("workitem_ended", workitem=name_of(item.workitem_uid)[:12], state=state)


def _priority(item: Workitem) -> Priority:
    return Priority.named(ups.value(item.document, ups.tag("ScheduledProcedureStepPriority")))
