"""One analysis: claim the job, analyse it under a lease, write the results to the outbox, enqueue their deliveries."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy.exc import SQLAlchemyError

from alnnode import logs
from alnnode.analyse.claims import ClaimTerms
from alnnode.db.pauses import ANALYSIS
from alnnode.db.rows import NotAnalysed, ResultRow
from alnnode.errors import AlnnodeError, NotAnalysable, ServiceError
from alnnode.priors import lookup
from alnnode.process.memory import return_free_memory
from alnnode.records import Locate, ReportContext
from alnnode.task_queue import SOFT_SHARE
from workers.lease import Lease, LeaseLostError
from workers.step_timer import END, StepTimer

if TYPE_CHECKING:
    from alnnode.db.rows import Claim
    from alnnode.records import ResultObject
    from alnnode.records.comparison import PriorLookup
    from workers.runtime import Runtime

POSTPONE = timedelta(seconds=30)

log = structlog.get_logger()


def analyse(job_id: str, runtime: Runtime) -> None:
    """Run one job to ANALYSED, NOT_ANALYSED or FAILED; do nothing when it cannot be claimed, because it ended or another worker runs it."""
    settings = runtime.settings
    if runtime.tables.pauses.is_paused(ANALYSIS):
        log.info("analysis_paused", job=job_id)  # the sweep enqueues it after the resumption
        return
    marked = settings.analysis.locate is not Locate.AUTO
    terms = ClaimTerms(
        runtime.lease,
        settings.internal.analysis_attempts,
        runtime.analyst.digest,
        settings.result_digest,
        marked=marked,
        first_attempts=runtime.shared,
    )
    claim = runtime.tables.jobs.claim(job_id, terms)
    if claim is None:
        log.info("job_not_claimed", job=job_id)
        return
    job_id = claim.job_id  # the most urgent job, which need not be that of the message
    log.info("job_claimed", job=job_id, attempt=claim.attempt, images=len(claim.paths), marks=len(claim.marks))
    try:
        with Lease(partial(runtime.tables.jobs.renew, claim, runtime.lease), runtime.lease, "job", job_id) as lease:
            _run(claim, runtime, lease)
    except LeaseLostError:
        log.warning("job_taken_over", job=job_id, attempt=claim.attempt)
    except SQLAlchemyError as error:
        # No state can be written now. When the lease ends, the sweep enqueues the job again.
        log.error("database_trouble", job=job_id, error=type(error).__name__)  # noqa: TRY400 - its text holds parameters
    except OSError as error:
        reason = "the images could not be read from the spool, or the results not written to it; check the disk, then `alnnode retry`"
        log.warning("spool_trouble", job=job_id, attempt=claim.attempt, error=type(error).__name__, errno=error.errno)
        _retry(claim, runtime, error, reason)
    except NotAnalysable as error:
        log.info("job_not_analysed", job=job_id, reason=str(error))
        runtime.tables.jobs.not_analysable(claim, str(error))
    except AlnnodeError as error:
        _fail(claim, runtime, error, str(error))
    except Exception as error:  # noqa: BLE001 - every failed job needs a reason
        # The cause may be the series or this process: a library whose import a memory shortage interrupted never loads in this process.
        runtime.suspect = True
        reason = _reason(error, settings.analysis.time_limit)
        log.warning("analysis_trouble", job=job_id, attempt=claim.attempt, error=type(error).__name__, where=logs.where(error))
        # An analysis that shared this process with others had less than its time; the next attempt has the process for itself.
        (_fail if isinstance(error, SoftTimeLimitExceeded) and not runtime.shared else _retry)(claim, runtime, error, reason)
    finally:
        return_free_memory()


def _run(claim: Claim, runtime: Runtime, lease: Lease) -> None:
    steps = StepTimer(runtime.tables.progress, claim.job_id)

    def progress(step: str) -> None:
        lease.check()
        steps.begin(step)
        log.debug("step", job=claim.job_id, step=step)

    settings = runtime.settings
    paths = [runtime.spool.path(name) for name in claim.paths]
    header = lookup.image_header(paths[0]) if paths else None
    earlier = lookup.find_prior(settings, runtime.spool.root, header, runtime.files_of)
    marks = [runtime.spool.path(name) for name in claim.marks]
    arithmetic = ""
    # The identity of a report includes the arithmetic. A device that runs out of memory changes it, at most three times in a process.
    while arithmetic != runtime.analyst.arithmetic:
        arithmetic = runtime.analyst.arithmetic
        identified = runtime.tables.jobs.identify(claim, _final_digest(claim, earlier, arithmetic))
        if identified is None:
            raise LeaseLostError(f"job {claim.job_id} was taken over")
        context = _context(identified, runtime, earlier)
        objects, not_analysed = runtime.analyst.analyse(paths, context, progress, marks)
    steps.begin(END)
    report = settings.analysis.report_not_analysed
    if not_analysed is not None and report == "off":
        raise NotAnalysable(not_analysed)
    lease.check()
    rows = [_put_result(runtime, claim.job_id, position, item) for position, item in enumerate(objects)]
    wanted = {destination.name: destination.objects for destination in settings.destinations}
    reason = None if not_analysed is None else NotAnalysed(not_analysed, once_per_study=report == "study")
    if not runtime.tables.jobs.analysed(claim, rows, wanted, reason):
        raise LeaseLostError(f"job {claim.job_id} was taken over")
    log.info("job_analysed", job=claim.job_id, objects=len(rows), reason=not_analysed)
    lookup.store_comparison_record(settings, runtime.spool.root, header, objects)
    enqueue_deliveries(claim.job_id, runtime)


def enqueue_deliveries(job_id: str, runtime: Runtime) -> None:
    """Enqueue the deliveries of a job now; if the broker does not answer, the sweep does it later."""
    try:
        for delivery in runtime.tables.jobs.get(job_id).deliveries:
            runtime.producer.enqueue_delivery(delivery.delivery_id)
    except ServiceError as error:
        log.warning("deliveries_not_enqueued", job=job_id, error=str(error))


def _final_digest(claim: Claim, earlier: PriorLookup | None, arithmetic: str) -> str:
    """Return the sha256 (hex) of all that determines the results of this job, beside bundle and settings."""
    joined = claim.input_digest if earlier is None else earlier.digest_with(claim.input_digest)
    return hashlib.sha256(f"{joined}\n{arithmetic}".encode()).hexdigest()


def _context(claim: Claim, runtime: Runtime, earlier: PriorLookup | None) -> ReportContext:
    settings = runtime.settings
    return ReportContext(
        input_digest=claim.input_digest,
        settings_digest=settings.result_digest,
        created=claim.created,
        station=settings.node.ae_title,
        revision=claim.revision,
        predecessor=claim.predecessor,
        window=settings.analysis.window,
        options=settings.report.options,
        prior=earlier,
        superseded=claim.superseded,
        zone=settings.node.zone,
    )


def _put_result(runtime: Runtime, job_id: str, position: int, item: ResultObject) -> ResultRow:
    return ResultRow(
        position=position,
        role=item.role,
        sop_class_uid=item.sop_class_uid,
        sop_instance_uid=item.sop_instance_uid,
        series_instance_uid=item.series_instance_uid,
        study_instance_uid=item.study_instance_uid,
        transfer_syntax_uid=item.transfer_syntax_uid,
        sha256=hashlib.sha256(item.data).hexdigest(),
        path=runtime.spool.put_result(job_id, item.sop_instance_uid, item.data),
    )


def _retry(claim: Claim, runtime: Runtime, error: Exception, reason: str) -> None:
    """Postpone a job that may succeed later; after the last attempt, fail it."""
    if claim.attempt < runtime.settings.internal.analysis_attempts:
        runtime.tables.jobs.postpone(claim, runtime.tables.now() + POSTPONE)
    else:
        _fail(claim, runtime, error, reason)


def _fail(claim: Claim, runtime: Runtime, error: Exception, reason: str) -> None:
    log.warning("job_failed", job=claim.job_id, error=type(error).__name__, where=logs.where(error))
    runtime.tables.jobs.fail(claim, reason)


def _reason(error: Exception, time_limit: float) -> str:
    """Return the reason for the job list, without the text of the exception, which can hold patient data."""
    if isinstance(error, SoftTimeLimitExceeded):
        return f"the analysis took longer than {SOFT_SHARE * time_limit:.0f} s and was stopped; raise [analysis] time_limit or use a faster device"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's own, without importing torch
        return "not enough memory for this series; give the worker more memory, then `alnnode retry`"
    return f"internal error ({type(error).__name__}); the worker's log says where. Please report it"
