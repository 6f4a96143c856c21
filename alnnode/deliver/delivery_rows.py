"""Delivery rows inside a transaction: one row for each job and destination, so that no destination waits for another."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from sqlalchemy import case, delete, func, insert, select, update

from alnnode.db.rows import DeliveryStatus, ResultRow
from alnnode.db.tables import Delivery, DeliveryState, Job, Result, Transaction
from alnnode.db.transitions import MAX_TEXT, change_state, end_delivered_job
from alnnode.records import JobState, ObjectRole

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy.engine import Connection

OPEN = (DeliveryState.PENDING, DeliveryState.COMMITTING)


def open_deliveries(
    connection: Connection,
    job_id: str,
    results: Sequence[ResultRow],
    destinations: Mapping[str, Collection[str]],
    now: datetime,
) -> bool:
    """Replace the job's results and open a delivery to each destination that wants any of them; return whether there is one."""
    earlier = select(Delivery.delivery_id).where(Delivery.job_id == job_id)
    connection.execute(delete(Transaction).where(Transaction.delivery_id.in_(earlier)))
    connection.execute(delete(Delivery).where(Delivery.job_id == job_id))
    connection.execute(delete(Result).where(Result.job_id == job_id))
    for row in results:
        connection.execute(
            insert(Result).values(
                job_id=job_id,
                position=row.position,
                role=row.role,
                sop_class_uid=row.sop_class_uid,
                sop_instance_uid=row.sop_instance_uid,
                series_instance_uid=row.series_instance_uid,
                study_instance_uid=row.study_instance_uid,
                transfer_syntax_uid=row.transfer_syntax_uid,
                sha256=row.sha256,
                path=row.path,
            )
        )
    return open_for_results(connection, job_id, destinations, now)


def open_for_results(connection: Connection, job_id: str, destinations: Mapping[str, Collection[str]], now: datetime) -> bool:
    """Open a delivery of the job's results to each destination that wants any of them; return whether there is one."""
    present = set(connection.execute(select(Result.role).where(Result.job_id == job_id)).scalars())
    wanted = {name: sorted(present & {str(role) for role in roles}) for name, roles in destinations.items()}
    for name, roles in wanted.items():
        if roles:
            connection.execute(
                insert(Delivery).values(
                    delivery_id=uuid4().hex,
                    job_id=job_id,
                    destination=name,
                    roles=" ".join(roles),
                    state=DeliveryState.PENDING,
                    attempts=0,
                    enqueues=0,
                    resends=0,
                    unanswered=0,
                    next_attempt_at=now,
                    due_at=now,
                )
            )
    return any(wanted.values())


def result_rows(connection: Connection, job_id: str, roles: Collection[str] | None = None) -> tuple[ResultRow, ...]:
    """Return the result objects of a job in the order of the report; with ``roles`` only the objects in these roles."""
    query = select(Result.__table__).where(Result.job_id == job_id).order_by(Result.position)
    return tuple(
        ResultRow(**{**{key: value for key, value in row.items() if key != "job_id"}, "role": ObjectRole(row["role"])})
        for row in connection.execute(query).mappings()
        if roles is None or row["role"] in roles
    )


def settle(
    connection: Connection,
    delivery_id: str,
    values: Mapping[str, object],
    states: Collection[DeliveryState] = OPEN,
    attempt: int | None = None,
) -> str | None:
    """Write the outcome of an attempt, if the delivery is in one of these states; return the job's id, or None if it is in another state.

    With ``attempt``, also None if another worker has claimed the delivery since that attempt.

    The row of the job is locked first: when two deliveries of a job end at the same time, the second must see the first as ended.
    """
    job_id = connection.execute(select(Delivery.job_id).where(Delivery.delivery_id == delivery_id)).scalar_one_or_none()
    if job_id is None:
        return None
    connection.execute(select(Job.job_id).where(Job.job_id == job_id).with_for_update())
    outcome = update(Delivery).where(Delivery.delivery_id == delivery_id, Delivery.state.in_(states))
    if attempt is not None:
        outcome = outcome.where(Delivery.attempts == attempt)
    changed = connection.execute(outcome.values(lease_until=None, enqueues=0, **values))
    return job_id if changed.rowcount else None


