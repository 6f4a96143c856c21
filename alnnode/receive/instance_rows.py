"""Rows of received instances: each new instance joins the RECEIVING job of its series, or opens or reopens one."""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING

from sqlalchemy import insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from alnnode.db.rows import Recorded
from alnnode.db.series_jobs import NewJob, lock_series, open_job
from alnnode.db.tables import Instance, Job, Series
from alnnode.db.transitions import change_state
from alnnode.receive import mark_references
from alnnode.records import JobState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import Connection

    from alnnode.db.rows import NewInstance

# Before a worker claims the job, a late instance joins it; later it needs a new revision.
_REOPENED = (JobState.READY, JobState.SKIPPED)


def record(connection: Connection, batch: Sequence[NewInstance]) -> tuple[Recorded, ...]:
    """Insert the new instances and open or reopen their jobs; see `alnnode.receive.received_series.ReceivedSeries.record_instances`."""
    outcome: dict[int, Recorded] = {}
    order = sorted(range(len(batch)), key=lambda n: (batch[n].series_uid, n))  # all processes lock series in the same order
    for series_uid, group in groupby(order, key=lambda n: batch[n].series_uid):
        numbers = list(group)
        _ensure_series(connection, batch[numbers[0]])
        lock_series(connection, series_uid)
        outcome |= _record_series(connection, {n: batch[n] for n in numbers})
    return tuple(outcome[n] for n in range(len(batch)))


def _ensure_series(connection: Connection, first: NewInstance) -> None:
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    connection.execute(
        dialect.insert(Series)
        .values(
            series_uid=first.series_uid,
            study_uid=first.study_uid,
            last_received_at=first.received_at,
            **asdict(first.facts),
        )
        # Unlike "do nothing", this locks an existing row: the retention cannot delete it before the next statement.
        .on_conflict_do_update(index_elements=["series_uid"], set_={"calling_ae": Series.calling_ae})
    )


def _record_series(connection: Connection, batch: dict[int, NewInstance]) -> dict[int, Recorded]:
    known = _digests(connection, [instance.sop_instance_uid for instance in batch.values()])
    outcome: dict[int, Recorded] = {}
    fresh: list[NewInstance] = []
    for number, instance in batch.items():
        before = known.get(instance.sop_instance_uid)
        if before is None:
            known[instance.sop_instance_uid] = instance.sha256
            outcome[number] = Recorded.NEW
            fresh.append(instance)
        else:
            outcome[number] = Recorded.SAME if before == instance.sha256 else Recorded.CONFLICT
    if fresh:
        _insert(connection, fresh)
    return outcome


def _digests(connection: Connection, uids: Sequence[str]) -> dict[str, str]:
    rows = connection.execute(select(Instance.sop_instance_uid, Instance.sha256).where(Instance.sop_instance_uid.in_(uids)))
    return {uid: str(digest) for uid, digest in rows}


def _insert(connection: Connection, fresh: list[NewInstance]) -> None:
    revision = _receiving_revision(connection, fresh[0])
    connection.execute(
        insert(Instance),
        [
            {
                "sop_instance_uid": instance.sop_instance_uid,
                "series_uid": instance.series_uid,
                "sop_class_uid": instance.sop_class_uid,
                "transfer_syntax_uid": instance.transfer_syntax_uid,
                "path": instance.path,
                "sha256": instance.sha256,
                "size": instance.size,
                "calling_ae": instance.facts.calling_ae,
                "received_at": instance.received_at,
                "revision": revision,
            }
            for instance in fresh
        ],
    )
    mark_references.record(connection, fresh)
    announced = [instance.facts.announced for instance in fresh if instance.facts.announced]
    changed: dict[str, object] = {"last_received_at": max(instance.received_at for instance in fresh)}
    if announced:
        changed["announced"] = max(announced)
    connection.execute(update(Series).where(Series.series_uid == fresh[0].series_uid).values(changed))


def _receiving_revision(connection: Connection, instance: NewInstance) -> int:
    """Return the revision of the RECEIVING job of the series, after opening or reopening a job if necessary."""
    # The row is locked, so that no worker claims the job between this query and the insertion of the instance, and so without it.
    latest = connection.execute(
        select(Job.job_id, Job.revision, Job.state, Job.purged_at)
        .where(Job.series_uid == instance.series_uid)
        .order_by(Job.revision.desc())
        .limit(1)
        .with_for_update()
    ).one_or_none()
    if latest is not None and latest.state == JobState.RECEIVING:
        return int(latest.revision)
    if latest is not None and latest.state in _REOPENED and latest.purged_at is None:
        # A route, or a person, has selected a READY job: see `alnnode.receive.series_completion.is_selected`.
        selected_at = instance.received_at if latest.state == JobState.READY else None
        waiting = {"reason": None, "due_at": selected_at, "finished_at": None, "enqueues": 0}
        change_state(connection, latest.job_id, JobState(latest.state), JobState.RECEIVING, **waiting)
        return int(latest.revision)
    if latest is not None and latest.purged_at is not None:  # the series is received anew, and its sender may have corrected it
        facts = asdict(instance.facts)
        connection.execute(update(Series).where(Series.series_uid == instance.series_uid).values(facts))
    revision, predecessor = (1, None) if latest is None else (int(latest.revision) + 1, latest.job_id)
    open_job(connection, NewJob(instance.series_uid, instance.study_uid, revision, predecessor), instance.received_at)
    return revision
