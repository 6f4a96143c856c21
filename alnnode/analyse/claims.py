"""READY to RUNNING: who runs a job, on what, and what its report replaces."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import and_, func, select, update

from alnnode.analyse import mark_rows
from alnnode.db.rows import Claim
from alnnode.db.tables import Instance, Job, Result
from alnnode.records import JobState, ObjectRole, ResultReference

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime, timedelta

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Connection, RowMapping

    from alnnode.db.rows import Predecessor


class Digests(NamedTuple):
    """What a result is a function of: hex sha256 of the input, the model bundle, and the settings that change a result."""

    input: str
    bundle: str
    settings: str


def digest_of(digests: Iterable[str]) -> str:
    """sha256 (hex) over sorted hex digests: the identity of a set of instances, whatever order they came in."""
    return hashlib.sha256("\n".join(sorted(digests)).encode("ascii")).hexdigest()


def take(
    connection: Connection,
    job_id: str,
    lease: timedelta,
    max_attempts: int,
    now: datetime,
    *,
    bundle: str,
    settings: str,
    marked: bool,
) -> Claim | None:
    """See `alnnode.analyse.jobs.Jobs.claim`."""
    free = (Job.state == JobState.READY) | and_(Job.state == JobState.RUNNING, Job.lease_until <= now)
    job = connection.execute(select(Job.__table__).where(Job.job_id == job_id, free).with_for_update()).mappings().one_or_none()
    if job is None:
        return None
    if job["attempts"] >= max_attempts:
        reason = f"the analysis ended its worker {job['attempts']} times"
        connection.execute(
            update(Job)
            .where(Job.job_id == job_id, free)
            .values(state=JobState.FAILED, reason=reason, finished_at=now, lease_until=None, due_at=None)
        )
        return None
    inputs = connection.execute(
        select(Instance.path, Instance.sha256)
        .where(Instance.series_uid == job["series_uid"], Instance.revision <= job["revision"])
        .order_by(Instance.sop_instance_uid)
    ).all()
    extra = mark_rows.of_job(connection, job["series_uid"], job["revision"]) if marked else []
    digests = Digests(digest_of(digest for _, digest in (*inputs, *extra)), bundle, settings)
    identity = _identity(connection, job, digests)
    connection.execute(
        update(Job)
        .where(Job.job_id == job_id, free)
        .values(
            state=JobState.RUNNING,
            attempts=job["attempts"] + 1,
            claimed_at=now,
            lease_until=now + lease,
            due_at=now + lease,
            enqueues=0,
            input_digest=digests.input,
            bundle_digest=bundle,
            settings_digest=settings,
            content_at=identity.created,
            reason=None,
        )
    )
    return Claim(
        job_id=job_id,
        study_uid=job["study_uid"],
        series_uid=job["series_uid"],
        attempt=job["attempts"] + 1,
        paths=tuple(path for path, _ in inputs),
        input_digest=digests.input,
        created=identity.created,
        revision=identity.revision,
        predecessor=identity.predecessor,
        superseded=identity.superseded,
        marks=tuple(path for path, _ in extra),
    )


def identify(connection: Connection, claim: Claim, input_digest: str) -> Claim | None:
    """See `alnnode.analyse.jobs.Jobs.identify`."""
    held = and_(Job.job_id == claim.job_id, Job.state == JobState.RUNNING, Job.attempts == claim.attempt)
    job = connection.execute(select(Job.__table__).where(held).with_for_update()).mappings().one_or_none()
    if job is None:
        return None
    identity = _identity(connection, job, Digests(input_digest, job["bundle_digest"], job["settings_digest"]))
    connection.execute(update(Job).where(held).values(input_digest=input_digest, content_at=identity.created))
    return replace(claim, input_digest=input_digest, **identity._asdict())


class _Identity(NamedTuple):
    created: datetime
    revision: int
    predecessor: Predecessor | None
    superseded: tuple[ResultReference, ...]


def _identity(connection: Connection, job: RowMapping, digests: Digests) -> _Identity:
    """Return what a report says of itself: as the first job with these digests said it, else as this job's own."""
    same = _same_job(connection, job["series_uid"], job["revision"], digests)
    created, revision = (job["created_at"], job["revision"]) if same is None else (same["content_at"], same["revision"])
    replaced = and_(Job.series_uid == job["series_uid"], Job.revision < revision, ~_is(digests))
    return _Identity(created, revision, _predecessor(connection, replaced), _superseded(connection, replaced))


def _has_report() -> ColumnElement[bool]:
    return select(Result.job_id).where(Result.job_id == Job.job_id, Result.role == ObjectRole.SR).exists()


def _is(digests: Digests) -> ColumnElement[bool]:
    return and_(Job.input_digest == digests.input, Job.bundle_digest == digests.bundle, Job.settings_digest == digests.settings)


def _same_job(connection: Connection, series_uid: str, revision: int, digests: Digests) -> RowMapping | None:
    """Return the first job whose report the new one must give again, in the same bytes under the same UIDs; None where there is none.

    That is one with the same digests, unless another report has replaced it since.
    """
    earlier = and_(Job.series_uid == series_uid, Job.revision < revision, _has_report())
    other = select(func.coalesce(func.max(Job.revision), 0)).where(earlier, ~_is(digests)).scalar_subquery()
    query = select(Job.__table__).where(earlier, _is(digests), Job.revision > other)
    return connection.execute(query.order_by(Job.revision).limit(1)).mappings().one_or_none()


def _superseded(connection: Connection, replaced: ColumnElement[bool]) -> tuple[ResultReference, ...]:
    """Return all results of the jobs that a report replaces, each once, the oldest first; not the notes that withdrew others."""
    query = (
        select(
            Result.role, Result.sop_class_uid, Result.sop_instance_uid, Result.series_instance_uid, Result.study_instance_uid
        )
        .join(Job, Job.job_id == Result.job_id)
        .where(replaced, Result.role != ObjectRole.REJECTION)
        .order_by(Job.revision, Result.position)
    )
    rows = connection.execute(query).all()
    return tuple({row.sop_instance_uid: ResultReference(ObjectRole(row.role), *row[1:]) for row in rows}.values())


def _predecessor(connection: Connection, replaced: ColumnElement[bool]) -> Predecessor | None:
    """Return the newest report that a report replaces: of the same series, and not this very one."""
    query = (
        select(Result.sop_class_uid, Result.sop_instance_uid, Result.series_instance_uid, Result.study_instance_uid)
        .join(Job, Job.job_id == Result.job_id)
        .where(replaced, Result.role == ObjectRole.SR)
        .order_by(Job.revision.desc(), Result.position)
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else (row[0], row[1], row[2], row[3])
