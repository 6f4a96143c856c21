"""Deliveries: one row for each job and destination, each with its own state, so that no destination waits for another."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from sqlalchemy import and_, delete, func, insert, select, update

from alnnode.db.rows import DeliveryClaim, DeliveryStatus, ResultRow
from alnnode.db.tables import Delivery, DeliveryState, Job, Result, Transaction
from alnnode.db.transitions import MAX_TEXT, finish
from alnnode.db.transitions import move as move_job
from alnnode.records import JobState, ObjectRole

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime, timedelta

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Connection

OPEN = (DeliveryState.PENDING, DeliveryState.COMMITTING)


def put(
    connection: Connection,
    job_id: str,
    results: Sequence[ResultRow],
    destinations: Mapping[str, Collection[str]],
    now: datetime,
) -> bool:
    """Replace the job's results and open a delivery for each destination that wants any of them; whether there is one."""
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
    present = {str(row.role) for row in results}
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


def files(connection: Connection, job_id: str, roles: Collection[str] | None = None) -> tuple[ResultRow, ...]:
    """Result objects of a job in the order of the report; only those in ``roles`` when given."""
    query = select(Result.__table__).where(Result.job_id == job_id).order_by(Result.position)
    return tuple(
        ResultRow(**{**{key: value for key, value in row.items() if key != "job_id"}, "role": ObjectRole(row["role"])})
        for row in connection.execute(query).mappings()
        if roles is None or row["role"] in roles
    )


def claim(connection: Connection, delivery_id: str, lease: timedelta, now: datetime, *, early: bool) -> DeliveryClaim | None:
    """Take the oldest delivery of the same destination that is due and that nobody holds.

    ``early``: take the oldest, due or not, when this one is due.
    """
    due = Delivery.next_attempt_at <= now
    # What was sent waits for the destination's word, and asking for it early would only ask twice.
    waiting = (Delivery.state == DeliveryState.PENDING) | and_(Delivery.state == DeliveryState.COMMITTING, due)
    free: list[ColumnElement[bool]] = [waiting, Delivery.lease_until.is_(None) | (Delivery.lease_until <= now)]
    if not early:
        free.append(due)
    elif connection.execute(select(Delivery.job_id).where(Delivery.delivery_id == delivery_id, *free, due)).first() is None:
        return None
    destination = select(Delivery.destination).where(Delivery.delivery_id == delivery_id).scalar_subquery()
    oldest = connection.execute(
        select(Delivery.delivery_id)
        .join(Job, Job.job_id == Delivery.job_id)
        .where(Delivery.destination == destination, *free)
        .order_by(Job.created_at, Delivery.delivery_id)
        .limit(1)
        .with_for_update(of=Delivery, skip_locked=True)
    ).scalar_one_or_none()
    if oldest is None:
        return None
    row = connection.execute(
        update(Delivery)
        .where(Delivery.delivery_id == oldest, *free)
        .values(attempts=Delivery.attempts + 1, lease_until=now + lease, due_at=now + lease)
        .returning(
            Delivery.job_id,
            Delivery.destination,
            Delivery.attempts,
            Delivery.roles,
            Delivery.state,
            Delivery.uncommitted,
            Delivery.unanswered,
        )
    ).one_or_none()
    if row is None:
        return None
    chosen = files(connection, row.job_id, row.roles.split())
    if row.uncommitted is not None:
        left = set(row.uncommitted.split())
        chosen = tuple(file for file in chosen if file.sop_instance_uid in left)
    sent = row.state == DeliveryState.COMMITTING
    return DeliveryClaim(oldest, row.job_id, row.destination, row.attempts, chosen, sent, row.unanswered)


def move(connection: Connection, destination: str, at: datetime) -> None:
    """Make every delivery that waits for a destination due at one moment: together, they are taken in the order of their age."""
    connection.execute(
        update(Delivery)
        .where(Delivery.destination == destination, Delivery.state == DeliveryState.PENDING, Delivery.lease_until.is_(None))
        .values(next_attempt_at=at, due_at=at, enqueues=0)
    )


def settle(
    connection: Connection, delivery_id: str, values: Mapping[str, object], states: Collection[DeliveryState] = OPEN
) -> str | None:
    """Write the outcome of a delivery that is in one of these states; the job's id, or None when it was settled already.

    The job's row is locked first: of two deliveries that end at the same moment, the second must see the first.
    """
    job_id = connection.execute(select(Delivery.job_id).where(Delivery.delivery_id == delivery_id)).scalar_one_or_none()
    if job_id is None:
        return None
    connection.execute(select(Job.job_id).where(Job.job_id == job_id).with_for_update())
    changed = connection.execute(
        update(Delivery)
        .where(Delivery.delivery_id == delivery_id, Delivery.state.in_(states))
        .values(lease_until=None, enqueues=0, **values)
    )
    return job_id if changed.rowcount else None


def complete(connection: Connection, delivery_id: str, values: Mapping[str, object], now: datetime) -> bool:
    """Note that a destination has every object; the last delivery of a job ends the job. False when it was settled already."""
    job_id = settle(connection, delivery_id, {"state": DeliveryState.SENT, "last_error": None, **values})
    if job_id is not None and not unsent(connection, job_id):
        finish(connection, job_id, now)
    return job_id is not None


def refuse(connection: Connection, delivery_id: str, error: str, now: datetime) -> bool:
    """End a delivery that needs a person, and its job with it; False when it was settled already."""
    job_id = settle(connection, delivery_id, {"state": DeliveryState.FAILED, "last_error": error})
    if job_id is None:
        return False
    name = connection.execute(select(Delivery.destination).where(Delivery.delivery_id == delivery_id)).scalar_one()
    reason = f"destination {name} refused: {error}"[:MAX_TEXT]
    move_job(connection, job_id, JobState.ANALYSED, JobState.FAILED, reason=reason, finished_at=now)
    return True


def unsent(connection: Connection, job_id: str) -> int:
    """How many deliveries of a job have not reached their destination."""
    return connection.execute(
        select(func.count()).where(Delivery.job_id == job_id, Delivery.state != DeliveryState.SENT)
    ).scalar_one()


def again(connection: Connection, job_id: str, states: Collection[DeliveryState], now: datetime) -> int:
    """Make the deliveries in these states pending and due now; how many there were."""
    changed = connection.execute(
        update(Delivery)
        .where(Delivery.job_id == job_id, Delivery.state.in_(states))
        .values(
            state=DeliveryState.PENDING,
            attempts=0,
            enqueues=0,
            next_attempt_at=now,
            due_at=now,
            lease_until=None,
            sent_at=None,
            uncommitted=None,
            resends=0,
            unanswered=0,
            committed_at=None,
        )
    )
    return int(changed.rowcount)


def stop(connection: Connection, job_id: str, reason: str) -> None:
    """Make the open deliveries of a job FAILED."""
    connection.execute(
        update(Delivery)
        .where(Delivery.job_id == job_id, Delivery.state.in_(OPEN))
        .values(state=DeliveryState.FAILED, last_error=reason, lease_until=None)
    )


def of_jobs(connection: Connection, job_ids: Sequence[str]) -> dict[str, list[DeliveryStatus]]:
    """Deliveries by job, in the order of the destinations' names."""
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
