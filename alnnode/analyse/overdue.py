"""Which tasks to enqueue, and which to enqueue again because the broker lost them.

A row has a due time and counts how often it was enqueued for it (``enqueues``; whoever gives it a new due time sets that to 0). Of
jobs, each needs a message of its own; of deliveries, one message lets a destination's lane go on until nothing is due there.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import select, update

from alnnode.db.tables import Delivery, Job
from alnnode.deliver.delivery_rows import OPEN
from alnnode.records import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from datetime import datetime

    from sqlalchemy.engine import Engine

    Queued = Callable[[], Collection[str]]

# A task that nobody took is looked for on its queue after this long: longer than an idle worker takes to claim what it is handed, and
# longer than `alnnode.task_queue.KEPT`, so that what was enqueued is in every answer of the broker that is looked at.
REQUEUE_AFTER = timedelta(seconds=15)
_ROWS = 1000  # in one statement: databases bound the parameters of one
_JOB_OPEN = Job.state.in_((JobState.READY, JobState.RUNNING))


def jobs(reader: Engine, writer: Engine, queued: Queued, now: datetime) -> tuple[str, ...]:
    """Ids of jobs to enqueue now, oldest first; see `alnnode.analyse.jobs.Jobs.lost`."""
    query = select(Job.job_id, Job.enqueues).where(_JOB_OPEN, Job.due_at <= now).order_by(Job.created_at, Job.job_id)
    with reader.connect() as connection:
        due = connection.execute(query).all()
    waiting = queued() if any(enqueues for _, enqueues in due) else ()
    ids = [job_id for job_id, enqueues in due if not enqueues or job_id not in waiting]
    won: set[str] = set()
    for some in _portions(ids):
        free = select(Job.job_id).where(Job.job_id.in_(some), _JOB_OPEN, Job.due_at <= now).with_for_update(skip_locked=True)
        change = update(Job).where(Job.job_id.in_(free)).values(due_at=now + REQUEUE_AFTER, enqueues=Job.enqueues + 1)
        with writer.begin() as connection:
            won.update(connection.execute(change.returning(Job.job_id)).scalars())
    return tuple(job_id for job_id in ids if job_id in won)


def deliveries(reader: Engine, writer: Engine, queued: Queued, now: datetime) -> tuple[str, ...]:
    """Ids of deliveries to enqueue now, one for each destination; see `alnnode.analyse.jobs.Jobs.due_deliveries`."""
    query = (
        select(Delivery.delivery_id, Delivery.destination, Delivery.enqueues)
        .join(Job, Job.job_id == Delivery.job_id)
        .where(Delivery.state.in_(OPEN), Delivery.due_at <= now)
        .order_by(Job.created_at, Delivery.delivery_id)
    )
    with reader.connect() as connection:
        due = connection.execute(query).all()
    waiting = queued() if any(enqueues for _, _, enqueues in due) else ()
    fresh = {destination for _, destination, enqueues in due if not enqueues}
    woken = {destination for delivery_id, destination, _ in due if delivery_id in waiting} - fresh
    of = {delivery_id: destination for delivery_id, destination, _ in due if destination not in woken}
    won: dict[str, str] = {}  # destination, and the oldest of what is due there
    for some in _portions(list(of)):
        free = (
            select(Delivery.delivery_id)
            .where(Delivery.delivery_id.in_(some), Delivery.state.in_(OPEN), Delivery.due_at <= now)
            .with_for_update(skip_locked=True)
        )
        change = update(Delivery).where(Delivery.delivery_id.in_(free))
        change = change.values(due_at=now + REQUEUE_AFTER, enqueues=Delivery.enqueues + 1)
        with writer.begin() as connection:
            changed = set(connection.execute(change.returning(Delivery.delivery_id)).scalars())
        for delivery_id in some:
            if delivery_id in changed:
                won.setdefault(of[delivery_id], delivery_id)
    return tuple(won.values())


def _portions(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), _ROWS):
        yield ids[start : start + _ROWS]
