"""The state machine: RECEIVING, READY, RUNNING, ANALYSED, DELIVERED; or FAILED or SKIPPED with a reason.

`Jobs` is the only writer of states, with `alnnode.deliver.commitments` for what destinations commit. Each step is one guarded
``UPDATE … WHERE state = :expected`` inside one transaction, so duplicate tasks, several sweeps and a worker that was thought dead
can all call it at any time: whoever comes second changes nothing and is told so.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import bindparam, func, select

from alnnode.analyse import claims, mark_rows, operator_actions, overdue
from alnnode.db import clock_repair
from alnnode.db.engine import for_single_reads, for_writing
from alnnode.db.rows import JobStatus
from alnnode.db.tables import Delivery, Instance, Job, Result
from alnnode.db.transitions import MAX_TEXT, finish, move
from alnnode.deliver import delivery_rows
from alnnode.errors import JobConflict, JobNotFound
from alnnode.receive import series_rows
from alnnode.records import JobState
from alnnode.retention import expiry

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Engine

    from alnnode.db.rows import Claim, DeliveryClaim, NewInstance, Recorded, ResultRow, SeriesFacts
    from alnnode.settings import Completion

_DIGEST = select(Instance.sha256).where(Instance.sop_instance_uid == bindparam("uid"))  # asked for every image


def _now() -> datetime:
    return datetime.now(UTC)


class Jobs:
    """Every question to and every change of the job tables. Safe to share between threads.

    ``now`` arguments default to the clock; all times are aware.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = for_writing(engine)
        self._reader = for_single_reads(engine)

    # -- receiving ---------------------------------------------------------------------------------------------------

    def digest(self, sop_instance_uid: str) -> str | None:
        """sha256 of a recorded instance; None when it is not recorded."""
        with self._reader.connect() as connection:
            return connection.execute(_DIGEST, {"uid": sop_instance_uid}).scalar_one_or_none()

    def record_instances(self, batch: Sequence[NewInstance]) -> tuple[Recorded, ...]:
        """Record instances whose bytes are durable; one outcome for each, in the order of the batch.

        A new instance opens the series' job, rejoins it while it waits (READY, SKIPPED), or opens a new revision that names its
        predecessor. An instance that is known already changes nothing at all.
        """
        with self._writer.begin() as connection:
            return series_rows.record(connection, batch)

    def mark_released(self, series_uids: Iterable[str], at: datetime) -> None:
        """Note that an association which sent these series was released."""
        with self._writer.begin() as connection:
            series_rows.release(connection, series_uids, at)

    def complete_due(
        self,
        completion: Completion,
        unwanted: Callable[[SeriesFacts], str | None],
        now: datetime | None = None,
        *,
        marked: bool = True,
    ) -> tuple[str, ...]:
        """Make jobs READY whose series are complete, or SKIPPED when ``unwanted`` gives a reason; ids of those now READY.

        A series of a reader's marks is SKIPPED; with ``marked``, what they are of gets a new revision where it was analysed before.
        """
        moment = now or _now()
        with self._engine.connect() as connection:
            waiting = series_rows.candidates(connection)
        return tuple(
            job_id
            for job_id, series_uid in waiting
            if self._complete(job_id, series_uid, completion, unwanted, moment, marked=marked)
        )

    def _complete(
        self,
        job_id: str,
        series_uid: str,
        completion: Completion,
        unwanted: Callable[[SeriesFacts], str | None],
        now: datetime,
        *,
        marked: bool,
    ) -> bool:
        with self._writer.begin() as connection:
            of = mark_rows.lock(connection, series_uid)
            facts = series_rows.is_complete(
                connection,
                series_uid,
                now,
                count=completion.announced_count,
                grace=timedelta(seconds=completion.association_grace),
                quiet=timedelta(seconds=completion.quiet),
            )
            if facts is None:
                return False
            reason = series_rows.revise(connection, series_uid, of, now, used=marked) if of else unwanted(facts)
            if reason is not None:
                move(connection, job_id, JobState.RECEIVING, JobState.SKIPPED, reason=reason[:MAX_TEXT], finished_at=now)
                return False
            return move(connection, job_id, JobState.RECEIVING, JobState.READY, due_at=now + overdue.REQUEUE_AFTER, enqueues=1)

    # -- analysis ----------------------------------------------------------------------------------------------------

    def claim(
        self,
        job_id: str,
        lease: timedelta,
        max_attempts: int,
        now: datetime | None = None,
        *,
        bundle_digest: str,
        settings_digest: str,
        marked: bool = True,
    ) -> Claim | None:
        """Take a READY job, or a RUNNING one whose lease has ended; None when there is nothing to take.

        A job that ended its worker ``max_attempts`` times becomes FAILED instead. ``marked`` takes a reader's marks along. With the same input, bundle and settings as
        an earlier job of the series, the claim carries that job's moment and revision, so that the objects are byte-identical.
        """
        with self._writer.begin() as connection:
            return claims.take(
                connection,
                job_id,
                lease,
                max_attempts,
                now or _now(),
                bundle=bundle_digest,
                settings=settings_digest,
                marked=marked,
            )

    def identify(self, claim: Claim, input_digest: str) -> Claim | None:
        """Say what else than bundle and settings the report is a function of, now that it is known: its moment, revision and predecessor follow.

        Args:
            claim: of a running job.
            input_digest: sha256 (hex) over the claim's own, the earlier report that is compared with, and the device.

        Returns:
            The claim as it is now; None when the job is no longer this attempt's.
        """
        with self._writer.begin() as connection:
            return claims.identify(connection, claim, input_digest)

    def renew(self, job_id: str, lease: timedelta, attempt: int, now: datetime | None = None) -> bool:
        """Prolong the lease of a running job; False when the job is no longer this attempt's."""
        until = (now or _now()) + lease
        with self._writer.begin() as connection:
            return move(
                connection, job_id, JobState.RUNNING, JobState.RUNNING, Job.attempts == attempt, lease_until=until, due_at=until
            )

    def analysed(
        self,
        job_id: str,
        attempt: int,
        results: Sequence[ResultRow],
        destinations: Mapping[str, Collection[str]],
        not_analysed: str | None = None,
        now: datetime | None = None,
    ) -> bool:
        """Record the results of a running job together with its deliveries; False when the job is no longer this attempt's.

        ``destinations`` names each destination with the object roles it wants; without any, the job ends at once. With
        ``not_analysed``, the results only say that, and why, the series cannot be analysed: the job ends FAILED with this reason
        when they are delivered.
        """
        moment = now or _now()
        reason = None if not_analysed is None else not_analysed[:MAX_TEXT]
        with self._writer.begin() as connection:
            moved = move(
                connection,
                job_id,
                JobState.RUNNING,
                JobState.ANALYSED,
                Job.attempts == attempt,
                not_analysed=reason,
                lease_until=None,
                due_at=None,
            )
            if moved and not delivery_rows.put(connection, job_id, results, destinations, moment):
                finish(connection, job_id, moment)
            return moved

    def fail(self, job_id: str, attempt: int, reason: str, now: datetime | None = None) -> bool:
        """End a running job with a reason that a person can act on; False when it is no longer this attempt's."""
        with self._writer.begin() as connection:
            return move(
                connection,
                job_id,
                JobState.RUNNING,
                JobState.FAILED,
                Job.attempts == attempt,
                reason=reason[:MAX_TEXT],
                finished_at=now or _now(),
                lease_until=None,
                due_at=None,
            )

    def postpone(self, job_id: str, attempt: int, until: datetime) -> bool:
        """Put a running job back (the model, the spool or the memory is not there just now); the sweep enqueues it then."""
        with self._writer.begin() as connection:
            return move(
                connection, job_id, JobState.RUNNING, JobState.READY, Job.attempts == attempt, lease_until=None, due_at=until
            )

    def lost(self, now: datetime | None = None, *, queued: Callable[[], Collection[str]] = frozenset) -> tuple[str, ...]:
        """Ids of jobs to enqueue: RUNNING with an ended lease, put off until now, or READY and not taken by anybody; oldest first.

        Each is given out once for each time it becomes due, even when several processes ask; and after that not again while it is
        among ``queued``, the ids on the broker's queue, which is asked only when that matters.
        """
        return overdue.jobs(self._engine, self._writer, queued, now or _now())

    # -- delivery ----------------------------------------------------------------------------------------------------

    def due_deliveries(
        self, now: datetime | None = None, *, queued: Callable[[], Collection[str]] = frozenset
    ) -> tuple[str, ...]:
        """Ids of deliveries to enqueue: the oldest that is due for each destination. Whoever takes it makes all that are due there.

        Each is given out once for each time it becomes due; and after that not again while anything for its destination is among
        ``queued``, as for `lost`.
        """
        return overdue.deliveries(self._engine, self._writer, queued, now or _now())

    def destination_of(self, delivery_id: str) -> str | None:
        """Name of the destination of a delivery; None when there is no such delivery."""
        with self._engine.connect() as connection:
            query = select(Delivery.destination).where(Delivery.delivery_id == delivery_id)
            return connection.execute(query).scalar_one_or_none()

    def claim_delivery(
        self, delivery_id: str, lease: timedelta, now: datetime | None = None, *, early: bool = False
    ) -> DeliveryClaim | None:
        """Take the oldest delivery of the same destination that is due; with ``early`` the oldest of all, if this one is due."""
        with self._writer.begin() as connection:
            return delivery_rows.claim(connection, delivery_id, lease, now or _now(), early=early)

    def move_deliveries(self, destination: str, at: datetime) -> None:
        """Let all that waits for a destination wait until one moment, and then go in the order of its age."""
        with self._writer.begin() as connection:
            delivery_rows.move(connection, destination, at)

    def delivered(self, delivery_id: str, now: datetime | None = None) -> bool:
        """Note that the destination has every object; the last delivery of a job ends the job."""
        moment = now or _now()
        with self._writer.begin() as connection:
            return delivery_rows.complete(connection, delivery_id, {"sent_at": moment}, moment)

    def deferred(self, delivery_id: str, error: str, next_attempt_at: datetime, *, counts: bool = True) -> bool:
        """Note that the destination could not be reached now; the sweep enqueues the delivery at ``next_attempt_at``."""
        values: dict[str, object] = {
            "last_error": error[:MAX_TEXT],
            "next_attempt_at": next_attempt_at,
            "due_at": next_attempt_at,
            "attempts": Delivery.attempts - int(not counts),
        }
        with self._writer.begin() as connection:
            return delivery_rows.settle(connection, delivery_id, values) is not None

    def refused(self, delivery_id: str, error: str, now: datetime | None = None) -> bool:
        """Note that the destination will never take it: the job is FAILED until a person retries it; others are still served."""
        with self._writer.begin() as connection:
            return delivery_rows.refuse(connection, delivery_id, error[:MAX_TEXT], now or _now())

    def put_right(self, waits: Mapping[str, timedelta], now: datetime | None = None) -> int:
        """After the clock was set back, let nothing wait for the old time; how much did.

        ``waits`` says how long a delivery waits at most for its next try, by destination.
        """
        with self._writer.begin() as connection:
            return clock_repair.put_right(connection, now or _now(), overdue.REQUEUE_AFTER, waits)

    # -- people ------------------------------------------------------------------------------------------------------

    def retry(self, job_id: str, now: datetime | None = None) -> JobState:
        """Run an ended job again, as little of it as is needed; its new state.

        Failed deliveries are made again; a delivered job sends the same bytes again; everything else is analysed again: in a revision of its
        own where results were made before, because these are sent and cannot be changed. A job that is still on its way is only hurried.
        Works while everything runs.

        Raises:
            JobNotFound: no job has that id.
            JobConflict: its images are no longer kept.
        """
        moment = now or _now()
        with self._writer.begin() as connection:
            job = connection.execute(
                select(Job.state, Job.purged_at).where(Job.job_id == job_id).with_for_update()
            ).one_or_none()
            if job is None:
                raise JobNotFound(f"no job {job_id}")
            if job.purged_at is not None:
                raise JobConflict("the images of this job are no longer kept; send the series again")
            return operator_actions.again(connection, job_id, JobState(job.state), moment)

    def anew(self, job_id: str, now: datetime | None = None) -> str:
        """Open a revision that analyses the series of an ended job again, whatever was delivered; the id of the newest job now.

        Its report names the one that it replaces.

        Raises:
            JobNotFound: no job has that id.
            JobConflict: its images are no longer kept.
        """
        with self._writer.begin() as connection:
            return operator_actions.anew(connection, job_id, now or _now())

    def cancel(self, job_id: str, who: str, now: datetime | None = None) -> None:
        """End a job that is on its way; what is being analysed or sent just now counts no more. It can be retried.

        Raises:
            JobNotFound: no job has that id.
            JobConflict: it is at its end already, or its series is still being received.
        """
        with self._writer.begin() as connection:
            state = connection.execute(select(Job.state).where(Job.job_id == job_id).with_for_update()).scalar_one_or_none()
            if state is None:
                raise JobNotFound(f"no job {job_id}")
            operator_actions.cancel(connection, job_id, JobState(state), f"cancelled by {who}", now or _now())

    def get(self, job_id: str) -> JobStatus:
        """One job with its deliveries.

        Raises:
            JobNotFound: no job has that id.
        """
        found = self._read(Job.job_id == job_id, 1)
        if not found:
            raise JobNotFound(f"no job {job_id}")
        return found[0]

    def results(self, job_id: str) -> tuple[ResultRow, ...]:
        """Result objects of a job in the order of the report."""
        with self._engine.connect() as connection:
            return delivery_rows.files(connection, job_id)

    def counts(self) -> dict[JobState, int]:
        """How many jobs are in each state."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(Job.state, func.count()).group_by(Job.state)).all()
        return {JobState(state): count for state, count in rows}

    def purge(
        self,
        delivered_before: datetime,
        failed_before: datetime,
        delete: Callable[[tuple[str, ...]], None],
        now: datetime | None = None,
        enough: Callable[[], bool] = lambda: False,
        told: Callable[[str, int], None] = lambda _study, _files: None,
    ) -> int:
        """Forget the bytes of series whose jobs ended before these times, the first to end first, until ``enough``; how many.

        ``delete`` gets the paths of one series at a time and must not mind files that are gone already; ``told`` gets the study and how
        many files there were, when they are gone.
        """
        with self._engine.connect() as connection:
            old = expiry.expired(connection, delivered_before, failed_before)
        purged = 0
        for series_uid in old:
            if enough():
                break
            with self._writer.begin() as connection:
                paths = expiry.forget(connection, series_uid, delivered_before, failed_before, now or _now())
                delete(paths)
                study_uid = connection.execute(select(Job.study_uid).where(Job.series_uid == series_uid).limit(1)).scalar_one()
            if paths:
                purged += 1
                told(study_uid, len(paths))
        return purged

    def list(self, state: JobState | None = None, limit: int = 1000) -> tuple[JobStatus, ...]:
        """Newest jobs first."""
        return self._read(Job.state.is_not(None) if state is None else Job.state == state, limit)

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
            sent = delivery_rows.of_jobs(connection, [row["job_id"] for row in rows])
        names = [name for name in JobStatus.__dataclass_fields__ if name not in {"state", "deliveries"}]
        return tuple(
            JobStatus(
                **{name: row[name] for name in names},
                state=JobState(row["state"]),
                deliveries=tuple(sent.get(row["job_id"], ())),
            )
            for row in rows
        )
