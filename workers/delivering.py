"""One delivery: claim it, check the files in the outbox, send them, record the outcome; then request storage commitment, where wanted."""

from __future__ import annotations

import hashlib
import random
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import structlog
from pydicom.uid import generate_uid

from alnnode.clients.faults import file_words
from alnnode.db.clock import MAX_SKEW
from alnnode.db.pauses import destination_target
from alnnode.deliver.auditing import DeliveryAuditor
from alnnode.deliver.destination import OutboxFile
from alnnode.errors import DeliveryError, DeliveryRefused, DestinationAway
from workers.lease import Lease
from workers.outages import retried

if TYPE_CHECKING:
    from datetime import datetime

    from alnnode.db.rows import DeliveryClaim, ResultRow
    from alnnode.settings import Internal
    from workers.runtime import Runtime

log = structlog.get_logger()


def deliver(delivery_id: str, runtime: Runtime) -> None:
    """Make all deliveries that are due at the destination of this delivery, on the lane of the destination."""
    destination = runtime.tables.deliveries.destination_of(delivery_id)
    if destination is not None:
        runtime.lanes.run(destination, delivery_id, lambda following: _deliver_due(following, runtime))


def _deliver_due(delivery_id: str, runtime: Runtime) -> None:
    """Deliver until nothing is due at the destination: the other deliveries need no messages, which the broker could lose.

    A worker that is told to stop leaves the rest to the next worker.
    """
    while not runtime.stopping.is_set() and _deliver_oldest(delivery_id, runtime):
        pass


def _deliver_oldest(delivery_id: str, runtime: Runtime) -> bool:
    """Make the oldest due delivery to the same destination; return whether there was one and the destination could be reached.

    While the destination cannot be reached, all its deliveries wait for the same time. A new delivery, or one that an operator retries,
    is due before: then the oldest delivery is attempted early.
    """
    deliveries = runtime.tables.deliveries
    name = deliveries.destination_of(delivery_id) or ""
    if runtime.tables.pauses.is_paused(destination_target(name)):
        return False
    away = _away_until(name, runtime)
    early = away is not None and runtime.tables.now() < away
    claim = deliveries.claim(delivery_id, runtime.delivery_lease, early=early)
    if claim is None:
        return False
    auditor = DeliveryAuditor(claim, runtime.destination_settings(name), runtime.trail, runtime.spool)
    auditor.begun()
    try:
        # A slow destination may need longer than one lease: nobody else may begin to send the same objects meanwhile.
        renew = partial(deliveries.renew, claim, runtime.delivery_lease)
        with Lease(renew, runtime.delivery_lease, "delivery", claim.delivery_id):
            if claim.sent:
                _request_commitment(claim, runtime)
            else:
                _send(claim, runtime)
                auditor.delivered()
    except DestinationAway as error:
        auditor.deferred(str(error))
        runtime.away[name] = _defer(claim, runtime, error, away if early else None)
        deliveries.reschedule(name, runtime.away[name])
        return False
    except DeliveryRefused as error:
        log.warning("delivery_refused", delivery=claim.delivery_id, job=claim.job_id, destination=name, error=str(error))
        deliveries.refused(claim.delivery_id, str(error), attempt=claim.attempt)
        auditor.refused(str(error))
    except (DeliveryError, OSError) as error:
        auditor.deferred(str(error) if isinstance(error, DeliveryError) else file_words(error))
        _defer(claim, runtime, error)
    if runtime.away.pop(name, None) is not None:
        deliveries.reschedule(name, runtime.tables.now())
    return True


def _away_until(name: str, runtime: Runtime) -> datetime | None:
    """Return the time of the next attempt at a destination that could not be reached; None when it could, or the clock was set back since."""
    away = runtime.away.get(name)
    if away is None or runtime.destination_settings(name) is None:
        return away
    return (
        away if away <= runtime.tables.now() + timedelta(seconds=runtime.settings.internal.retry_longest) + MAX_SKEW else None
    )


