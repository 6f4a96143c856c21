"""Jobs of READY series until their results are in the outbox, and the queries of the job list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select, update

from alnnode.analyse import claims
from alnnode.analyse.study_reports import is_study_reported
from alnnode.db import clock, requeue
from alnnode.db.clock import LONGEST_LEASE, MAX_SKEW
from alnnode.db.engine import for_writing
from alnnode.db.queue_tables import URGENCY
from alnnode.db.rows import JobStatus
from alnnode.db.tables import Instance, Job, Result
from alnnode.db.transitions import MAX_TEXT, change_state, end_delivered_job
from alnnode.deliver import delivery_rows
from alnnode.errors import JobNotFound
from alnnode.records import JobState

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime, timedelta

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Engine

    from alnnode.analyse.claims import ClaimTerms
    from alnnode.db.requeue import Queued
    from alnnode.db.rows import Claim, NotAnalysed, ResultRow

_OPEN = Job.state.in_((JobState.READY, JobState.RUNNING))


class Jobs:
    """The jobs table for workers, the sweep and the job list. Safe to share between threads.

    ``now`` arguments default to the clock of the database; all times are aware. A change with a `Claim` returns False, and changes nothing, when
    another worker has claimed the job since.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = for_writing(engine)

    # -- a worker's job ----------------------------------------------------------------------------------------------

    def claim(self, job_id: str, terms: ClaimTerms, now: datetime | None = None) -> Claim | None:
        """Claim the most urgent job that is READY, or RUNNING with a lease that has ended; None when there is no such job, or the analysis is paused.

        ``job_id`` is that of the message; `alnnode.analyse.queue_order` says which job is claimed. A job that ended its worker ``terms.max_attempts`` times becomes FAILED instead. With the same input, bundle and settings as an
        earlier job of the series, the claim has that job's time and revision, so that the result objects are byte-identical.
        """
        with self._writer.begin() as connection:
            return claims.claim(connection, job_id, terms, now or clock.now(connection))

    def identify(self, claim: Claim, input_digest: str) -> Claim | None:
        """Write the final input digest of a running job, which determines the report's time, revision and predecessor.

        Args:
            claim: of the job.
            input_digest: sha256 (hex) over the digest in the claim, the earlier report that is compared with, and the device.

        Returns:
            The changed claim; None when another worker has claimed the job since.
        """
        with self._writer.begin() as connection:
            return claims.identify(connection, claim, input_digest)

    def renew(self, claim: Claim, lease: timedelta, now: datetime | None = None) -> bool:
        """Prolong the lease of a running job."""
        until = (now or clock.now(self._engine)) + lease
        return self._leave_running(claim, JobState.RUNNING, lease_until=until, due_at=until)

    def analysed(
        self,
        claim: Claim,
        results: Sequence[ResultRow],
        destinations: Mapping[str, Collection[str]],
        not_analysed: NotAnalysed | None = None,
        now: datetime | None = None,
    ) -> bool:
        """Record the results of a running job and open its deliveries.

        Args:
            claim: of the job.
            results: rows of objects that are durable in the outbox.
            destinations: the object roles that each destination wants; the job ends at once when no destination wants any.
            not_analysed: why the series cannot be analysed, when the results only say so. The job ends NOT_ANALYSED with this reason
                when they are delivered.
            now: see the class.
        """
        moment = now or clock.now(self._engine)
        reason = None if not_analysed is None else not_analysed.reason[:MAX_TEXT]
        with self._writer.begin() as connection:
            held = not_analysed is not None and not_analysed.once_per_study and is_study_reported(connection, claim)
            changed = change_state(
                connection,
                claim.job_id,
                JobState.RUNNING,
                JobState.ANALYSED,
                claims.is_claimed_by(claim),
                not_analysed=reason,
                lease_until=None,
                due_at=None,
            )
            wanted = {} if held else destinations
            if changed and not delivery_rows.open_deliveries(connection, claim.job_id, results, wanted, moment):
                end_delivered_job(connection, claim.job_id, moment, held=held)
            return changed

    def fail(self, claim: Claim, reason: str, now: datetime | None = None) -> bool:
        """End a running job with a reason that a person can act on."""
        return self._end(claim, JobState.FAILED, now, reason=reason[:MAX_TEXT])

    def not_analysable(self, claim: Claim, reason: str, now: datetime | None = None) -> bool:
        """End a running job whose series cannot be analysed, without results."""
        text = reason[:MAX_TEXT]
        return self._end(claim, JobState.NOT_ANALYSED, now, reason=text, not_analysed=text)

    def _end(self, claim: Claim, state: JobState, now: datetime | None, **values: object) -> bool:
        moment = now or clock.now(self._engine)
        return self._leave_running(claim, state, finished_at=moment, lease_until=None, due_at=None, **values)

    def postpone(self, claim: Claim, until: datetime) -> bool:
        """Make a running job READY again, because the model, the spool or memory is not available now; the sweep enqueues it then."""
        return self._leave_running(claim, JobState.READY, lease_until=None, due_at=until, enqueues=0)

    def _leave_running(self, claim: Claim, state: JobState, **values: object) -> bool:
        with self._writer.begin() as connection:
            return change_state(connection, claim.job_id, JobState.RUNNING, state, claims.is_claimed_by(claim), **values)

    # -- the sweep ---------------------------------------------------------------------------------------------------

    def lost(self, now: datetime | None = None, *, queued: Queued = frozenset) -> tuple[str, ...]:
        """Return the ids of jobs to enqueue, the most urgent and oldest first: RUNNING with an ended lease, postponed until now, or READY and not claimed.

        Each job is returned once for each time that it becomes due, even when several processes ask; after that not while its id is in
        ``queued()``, which is called only when necessary.
        """
        moment = now or clock.now(self._engine)
        query = select(Job.job_id, Job.enqueues).where(_OPEN, Job.due_at <= moment)
        query = query.order_by(URGENCY.desc(), Job.created_at, Job.job_id)
        with self._engine.connect() as connection:
            due = connection.execute(query).all()
        waiting = queued() if any(enqueues for _, enqueues in due) else ()
        ids = [job_id for job_id, enqueues in due if not enqueues or job_id not in waiting]
        won: set[str] = set()
        for batch in requeue.batches(ids):
            free = (
                select(Job.job_id).where(Job.job_id.in_(batch), _OPEN, Job.due_at <= moment).with_for_update(skip_locked=True)
            )
            change = update(Job).where(Job.job_id.in_(free))
            change = change.values(due_at=moment + requeue.REQUEUE_AFTER, enqueues=Job.enqueues + 1)
            with self._writer.begin() as connection:
                won.update(connection.execute(change.returning(Job.job_id)).scalars())
        return tuple(job_id for job_id in ids if job_id in won)

    def first_attempts(self, limit: int) -> tuple[str, ...]:
        """Return the ids of READY jobs that no worker has claimed yet, oldest first."""
        query = select(Job.job_id).where(Job.state == JobState.READY, Job.attempts == 0).order_by(Job.created_at, Job.job_id)
        with self._engine.connect() as connection:
            return tuple(connection.execute(query.limit(limit)).scalars())

    def reset_future_times(self, now: datetime | None = None) -> int:
        """Reset leases and due times from before the clock was set back (`alnnode.db.clock`); return how many."""
        moment = now or clock.now(self._engine)
        until = moment + LONGEST_LEASE
        leased = update(Job).where(Job.state == JobState.RUNNING, Job.lease_until > until + MAX_SKEW)
        waiting = update(Job).where(_OPEN, Job.due_at > moment + requeue.REQUEUE_AFTER + MAX_SKEW)
        with self._writer.begin() as connection:
            changed = connection.execute(leased.values(lease_until=until, due_at=until, enqueues=0)).rowcount
            return changed + connection.execute(waiting.values(due_at=moment, enqueues=0)).rowcount

    # -- the job list ------------------------------------------------------------------------------------------------

    def get(self, job_id: str) -> JobStatus:
        """Return a job with its deliveries.

        Raises:
            JobNotFound: no job has that id.
        """
        found = self._read(Job.job_id == job_id, 1)
        if not found:
            raise JobNotFound(f"no job {job_id}")
        return found[0]

    def list(self, state: JobState | None = None, limit: int = 1000, since: datetime | None = None) -> tuple[JobStatus, ...]:
        """Return the ``limit`` most recent jobs of a state, or of every state, the newest first; none that is older than ``since``."""
        of_state = Job.state.is_not(None) if state is None else Job.state == state
        return self._read(of_state if since is None else of_state & (Job.created_at >= since), limit)

    def beginning_with(self, prefix: str, limit: int = 10) -> tuple[str, ...]:
        """Return at most ``limit`` ids that begin with the text; the id that is the text, if there is one, alone."""
        query = select(Job.job_id).where(Job.job_id.startswith(prefix, autoescape=True)).order_by(Job.job_id).limit(limit)
        with self._engine.connect() as connection:
            found = tuple(connection.execute(query).scalars())
        return (prefix,) if prefix in found else found

    def results(self, job_id: str) -> tuple[ResultRow, ...]:
        """Return the result objects of a job in the order of the report."""
        with self._engine.connect() as connection:
            return delivery_rows.result_rows(connection, job_id)

    def running(self, now: datetime | None = None) -> int:
        """Return how many jobs a worker runs: a job whose lease has ended is RUNNING only until another worker claims it."""
        moment = now or clock.now(self._engine)
        running = select(func.count()).where(Job.state == JobState.RUNNING, Job.lease_until > moment)
        with self._engine.connect() as connection:
            return connection.execute(running).scalar_one()

    def counts(self) -> dict[JobState, int]:
        """Return how many jobs are in each state."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(Job.state, func.count()).group_by(Job.state)).all()
        return {JobState(state): count for state, count in rows}

    def _read(self, which: ColumnElement[bool], limit: int) -> tuple[JobStatus, ...]:
        instances = (
            select(func.count())
            .where(Instance.series_uid == Job.series_uid, Instance.revision <= Job.revision)
            .scalar_subquery()
        )
        results = select(func.count()).where(Result.job_id == Job.job_id).scalar_subquery()
        query = select(Job.__table__, instances.label("instances"), results.label("results")).where(which)
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(Job.created_at.desc(), Job.revision.desc()).limit(limit)).mappings().all()
            deliveries = delivery_rows.statuses(connection, [row["job_id"] for row in rows])
        names = [name for name in JobStatus.__dataclass_fields__ if name not in {"state", "deliveries"}]
        return tuple(
            JobStatus(
                **{name: row[name] for name in names},
                state=JobState(row["state"]),
                deliveries=tuple(deliveries.get(row["job_id"], ())),
            )
            for row in rows
        )
