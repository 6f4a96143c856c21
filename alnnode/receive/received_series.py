"""Received instances and series in the database, until the job of a complete series is READY or SKIPPED."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from sqlalchemy import bindparam, select, update
from sqlalchemy.exc import SQLAlchemyError

from alnnode.db import clock, requeue
from alnnode.db.engine import for_single_reads, for_writing
from alnnode.db.tables import Instance, Series
from alnnode.db.tallies import SET_ASIDE, Tally, add_to_tally
from alnnode.db.transitions import MAX_TEXT, change_state
from alnnode.receive import instance_rows, mark_references, series_completion
from alnnode.records import JobState
from alnnode.records.priority import Priority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime, timedelta

    from sqlalchemy.engine import Connection, Engine

    from alnnode.db.rows import NewInstance, Recorded, SeriesFacts
    from alnnode.settings import Completion

_DIGEST = select(Instance.sha256).where(Instance.sop_instance_uid == bindparam("uid"))  # executed for every image

log = structlog.get_logger()


class ReceivedSeries:
    """The rows of received series. Safe to share between threads.

    ``now`` arguments default to the clock of the database; all times are aware.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = for_writing(engine)
        self._reader = for_single_reads(engine)

    def now(self) -> datetime:
        """Return the present time of the database."""
        return clock.now(self._engine)

    def clock_offset(self) -> timedelta:
        """Return by how much the clock of the database is ahead of that of this host."""
        return clock.offset(self._engine)

    def digest(self, sop_instance_uid: str) -> str | None:
        """Return the sha256 (hex) of a recorded instance; None when it is not recorded."""
        with self._reader.connect() as connection:
            return connection.execute(_DIGEST, {"uid": sop_instance_uid}).scalar_one_or_none()

    def record_instances(self, batch: Sequence[NewInstance]) -> tuple[Recorded, ...]:
        """Record instances whose bytes are durable; return one outcome for each, in the order of the batch.

        A new instance opens the job of its series, joins it while it waits (READY, SKIPPED), or opens a new revision that names its
        predecessor. An instance that is recorded already changes nothing.
        """
        with self._writer.begin() as connection:
            return instance_rows.record(connection, batch)

    def mark_released(self, series_uids: Iterable[str], at: datetime) -> None:
        """Record that an association which sent these series was released."""
        with self._writer.begin() as connection:
            connection.execute(update(Series).where(Series.series_uid.in_(sorted(set(series_uids)))).values(released_at=at))

    def count_set_aside(self, reason: str, count: int) -> None:
        """Count objects that the spool set aside, because a person must check them. A counter that fails stops no reception."""
        try:
            with self._writer.begin() as connection:
                add_to_tally(connection, SET_ASIDE, Tally(reason, 0, count, 0.0))
        except SQLAlchemyError as error:
            log.warning("set_aside_not_counted", reason=reason, objects=count, error=type(error).__name__)

    def complete_due(
        self,
        completion: Completion,
        unwanted: Callable[[SeriesFacts], str | None],
        now: datetime | None = None,
        *,
        marked: bool = True,
        priority: Callable[[SeriesFacts], Priority] = lambda _: Priority.MEDIUM,
    ) -> tuple[str, ...]:
        """Make the jobs of complete series READY, or SKIPPED when ``unwanted`` returns a reason; return the ids of those now READY.

        Late images, new marks or a repetition of the analysis do not end a series as SKIPPED that was selected before
        (`alnnode.receive.series_completion.is_selected`).

        A job that is READY has the priority of its series, or a higher one that a workitem gave it before. The first job of a series
        that a backfill retrieves has the lowest priority.

        A series of a reader's marks is SKIPPED. With ``marked``, the images that the marks refer to get a new revision if they were
        analysed before.
        """
        moment = now or clock.now(self._engine)
        with self._engine.connect() as connection:
            waiting = series_completion.receiving_jobs(connection)
        ready: list[str] = []
        for job_id, series_uid in waiting:
            with self._writer.begin() as connection:
                images = mark_references.lock_with_images(connection, series_uid)
                facts = series_completion.facts_of_complete(connection, series_uid, completion, moment)
                if facts is None:
                    continue
                if images:
                    reason: str | None = mark_references.revise(connection, series_uid, images, moment, used=marked)
                else:
                    reason = None if series_completion.is_selected(connection, job_id, series_uid) else unwanted(facts)
                if _end_reception(connection, job_id, reason, moment):
                    series_completion.set_priority(connection, job_id, priority(facts))
                    ready.append(job_id)
        return tuple(ready)


def _end_reception(connection: Connection, job_id: str, reason: str | None, now: datetime) -> bool:
    """Make a RECEIVING job SKIPPED when there is a reason, else READY; return whether it is READY now."""
    if reason is not None:
        ended = {"reason": reason[:MAX_TEXT], "finished_at": now, "due_at": None}
        change_state(connection, job_id, JobState.RECEIVING, JobState.SKIPPED, **ended)
        return False
    due_at = now + requeue.REQUEUE_AFTER
    return change_state(connection, job_id, JobState.RECEIVING, JobState.READY, due_at=due_at, enqueues=1)
