"""Instances into series, series into jobs: the part of the state machine before READY.

Everything that decides by what a series holds locks the series' row first. SQLite has one writer at a time anyway.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING
from uuid import uuid4

from sqlalchemy import case, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from alnnode.analyse import mark_rows
from alnnode.db.clock_repair import AHEAD
from alnnode.db.rows import Recorded, SeriesFacts
from alnnode.db.tables import Instance, Job, MarkOf, Series
from alnnode.records import JobState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime, timedelta

    from sqlalchemy.engine import Connection, RowMapping

    from alnnode.db.rows import NewInstance

# Until a worker has taken it, a late slice simply rejoins its job; later it needs a new revision.
_REOPENED = (JobState.READY, JobState.SKIPPED)


def lock_series(connection: Connection, series_uid: str) -> RowMapping:
    """Read the series' row and keep every other writer of this series waiting until the transaction ends."""
    return (
        connection.execute(select(Series.__table__).where(Series.series_uid == series_uid).with_for_update()).mappings().one()
    )


def record(connection: Connection, batch: Sequence[NewInstance]) -> tuple[Recorded, ...]:
    """Insert what is new and open or reopen its jobs; see `alnnode.analyse.jobs.Jobs.record_instances`."""
    outcome: dict[int, Recorded] = {}
    order = sorted(range(len(batch)), key=lambda n: (batch[n].series_uid, n))  # one order of locks in all processes
    for series_uid, group in groupby(order, key=lambda n: batch[n].series_uid):
        numbers = list(group)
        _ensure_series(connection, batch[numbers[0]])
        lock_series(connection, series_uid)
        outcome |= _record_series(connection, {n: batch[n] for n in numbers})
    return tuple(outcome[n] for n in range(len(batch)))


def _ensure_series(connection: Connection, first: NewInstance) -> None:
    facts = first.facts
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    connection.execute(
        dialect.insert(Series)
        .values(
            series_uid=first.series_uid,
            study_uid=first.study_uid,
            calling_ae=facts.calling_ae,
            modality=facts.modality,
            body_part=facts.body_part,
            series_description=facts.series_description,
            study_description=facts.study_description,
            kernel=facts.kernel,
            slice_thickness=facts.slice_thickness,
            announced=facts.announced,
            last_received_at=first.received_at,
        )
        .on_conflict_do_nothing()
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
    mark_rows.note(connection, fresh)
    announced = [instance.facts.announced for instance in fresh if instance.facts.announced]
    changed: dict[str, object] = {"last_received_at": max(instance.received_at for instance in fresh)}
    if announced:
        changed["announced"] = max(announced)
    connection.execute(update(Series).where(Series.series_uid == fresh[0].series_uid).values(changed))


def _receiving_revision(connection: Connection, instance: NewInstance) -> int:
    """Return the revision that is being received, after opening or reopening it where needed."""
    # Locked, so that no worker takes the job between this look and what follows from it, without this instance.
    latest = connection.execute(
        select(Job.job_id, Job.revision, Job.state, Job.purged_at)
        .where(Job.series_uid == instance.series_uid)
        .order_by(Job.revision.desc())
        .limit(1)
        .with_for_update()
    ).one_or_none()
    if latest is None:
        return open_job(
            connection, instance.series_uid, instance.study_uid, revision=1, predecessor_id=None, at=instance.received_at
        )
    if latest.state == JobState.RECEIVING:
        return int(latest.revision)
    if latest.state in _REOPENED and latest.purged_at is None:
        connection.execute(
            update(Job)
            .where(Job.job_id == latest.job_id, Job.state.in_(_REOPENED))
            .values(state=JobState.RECEIVING, reason=None, due_at=None, finished_at=None, enqueues=0)
        )
        return int(latest.revision)
    return open_job(
        connection,
        instance.series_uid,
        instance.study_uid,
        revision=latest.revision + 1,
        predecessor_id=latest.job_id,
        at=instance.received_at,
    )


def open_job(
    connection: Connection, series_uid: str, study_uid: str, *, revision: int, predecessor_id: str | None, at: datetime
) -> int:
    """Insert a RECEIVING job and return its revision."""
    connection.execute(
        insert(Job).values(
            job_id=uuid4().hex,
            series_uid=series_uid,
            study_uid=study_uid,
            revision=revision,
            predecessor_id=predecessor_id,
            state=JobState.RECEIVING,
            attempts=0,
            enqueues=0,
            created_at=at,
            content_at=at,
        )
    )
    return revision


def release(connection: Connection, series_uids: Iterable[str], at: datetime) -> None:
    """Note that an association which sent these series was released."""
    connection.execute(update(Series).where(Series.series_uid.in_(sorted(set(series_uids)))).values(released_at=at))


def candidates(connection: Connection) -> tuple[tuple[str, str], ...]:
    """Job id and series UID of every job that is being received and has no predecessor at work.

    A revision waits for its predecessor, so that its report can name the one that it replaces. Marks go first, so that images which
    came with them take them along.
    """
    marked = select(Instance.series_uid).join(MarkOf, MarkOf.sop_instance_uid == Instance.sop_instance_uid)
    earlier = select(Job.job_id).where(Job.state.in_((JobState.READY, JobState.RUNNING)))
    rows = connection.execute(
        select(Job.job_id, Job.series_uid)
        .where(Job.state == JobState.RECEIVING, Job.predecessor_id.is_(None) | Job.predecessor_id.not_in(earlier))
        .order_by(case((Job.series_uid.in_(marked), 0), else_=1), Job.created_at)
    )
    return tuple((job_id, series_uid) for job_id, series_uid in rows)


def is_complete(
    connection: Connection, series_uid: str, now: datetime, *, count: bool, grace: timedelta, quiet: timedelta
) -> SeriesFacts | None:
    """Return the facts of the series when it is complete (DESIGN section 4), else None."""
    series = lock_series(connection, series_uid)
    last, released, announced = series["last_received_at"], series["released_at"], series["announced"]
    if last > now + AHEAD:  # the clock was set back; it waits anew
        since = now if released is not None and released >= last else released
        connection.execute(
            update(Series).where(Series.series_uid == series_uid).values(last_received_at=now, released_at=since)
        )
        last, released = now, since
    complete = now - last >= quiet
    if count and announced:
        held = connection.execute(select(func.count()).where(Instance.series_uid == series_uid)).scalar_one()
        complete = complete or held >= announced
    elif released is not None and released >= last:
        complete = complete or now - released >= grace
    if not complete:
        return None
    return SeriesFacts(
        calling_ae=series["calling_ae"],
        modality=series["modality"],
        body_part=series["body_part"],
        series_description=series["series_description"],
        study_description=series["study_description"],
        kernel=series["kernel"],
        slice_thickness=series["slice_thickness"],
        announced=announced,
    )


def revise(connection: Connection, series_uid: str, of: Sequence[str], at: datetime, *, used: bool) -> str:
    """Open the revisions that a complete series of marks asks for, and return the words that its own job ends with."""
    wanted, reason = mark_rows.revise(connection, series_uid, of, used=used)
    for uid, study_uid, revision, predecessor_id in wanted:
        open_job(connection, uid, study_uid, revision=revision, predecessor_id=predecessor_id, at=at)
    return reason
