"""Performs workitems: claims those that are for this node, sees to their input and their job, and writes what came of it into them.

A thread of the HTTP service. The work itself is an ordinary job: its truth stays in `alnnode.analyse.jobs`. All that this thread knows is in
the database, so that another process, or this one after a restart, goes on where it was.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import structlog
from sqlalchemy.exc import SQLAlchemyError

from alnnode.errors import JobConflict, JobNotFound, WorkitemRefused
from alnnode.model import bundle
from alnnode.receive.header import valid_uid
from alnnode.records import JobState
from alnnode.spool.spool import name_of
from alnnode.worklist import ups
from alnnode.worklist.input_fetcher import Fetcher, NoInputError
from alnnode.worklist.outputs import begun, canceled, completed
from alnnode.worklist.performing import Performing
from alnnode.worklist.ups import State
from alnnode.worklist.wado_fetch import Wanted

if TYPE_CHECKING:
    from alnnode.web.services import Services
    from alnnode.worklist.outputs import Edit
    from alnnode.worklist.performing import JobView
    from alnnode.worklist.ups import Json
    from alnnode.worklist.worklist import Workitem

CLEANING_INTERVAL = 300.0  # seconds
INTERVAL = 0.5  # seconds between two looks at the worklist: one query, and nobody notices the delay
STEPS = {"read": 35, "locate": 45, "classify": 70, "explain": 80, "report": 90}  # percent

log = structlog.get_logger()


class Performer:
    """Call `once` every half second or so, or `start` a thread that does."""

    def __init__(self, opened: Services) -> None:
        self._opened, self._performing = opened, Performing(opened.engine, opened.worklist)
        self._fetcher = Fetcher(opened, self._performing)
        self._next_cleaning = 0.0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="performer", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End; what is being fetched is fetched anew at the next start."""
        self._closed.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._fetcher.close()

    def _run(self) -> None:
        while not self._closed.wait(INTERVAL):
            try:
                self.once()
            except Exception as error:  # noqa: BLE001 - the next round tries again; without this thread, workitems would wait for ever
                log.warning("worklist_failed", error=type(error).__name__)  # paths and parameters hold UIDs

    def once(self) -> None:
        """Take a step with every workitem that is this node's."""
        if time.monotonic() >= self._next_cleaning:
            self._clean()
            self._next_cleaning = time.monotonic() + CLEANING_INTERVAL
        for item in reversed(self._opened.worklist.list(State.SCHEDULED, State.IN_PROGRESS)):
            try:
                if item.state is State.SCHEDULED:
                    self._claim(item)
                elif item.performed_here:
                    self._go_on(item)
            except WorkitemRefused:
                continue  # somebody else was faster
            except SQLAlchemyError:
                raise
            except Exception as error:  # noqa: BLE001 - one workitem stops neither the others nor the thread, whatever it is
                log.warning("workitem_failed", workitem=name_of(item.workitem_uid)[:12], error=type(error).__name__)

    def _clean(self) -> None:
        now, keep = datetime.now(UTC), self._opened.settings.retention
        self._opened.worklist.purge(now - timedelta(days=keep.failed_days))
        self._opened.subscriptions.purge(now)

    def _claim(self, item: Workitem) -> None:
        if self._is_ours(item.document):
            self._opened.worklist.change_state(
                item.workitem_uid,
                State.IN_PROGRESS,
                f"2.25.{uuid4().int}",
                edit=begun(self._opened.settings.node.ae_title),
                here=True,
            )
            log.info("workitem_claimed", workitem=name_of(item.workitem_uid)[:12])

    def _is_ours(self, document: Json) -> bool:
        """Whether it asks for what this node does, at this node, now."""
        settings = self._opened.settings
        asked = {f"{ups.value(one, '00080102')}:{ups.value(one, '00080100')}" for one in ups.items(document, ups.CODES)}
        stations = ups.items(document, ups.tag("ScheduledStationNameCodeSequence"))
        due = ups.moment_of(ups.value(document, ups.START))
        return (
            bool(asked & set(settings.worklist.codes))
            and (not stations or settings.node.ae_title in {ups.value(one, "00080100") for one in stations})
            and ups.value(document, ups.READINESS) == "READY"
            and (due is None or due <= datetime.now(UTC))
        )

    def _go_on(self, item: Workitem) -> None:
        if item.cancel_requested:
            self._cancel(item)
            return
        job = None if item.job_id is None else self._performing.job(item.job_id)
        try:
            if job is None:
                self._see_to_input(item)
            else:
                self._follow(item, job)
        except NoInputError as error:
            # PS3.16 CID 9300: the objects that were to be analysed are not all there.
            self._end(item, State.CANCELED, canceled(str(error), ("110523", "Object set incomplete")))

    def _cancel(self, item: Workitem) -> None:
        """Cancel the work as far as nobody else waits for it: neither another workitem nor a route."""
        if item.job_id is not None and self._performing.is_only_for(item.job_id, item.workitem_uid):
            with suppress(JobConflict, JobNotFound):  # it is at its end, or its images still come in
                self._opened.operator.cancel(item.job_id, "the requester of its workitem")
        self._end(item, State.CANCELED, canceled(None, ("110513", "Discontinued for unspecified reason")))

    def _see_to_input(self, item: Workitem) -> None:
        wanted = _wanted(item.document)
        job = self._performing.job_of(wanted.series)
        if job is None or not job.kept or not self._fetcher.is_whole(item):
            self._fetcher.step(item, wanted)
            return
        if self._is_outdated(job) or (job.state is JobState.FAILED and job.not_analysed is not None):
            self._performing.attach(item.workitem_uid, self._opened.operator.reanalyse(job.job_id), started=True)
        elif job.state in {JobState.FAILED, JobState.SKIPPED}:
            self._start(item, job)  # asked for now, whatever was before
        else:
            self._performing.attach(item.workitem_uid, job.job_id)
        self._fetcher.forget(item.workitem_uid)

    def _start(self, item: Workitem, job: JobView) -> None:
        self._opened.operator.retry(job.job_id)
        self._performing.attach(item.workitem_uid, job.job_id, started=True)

    def _is_outdated(self, job: JobView) -> bool:
        """Whether it has results of another model, or of other settings: who asks now wants those of the present ones."""
        settings = self._opened.settings
        if not job.results or job.state not in {JobState.ANALYSED, JobState.DELIVERED, JobState.FAILED}:
            return False
        present = bundle.digest(bundle.resolve(settings.analysis.bundle)), settings.result_digest
        return (job.bundle_digest, job.settings_digest) != present

    def _follow(self, item: Workitem, job: JobView) -> None:
        if job.state is JobState.SKIPPED:  # no route wants the series, but this requester does
            self._start(item, job)
        elif job.state in {JobState.ANALYSED, JobState.DELIVERED} or (job.state is JobState.FAILED and job.results):
            self._conclude(item, job)
        elif job.state is JobState.FAILED:
            self._end(item, State.CANCELED, canceled(job.reason, ("110501", "Equipment failure")))
        elif job.state is JobState.RUNNING:
            percent = STEPS.get(job.step or "", 30)
            self._performing.progress(item.workitem_uid, percent, f"analysing: {job.step}" if job.step else "analysing")
        else:
            words = "waiting for images" if job.state is JobState.RECEIVING else "waiting for the analysis"
            self._performing.progress(item.workitem_uid, 10 if job.state is JobState.RECEIVING else 20, words)

    def _conclude(self, item: Workitem, job: JobView) -> None:
        rows = self._opened.jobs.results(job.job_id)
        if job.not_analysed is None:
            self._end(item, State.COMPLETED, completed(rows, item.service_url))
            return
        reason = ("110522", "Object types not supported")
        self._end(item, State.CANCELED, canceled(job.not_analysed, reason, completed(rows, item.service_url)))

    def _end(self, item: Workitem, state: State, edit: Edit) -> None:
        self._fetcher.forget(item.workitem_uid)
        self._opened.worklist.change_state(item.workitem_uid, state, item.transaction_uid, edit=edit)
        log.info("workitem_ended", workitem=name_of(item.workitem_uid)[:12], state=state)


def _wanted(document: Json) -> Wanted:
    """Return the series that is the input, and where its requester says that it is.

    Raises:
        NoInputError: the Input Information Sequence does not name exactly one series.
    """
    inputs = ups.items(document, ups.INPUT)
    found = {(ups.value(one, "0020000D"), ups.value(one, "0020000E")) for one in inputs}
    if len(found) != 1:
        raise NoInputError("the Input Information Sequence must name exactly one series")
    ((study, series),) = found
    if not (valid_uid(study) and valid_uid(series)):
        raise NoInputError("the Input Information Sequence has no valid Study and Series Instance UID")

    def places(sequence: str, key: str) -> tuple[str, ...]:
        asked = [place for one in inputs for place in ups.items(one, ups.tag(sequence))]
        return tuple(spelt for place in asked for given in ups.values(place, key) if (spelt := str(given or "").strip()))

    return Wanted(study, series, places("WADORSRetrievalSequence", "00081190"), places("DICOMRetrievalSequence", "00080054"))
