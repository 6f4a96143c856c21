"""The identity of a job's report: its time and revision, and the earlier objects that it replaces.

A job with the same input, model bundle and settings as an earlier job of the series takes the identity of that job, so that its result
objects have the same UIDs and the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import and_, func, select

from alnnode.db.tables import Job, Result
from alnnode.records import ObjectRole, ResultReference

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Connection, RowMapping

    from alnnode.db.rows import Predecessor


class Digests(NamedTuple):
    """Hex sha256 of all that determines a result: the input, the model bundle, and the settings that change a result."""

    input: str
    bundle: str
    settings: str


class ReportIdentity(NamedTuple):
    """The fields of `alnnode.db.rows.Claim` that follow from the digests; documented there."""

    created: datetime
    revision: int
    predecessor: Predecessor | None
    superseded: tuple[ResultReference, ...]


def report_identity(connection: Connection, job: RowMapping, digests: Digests) -> ReportIdentity:
    """Return the identity of the first job with these digests, if its report is still the newest; else that of this job."""
    same = _same_job(connection, job["series_uid"], job["revision"], digests)
    created, revision = (job["created_at"], job["revision"]) if same is None else (same["content_at"], same["revision"])
    replaced = and_(Job.series_uid == job["series_uid"], Job.revision < revision, ~_has(digests))
    return ReportIdentity(created, revision, _predecessor(connection, replaced), _superseded(connection, replaced))


def _has_report() -> ColumnElement[bool]:
    return select(Result.job_id).where(Result.job_id == Job.job_id, Result.role == ObjectRole.SR).exists()


def _has(digests: Digests) -> ColumnElement[bool]:
    return and_(Job.input_digest == digests.input, Job.bundle_digest == digests.bundle, Job.settings_digest == digests.settings)


def _same_job(connection: Connection, series_uid: str, revision: int, digests: Digests) -> RowMapping | None:
    """Return the first earlier job with these digests that no report with other digests has replaced; None without one."""
    earlier = and_(Job.series_uid == series_uid, Job.revision < revision, _has_report())
    other = select(func.coalesce(func.max(Job.revision), 0)).where(earlier, ~_has(digests)).scalar_subquery()
    query = select(Job.__table__).where(earlier, _has(digests), Job.revision > other)
    return connection.execute(query.order_by(Job.revision).limit(1)).mappings().one_or_none()


def _superseded(connection: Connection, replaced: ColumnElement[bool]) -> tuple[ResultReference, ...]:
    """Return all results of the replaced jobs, each once, the oldest first; without rejection notes."""
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
    """Return the newest report of the replaced jobs."""
    query = (
        select(Result.sop_class_uid, Result.sop_instance_uid, Result.series_instance_uid, Result.study_instance_uid)
        .join(Job, Job.job_id == Result.job_id)
        .where(replaced, Result.role == ObjectRole.SR)
        .order_by(Job.revision.desc(), Result.position)
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else (row[0], row[1], row[2], row[3])
