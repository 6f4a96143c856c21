"""Deliveries for the sweep and the delivering worker: which are due, who makes them, and with what outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import and_, select, update

from alnnode.db import clock, requeue
from alnnode.db.clock import LONGEST_LEASE, MAX_SKEW
from alnnode.db.engine import for_writing
from alnnode.db.queue_tables import URGENCY
from alnnode.db.rows import DeliveryClaim
from alnnode.db.tables import Delivery, DeliveryState, Job
from alnnode.db.transitions import MAX_TEXT
from alnnode.deliver import delivery_rows
from alnnode.deliver.delivery_rows import OPEN

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime, timedelta

    from sqlalchemy import ColumnElement, Update
    from sqlalchemy.engine import Connection, Engine

    from alnnode.db.requeue import Queued


class Deliveries:
    """The deliveries table. Safe to share between threads.

    ``now`` arguments default to the clock of the database; all times are aware.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = for_writing(engine)

    # -- the sweep ---------------------------------------------------------------------------------------------------

    def due(self, now: datetime | None = None, *, queued: Queued = frozenset, paused: Collection[str] = ()) -> tuple[str, ...]:
        """Return the ids of deliveries to enqueue: for each destination the oldest that is due.

        Whoever gets the message makes all deliveries that are due at that destination. Each delivery is returned once for each time that
        it becomes due; after that not while any delivery to its destination is in ``queued()``, which is called only when necessary.
        Deliveries to ``paused`` destinations wait.
        """
        moment = now or clock.now(self._engine)
        query = (
            select(Delivery.delivery_id, Delivery.destination, Delivery.enqueues)
            .join(Job, Job.job_id == Delivery.job_id)
            .where(Delivery.state.in_(OPEN), Delivery.due_at <= moment, Delivery.destination.not_in(paused))
            .order_by(Job.created_at, Delivery.delivery_id)
        )
        with self._engine.connect() as connection:
            due = connection.execute(query).all()
        waiting = queued() if any(enqueues for _, _, enqueues in due) else ()
        fresh = {destination for _, destination, enqueues in due if not enqueues}
        has_message = {destination for delivery_id, destination, _ in due if delivery_id in waiting} - fresh
        destinations = {delivery_id: destination for delivery_id, destination, _ in due if destination not in has_message}
        won: dict[str, str] = {}  # by destination, the oldest delivery that is due there
        for batch in requeue.batches(list(destinations)):
            free = (
                select(Delivery.delivery_id)
                .where(Delivery.delivery_id.in_(batch), Delivery.state.in_(OPEN), Delivery.due_at <= moment)
                .with_for_update(skip_locked=True)
            )
            change = update(Delivery).where(Delivery.delivery_id.in_(free))
            change = change.values(due_at=moment + requeue.REQUEUE_AFTER, enqueues=Delivery.enqueues + 1)
            with self._writer.begin() as connection:
                changed = set(connection.execute(change.returning(Delivery.delivery_id)).scalars())
            for delivery_id in batch:
                if delivery_id in changed:
                    won.setdefault(destinations[delivery_id], delivery_id)
        return tuple(won.values())

    def reset_future_times(self, longest_waits: Mapping[str, timedelta], now: datetime | None = None) -> int:
        """Reset times from before the clock was set back (`alnnode.db.clock`); return how many.

        Args:
            longest_waits: the longest time until the next attempt, by destination.
            now: see the class.
        """
        moment = now or clock.now(self._engine)
        is_open, until = Delivery.state.in_(OPEN), moment + LONGEST_LEASE
        statements: list[Update] = []
        for name, wait in longest_waits.items():
            there = and_(is_open, Delivery.destination == name)
            late, overdue = moment + wait + MAX_SKEW, moment + max(wait, requeue.REQUEUE_AFTER) + MAX_SKEW
            statements += [
                update(Delivery).where(there, Delivery.next_attempt_at > late).values(next_attempt_at=moment, due_at=moment),
                update(Delivery).where(there, Delivery.due_at > overdue).values(due_at=moment, enqueues=0),
            ]
        # Last, because a delivery that is being made is not due before its lease ends.
        leased = update(Delivery).where(is_open, Delivery.lease_until > until + MAX_SKEW)
        statements.append(leased.values(lease_until=until, due_at=until))
        with self._writer.begin() as connection:
            return sum(connection.execute(statement).rowcount for statement in statements)

    # -- the delivering worker ---------------------------------------------------------------------------------------

    def destination_of(self, delivery_id: str) -> str | None:
        """Return the name of the destination of a delivery; None when there is no such delivery."""
        with self._engine.connect() as connection:
            query = select(Delivery.destination).where(Delivery.delivery_id == delivery_id)
            return connection.execute(query).scalar_one_or_none()

    def claim(
        self, delivery_id: str, lease: timedelta, now: datetime | None = None, *, early: bool = False
    ) -> DeliveryClaim | None:
        """Claim the oldest delivery to the same destination that is due and not claimed; None when there is none.

        Args:
            delivery_id: of any delivery to that destination.
            lease: the delivery is the caller's for this long.
            now: see the class.
            early: claim the oldest delivery to the destination, due or not, if the given one is due.
        """
        with self._writer.begin() as connection:
            return _claim(connection, delivery_id, lease, now or clock.now(connection), early=early)

    def renew(self, claim: DeliveryClaim, lease: timedelta, now: datetime | None = None) -> bool:
        """Prolong the lease of a delivery that is being made; return False when another worker has claimed the delivery since.

        The delivery may have been cancelled meanwhile: a retry must not make it a second time while its objects are still being sent.
        """
        until = (now or clock.now(self._engine)) + lease
        claimed = (
            Delivery.delivery_id == claim.delivery_id,
            Delivery.attempts == claim.attempt,
            Delivery.lease_until.is_not(None),
        )
        with self._writer.begin() as connection:
            changed = connection.execute(update(Delivery).where(*claimed).values(lease_until=until, due_at=until))
            return bool(changed.rowcount)

    def reschedule(self, destination: str, at: datetime) -> None:
        """Make every waiting delivery to a destination due at the same time; they are then made in the order of their age."""
        waiting = (Delivery.destination == destination, Delivery.state == DeliveryState.PENDING, Delivery.lease_until.is_(None))
        with self._writer.begin() as connection:
            connection.execute(update(Delivery).where(*waiting).values(next_attempt_at=at, due_at=at, enqueues=0))

    def delivered(self, delivery_id: str, now: datetime | None = None) -> bool:
        """Record that the destination has every object; the last delivery of a job ends the job."""
        moment = now or clock.now(self._engine)
        with self._writer.begin() as connection:
            return delivery_rows.complete(connection, delivery_id, {"sent_at": moment}, moment)

    def deferred(
        self, delivery_id: str, error: str, next_attempt_at: datetime, *, counts: bool = True, attempt: int | None = None
    ) -> bool:
        """Record that the delivery failed for now; the sweep enqueues it at ``next_attempt_at``. ``counts`` counts the attempt.

        With ``attempt``, nothing changes when another worker has claimed the delivery since: that worker is sending the objects now.
        """
        values: dict[str, object] = {
            "last_error": error[:MAX_TEXT],
            "next_attempt_at": next_attempt_at,
            "due_at": next_attempt_at,
            "attempts": Delivery.attempts - int(not counts),
        }
        with self._writer.begin() as connection:
            return delivery_rows.settle(connection, delivery_id, values, attempt=attempt) is not None

    def refused(self, delivery_id: str, error: str, now: datetime | None = None, *, attempt: int | None = None) -> bool:
        """Record that the delivery needs an operator: it and its job are FAILED; deliveries to other destinations go on.

        ``attempt`` is that of `deferred`.
        """
        with self._writer.begin() as connection:
            return delivery_rows.refuse(connection, delivery_id, error[:MAX_TEXT], now or clock.now(connection), attempt)


def _claim(connection: Connection, delivery_id: str, lease: timedelta, now: datetime, *, early: bool) -> DeliveryClaim | None:
    due = Delivery.next_attempt_at <= now
    # A COMMITTING delivery waits for the destination's answer: to claim it early would only send a second request.
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
        .order_by(URGENCY.desc(), Job.created_at, Delivery.delivery_id)
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
    files = delivery_rows.result_rows(connection, row.job_id, row.roles.split())
    if row.uncommitted is not None:
        left = set(row.uncommitted.split())
        files = tuple(file for file in files if file.sop_instance_uid in left)
    sent = row.state == DeliveryState.COMMITTING
    return DeliveryClaim(oldest, row.job_id, row.destination, row.attempts, files, sent, row.unanswered)
