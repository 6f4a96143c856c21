"""One delivery: claim it, check the outbox files, send exactly those bytes, write down how it went; then, where wanted, have it committed."""

from __future__ import annotations

import hashlib
import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog
from pydicom.uid import generate_uid

from alnnode.db.clock_repair import AHEAD
from alnnode.deliver.auditing import Account
from alnnode.deliver.destination import OutboxFile
from alnnode.errors import DeliveryError, DeliveryRefused, DestinationAway

if TYPE_CHECKING:
    from alnnode.db.rows import DeliveryClaim, ResultRow
    from alnnode.settings import Internal
    from workers.analyst import Runtime

log = structlog.get_logger()


def deliver(delivery_id: str, runtime: Runtime) -> None:
    """Make all deliveries that are due at the destination of this one, on its lane; nothing when there are none, or others make them."""
    destination = runtime.jobs.destination_of(delivery_id)
    if destination is not None:
        runtime.lanes.run(destination, delivery_id, lambda following: _drain(following, runtime))


def _drain(delivery_id: str, runtime: Runtime) -> None:
    """Go on until nothing is due there: what waits behind this one needs no message of its own, which the broker could lose.

    A worker that is told to stop leaves the rest to the next one.
    """
    while not runtime.stopping.is_set() and _deliver(delivery_id, runtime):
        pass


def _deliver(delivery_id: str, runtime: Runtime) -> bool:
    """Make the oldest delivery that is due at the same destination; whether there was one, and the destination could be reached.

    While that cannot be reached, all wait for one moment together; a new delivery, or one that a person hurries, lets the oldest ask earlier.
    """
    name = runtime.jobs.destination_of(delivery_id) or ""
    away = _away_until(name, runtime)
    early = away is not None and datetime.now(UTC) < away
    claim = runtime.jobs.claim_delivery(delivery_id, runtime.delivery_lease, early=early)
    if claim is None:
        return False
    account = Account(claim, runtime)
    account.begun()
    try:
        if claim.sent:
            _ask(claim, runtime)
        else:
            _send(claim, runtime)
            account.delivered()
    except DestinationAway as error:
        account.deferred(str(error))
        runtime.away[name] = _defer(claim, runtime, error, away if early else None)
        runtime.jobs.move_deliveries(name, runtime.away[name])
        return False
    except DeliveryRefused as error:
        log.warning("delivery_refused", delivery=claim.delivery_id, job=claim.job_id, destination=name, error=str(error))
        runtime.jobs.refused(claim.delivery_id, str(error))
        account.refused(str(error))
    except (DeliveryError, OSError) as error:
        account.deferred(str(error) if isinstance(error, DeliveryError) else type(error).__name__)
        _defer(claim, runtime, error)
    if runtime.away.pop(name, None) is not None:
        runtime.jobs.move_deliveries(name, datetime.now(UTC))
    return True


def _away_until(name: str, runtime: Runtime) -> datetime | None:
    """Return when a destination that could not be reached is tried again; None when it was not, or when the clock was set back since."""
    away = runtime.away.get(name)
    if away is None or runtime.destination_settings(name) is None:
        return away
    return away if away <= datetime.now(UTC) + timedelta(seconds=runtime.settings.internal.retry_longest) + AHEAD else None


def _send(claim: DeliveryClaim, runtime: Runtime) -> None:
    destination = runtime.destination(claim.destination)
    if destination is None:
        raise DeliveryRefused("the settings no longer name it; add it again under [[destinations]], then `alnnode retry`")
    destination.send([_checked(row, runtime) for row in claim.files])
    if runtime.commitment_user(claim.destination) is None:
        runtime.jobs.delivered(claim.delivery_id)
    else:
        runtime.commitments.sent(claim.delivery_id, [row.sop_instance_uid for row in claim.files])
    log.info("delivered", delivery=claim.delivery_id, job=claim.job_id, destination=claim.destination, objects=len(claim.files))


def _ask(claim: DeliveryClaim, runtime: Runtime) -> None:
    """Ask the destination to commit what it was sent (PS3.4 Annex J); its answer comes here, or to a listener, whenever it does."""
    from alnnode.deliver import commitment_answers  # noqa: PLC0415 - as in `Runtime.commitment_user`

    user, internal = runtime.commitment_user(claim.destination), runtime.settings.internal
    if user is None:  # the settings no longer ask for it
        runtime.jobs.delivered(claim.delivery_id)
        return
    if claim.unanswered >= internal.commitment_attempts:
        raise DeliveryRefused(f"it took {claim.unanswered} storage commitment questions and answered none")
    transaction_uid = generate_uid(prefix=None)
    runtime.commitments.ask(claim.delivery_id, transaction_uid)
    references = [(row.sop_class_uid, row.sop_instance_uid) for row in claim.files]
    user.ask(transaction_uid, references, lambda result: commitment_answers.take(result, runtime.commitments))
    until = datetime.now(UTC) + timedelta(seconds=internal.commitment_timeout)
    if runtime.commitments.asked(claim.delivery_id, until):
        log.info("commitment_asked", delivery=claim.delivery_id, destination=claim.destination, objects=len(references))


def _checked(row: ResultRow, runtime: Runtime) -> OutboxFile:
    path = runtime.spool.path(row.path)
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != row.sha256:
            raise DeliveryRefused("an outbox file was altered after it was written and is not sent; run the analysis again")
    return OutboxFile(row.sop_class_uid, row.sop_instance_uid, row.transfer_syntax_uid, path)


def _defer(claim: DeliveryClaim, runtime: Runtime, error: DeliveryError | OSError, planned: datetime | None = None) -> datetime:
    """Write down when the next try is, or that there is none; return that time. A try before the ``planned`` one does not count."""
    words = str(error) if isinstance(error, DeliveryError) else f"an outbox file cannot be read ({type(error).__name__})"
    settings = next(item for item in runtime.settings.destinations if item.name == claim.destination)
    wait = backoff(runtime.settings.internal, claim.attempt)
    until = planned or datetime.now(UTC) + timedelta(seconds=wait)
    if planned is None and claim.attempt >= settings.retry_attempts:
        runtime.jobs.refused(claim.delivery_id, f"given up after {claim.attempt} attempts: {words}")
        return until
    log.info(
        "delivery_deferred",
        delivery=claim.delivery_id,
        destination=claim.destination,
        attempt=claim.attempt,
        wait=round((until - datetime.now(UTC)).total_seconds(), 1),
        error=words,
    )
    runtime.jobs.deferred(claim.delivery_id, words, until, counts=planned is None)
    return until


def backoff(internal: Internal, attempt: int) -> float:
    """Return the seconds until the next try: doubled each time up to the ceiling, of which the second half is drawn at random.

    Without the jitter, all deliveries that one outage held back would come down on the PACS at one moment.
    """
    full = min(internal.retry_longest, internal.retry_first * 2.0 ** min(attempt - 1, 32))
    return full * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
