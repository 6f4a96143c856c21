"""One delivery: claim it, check the outbox files, send exactly those bytes, write down how it went."""

from __future__ import annotations

import hashlib
import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog

from alnnode.errors import DeliveryError, DeliveryRefused
from alnnode.send.destination import OutboxFile

if TYPE_CHECKING:
    from alnnode.settings import Destination as DestinationSettings
    from alnnode.store.rows import DeliveryClaim, ResultRow
    from workers.runtime import Runtime

log = structlog.get_logger()


def deliver(delivery_id: str, runtime: Runtime) -> None:
    """Make one delivery on its destination's lane; nothing when it is not to be had (made, not due, or another worker's)."""
    destination = runtime.jobs.destination_of(delivery_id)
    if destination is not None:
        runtime.lanes.run(destination, delivery_id, lambda following: _deliver(following, runtime))


def _deliver(delivery_id: str, runtime: Runtime) -> None:
    claim = runtime.jobs.claim_delivery(delivery_id, runtime.delivery_lease)
    if claim is None:
        return
    try:
        _send(claim, runtime)
    except DeliveryRefused as error:
        log.warning("delivery_refused", delivery=delivery_id, job=claim.job_id, destination=claim.destination, error=str(error))
        runtime.jobs.refused(delivery_id, str(error))
    except (DeliveryError, OSError) as error:
        _defer(claim, runtime, error)
    else:
        runtime.jobs.delivered(delivery_id)
        log.info("delivered", delivery=delivery_id, job=claim.job_id, destination=claim.destination, objects=len(claim.files))


def _send(claim: DeliveryClaim, runtime: Runtime) -> None:
    destination = runtime.destination(claim.destination)
    if destination is None:
        raise DeliveryRefused("the settings no longer name it; add it again under [[destinations]], then `alnnode retry`")
    destination.send([_checked(row, runtime) for row in claim.files])


def _checked(row: ResultRow, runtime: Runtime) -> OutboxFile:
    path = runtime.spool.path(row.path)
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != row.sha256:
            raise DeliveryRefused("an outbox file was altered after it was written and is not sent; run the analysis again")
    return OutboxFile(row.sop_class_uid, row.sop_instance_uid, row.transfer_syntax_uid, path)


def _defer(claim: DeliveryClaim, runtime: Runtime, error: DeliveryError | OSError) -> None:
    words = str(error) if isinstance(error, DeliveryError) else f"an outbox file cannot be read ({type(error).__name__})"
    settings = next(item for item in runtime.settings.destinations if item.name == claim.destination)
    if claim.attempt >= settings.retry_attempts:
        runtime.jobs.refused(claim.delivery_id, f"given up after {claim.attempt} attempts: {words}")
        return
    wait = backoff(settings, claim.attempt)
    log.info(
        "delivery_deferred",
        delivery=claim.delivery_id,
        destination=claim.destination,
        attempt=claim.attempt,
        wait=round(wait, 1),
        error=words,
    )
    runtime.jobs.deferred(claim.delivery_id, words, datetime.now(UTC) + timedelta(seconds=wait))


def backoff(settings: DestinationSettings, attempt: int) -> float:
    """Return the seconds until the next try: doubled each time up to the ceiling, of which the second half is drawn at random.

    Without the jitter, all deliveries that one outage held back would come down on the PACS at one moment.
    """
    full = min(settings.retry_ceiling, settings.retry_first * 2.0 ** min(attempt - 1, 32))
    return full * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
