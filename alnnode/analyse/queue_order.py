"""Which job a worker claims: the most urgent one; of equal ones, that of the sender whose last turn is longest ago; of its jobs, the oldest.

A message of the broker lets a worker claim one job, whichever is the most urgent then. So the order follows from the database alone, and
survives the loss of the broker. A job whose message was used for another job gets a new one from the sweep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import and_, func, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from alnnode.db.queue_tables import URGENCY, SenderTurnRow
from alnnode.db.tables import Job, Series
from alnnode.records import JobState

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Connection, RowMapping


def is_free(now: datetime) -> ColumnElement[bool]:
    """Return the condition for jobs that no worker runs: READY, or RUNNING with a lease that has ended."""
    return or_(Job.state == JobState.READY, and_(Job.state == JobState.RUNNING, Job.lease_until <= now))


def most_urgent(
    connection: Connection, job_id: str | None, now: datetime, *, first_attempts: bool = False
) -> RowMapping | None:
    """Lock and return the job to claim now; None when there is none.

    A postponed job (READY, not enqueued and not due) is not claimed, not even by a message of its own: a job that the message of another
    job claimed leaves its own message on the queue.

    Args:
        connection: inside a transaction.
        job_id: of the message, for which the caller waits if another transaction has locked it; None to wait for no job.
        now: the time.
        first_attempts: return no job that a worker has claimed before.
    """
    waits = and_(is_free(now), or_(Job.state == JobState.RUNNING, Job.enqueues > 0, Job.due_at <= now))
    if first_attempts:
        waits = and_(waits, Job.attempts == 0)
    turn = func.coalesce(SenderTurnRow.turn, 0)
    order = (
        select(Job.__table__)
        .join(Series, Series.series_uid == Job.series_uid)
        .outerjoin(SenderTurnRow, SenderTurnRow.calling_ae == Series.calling_ae)
        .where(waits)
        .order_by(URGENCY.desc(), turn, Job.created_at, Job.job_id)
        .limit(1)
        .with_for_update(of=Job, skip_locked=True)
    )
    found = connection.execute(order).mappings().first()
    if found is not None or job_id is None:
        return found
    # Perhaps the job is locked for a moment, by the sweep or by an image that is being recorded.
    own = select(Job.__table__).where(Job.job_id == job_id, waits).with_for_update()
    return connection.execute(own).mappings().first()


def next_turn(connection: Connection, series_uid: str) -> None:
    """Record that the sender of a series has had its turn."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    sender = connection.execute(select(Series.calling_ae).where(Series.series_uid == series_uid)).scalar_one()
    turn = connection.execute(select(func.coalesce(func.max(SenderTurnRow.turn), 0) + 1)).scalar_one()
    statement = dialect.insert(SenderTurnRow).values(calling_ae=sender, turn=turn)
    connection.execute(statement.on_conflict_do_update(index_elements=["calling_ae"], set_={"turn": turn}))