def _send(claim: DeliveryClaim, runtime: Runtime) -> None:
    destination = runtime.destination(claim.destination)
    if destination is None:
        raise DeliveryRefused("the settings no longer name it; add it again under [[destinations]], then `alnnode retry`")
    destination.send([_checked(row, runtime) for row in claim.files])
    if runtime.commitment_user(claim.destination) is None:
        record = partial(runtime.tables.deliveries.delivered, claim.delivery_id)
    else:
        record = partial(runtime.tables.commitments.sent, claim.delivery_id, [row.sop_instance_uid for row in claim.files])
    retried(record, claim.delivery_id)  # without the record, the objects would be sent again
    log.info("delivered", delivery=claim.delivery_id, job=claim.job_id, destination=claim.destination, objects=len(claim.files))


def _request_commitment(claim: DeliveryClaim, runtime: Runtime) -> None:
    """Request storage commitment of the sent objects (PS3.4 Annex J). This worker or a listener receives the answer, whenever it comes."""
    from alnnode.deliver import commitment_answers  # noqa: PLC0415 - as in `Runtime.commitment_user`

    user, internal = runtime.commitment_user(claim.destination), runtime.settings.internal
    if user is None:  # the settings no longer want storage commitment
        runtime.tables.deliveries.delivered(claim.delivery_id)
        return
    if claim.unanswered >= internal.commitment_attempts:
        raise DeliveryRefused(f"it accepted {claim.unanswered} storage commitment requests and answered none")
    commitments, transaction_uid = runtime.tables.commitments, generate_uid(prefix=None)
    commitments.ask(claim.delivery_id, transaction_uid)
    references = [(row.sop_class_uid, row.sop_instance_uid) for row in claim.files]
    user.ask(transaction_uid, references, lambda result: commitment_answers.record_answer(result, commitments))
    until = runtime.tables.now() + timedelta(seconds=internal.commitment_timeout)
    if commitments.asked(claim.delivery_id, until):
        log.info("commitment_asked", delivery=claim.delivery_id, destination=claim.destination, objects=len(references))


def _checked(row: ResultRow, runtime: Runtime) -> OutboxFile:
    path = runtime.spool.path(row.path)
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != row.sha256:
            raise DeliveryRefused("an outbox file was altered after it was written and is not sent; run the analysis again")
    return OutboxFile(row.sop_class_uid, row.sop_instance_uid, row.transfer_syntax_uid, path)


def _defer(claim: DeliveryClaim, runtime: Runtime, error: DeliveryError | OSError, planned: datetime | None = None) -> datetime:
    """Record the time of the next attempt, or that there is none; return that time. An attempt before the ``planned`` one is not counted."""
    words = str(error) if isinstance(error, DeliveryError) else file_words(error)
    settings = next(item for item in runtime.settings.destinations if item.name == claim.destination)
    wait = backoff(runtime.settings.internal, claim.attempt)
    until = planned or runtime.tables.now() + timedelta(seconds=wait)
    if planned is None and claim.attempt >= settings.retry_attempts:
        reason = f"given up after {claim.attempt} attempts: {words}"
        runtime.tables.deliveries.refused(claim.delivery_id, reason, attempt=claim.attempt)
        return until
    log.info(
        "delivery_deferred",
        delivery=claim.delivery_id,
        job=claim.job_id,
        destination=claim.destination,
        attempt=claim.attempt,
        wait=round((until - runtime.tables.now()).total_seconds(), 1),
        error=words,
    )
    runtime.tables.deliveries.deferred(claim.delivery_id, words, until, counts=planned is None, attempt=claim.attempt)
    return until


def backoff(internal: Internal, attempt: int) -> float:
    """Return the seconds until the next attempt: doubled each time up to the ceiling; the second half is random.

    Without the random part, all deliveries that waited during one outage would reach the PACS at the same time.
    """
    full = min(internal.retry_longest, internal.retry_first * 2.0 ** min(attempt - 1, 32))
    return full * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
