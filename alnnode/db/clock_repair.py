"""After the clock was set back: times that lie further ahead than anything is ever put off were written before, and are put right.

Without this, what was put off for seconds would wait for as long as the clock was set back. A clock that is set forward ends leases and
waits early, which costs no more than a second try.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import and_, update

from alnnode.db.tables import Delivery, Job
from alnnode.db.worklist_tables import WorkitemRow
from alnnode.deliver.delivery_rows import OPEN
from alnnode.records import JobState

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from sqlalchemy import Update
    from sqlalchemy.engine import Connection

AHEAD = timedelta(minutes=1)  # by which the clocks of several hosts may differ
LONGEST_LEASE = timedelta(minutes=1)  # of `workers.analyst`; who still holds one renews it sooner, or is at its end
LONGEST_FETCH = timedelta(minutes=20)  # pauses of `alnnode.worklist.performer`


def put_right(connection: Connection, now: datetime, requeue: timedelta, waits: Mapping[str, timedelta]) -> int:
    """Let nothing wait longer than it could have been told to; how many rows were changed.

    Args:
        connection: inside a transaction.
        now: aware.
        requeue: the longest time after which a task that seems lost is enqueued again.
        waits: the longest time that a delivery waits for its next try, by destination.
    """
    open_jobs = Job.state.in_((JobState.READY, JobState.RUNNING))
    open_deliveries = Delivery.state.in_(OPEN)
    until = now + LONGEST_LEASE
    leased = until + AHEAD
    statements: list[Update] = [
        update(Job)
        .where(Job.state == JobState.RUNNING, Job.lease_until > leased)
        .values(lease_until=until, due_at=until, enqueues=0),
        update(Job).where(open_jobs, Job.due_at > now + requeue + AHEAD).values(due_at=now, enqueues=0),
        update(WorkitemRow).where(WorkitemRow.lease_until > now + LONGEST_FETCH + AHEAD).values(lease_until=None),
    ]
    for name, wait in waits.items():
        of = and_(open_deliveries, Delivery.destination == name)
        statements += [
            update(Delivery).where(of, Delivery.next_attempt_at > now + wait + AHEAD).values(next_attempt_at=now, due_at=now),
            update(Delivery).where(of, Delivery.due_at > now + max(wait, requeue) + AHEAD).values(due_at=now, enqueues=0),
        ]
    # Last: what is being sent is not due before its lease ends.
    statements.append(
        update(Delivery).where(open_deliveries, Delivery.lease_until > leased).values(lease_until=until, due_at=until)
    )
    return sum(connection.execute(statement).rowcount for statement in statements)