def complete(connection: Connection, delivery_id: str, values: Mapping[str, object], now: datetime) -> bool:
    """Make a delivery SENT; the last delivery of a job ends the job. Return False when the delivery had ended already."""
    job_id = settle(connection, delivery_id, {"state": DeliveryState.SENT, "last_error": None, **values})
    if job_id is not None and not _unsent(connection, job_id):
        end_delivered_job(connection, job_id, now)
    return job_id is not None


def refuse(connection: Connection, delivery_id: str, error: str, now: datetime, attempt: int | None = None) -> bool:
    """Make a delivery, and with it its job, FAILED until an operator retries it; return False when the delivery had ended already.

    A job that FAILED because of another delivery fails again: the time to look at it and to retry it begins now (`[retention] failed_days`).
    ``attempt`` is that of `settle`.
    """
    job_id = settle(connection, delivery_id, {"state": DeliveryState.FAILED, "last_error": error}, attempt=attempt)
    if job_id is None:
        return False
    name = connection.execute(select(Delivery.destination).where(Delivery.delivery_id == delivery_id)).scalar_one()
    reason = f"destination {name} refused: {error}"[:MAX_TEXT]
    if not change_state(connection, job_id, JobState.ANALYSED, JobState.FAILED, reason=reason, finished_at=now):
        earlier = connection.execute(select(Job.reason).where(Job.job_id == job_id)).scalar_one()
        both = f"{earlier}; {reason}"[:MAX_TEXT]
        change_state(connection, job_id, JobState.FAILED, JobState.FAILED, reason=both, finished_at=now)
    return True


def _unsent(connection: Connection, job_id: str) -> int:
    """Return how many deliveries of a job are not SENT."""
    return connection.execute(
        select(func.count()).where(Delivery.job_id == job_id, Delivery.state != DeliveryState.SENT)
    ).scalar_one()


def reopen_deliveries(connection: Connection, job_id: str, states: Collection[DeliveryState], now: datetime) -> int:
    """Make the deliveries in these states PENDING and due now; return how many there were.

    A delivery whose objects are being sent, also after its job was cancelled, stays with its worker, so that no other worker sends them
    at the same time. It is due when its lease ends, unless its worker records an outcome before.
    """
    leased = Delivery.lease_until > now
    changed = connection.execute(
        update(Delivery)
        .where(Delivery.job_id == job_id, Delivery.state.in_(states))
        .values(
            state=DeliveryState.PENDING,
            attempts=case((leased, Delivery.attempts), else_=0),
            enqueues=0,
            next_attempt_at=now,
            due_at=case((leased, Delivery.lease_until), else_=now),
            lease_until=case((leased, Delivery.lease_until), else_=None),
            sent_at=None,
            uncommitted=None,
            resends=0,
            unanswered=0,
            committed_at=None,
        )
    )
    return int(changed.rowcount)


def fail_open_deliveries(connection: Connection, job_id: str, reason: str) -> None:
    """Make the open deliveries of a job FAILED. The lease of a delivery whose objects are being sent stays; see `reopen_deliveries`."""
    connection.execute(
        update(Delivery)
        .where(Delivery.job_id == job_id, Delivery.state.in_(OPEN))
        .values(state=DeliveryState.FAILED, last_error=reason)
    )


def statuses(connection: Connection, job_ids: Sequence[str]) -> dict[str, list[DeliveryStatus]]:
    """Return the deliveries of each job, in the order of the destinations' names."""
    found: dict[str, list[DeliveryStatus]] = {}
    query = select(Delivery.__table__).where(Delivery.job_id.in_(job_ids)).order_by(Delivery.destination)
    for row in connection.execute(query).mappings():
        found.setdefault(row["job_id"], []).append(
            DeliveryStatus(
                delivery_id=row["delivery_id"],
                destination=row["destination"],
                state=DeliveryState(row["state"]),
                attempts=row["attempts"],
                next_attempt_at=row["next_attempt_at"],
                last_error=row["last_error"],
                sent_at=row["sent_at"],
                committed_at=row["committed_at"],
            )
        )
    return found
