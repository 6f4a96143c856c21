"""Which received objects are marks on which series, and from which revision on.

An object of marks names the series that it is of when it is received. When its own series is complete, each of those gets a new
revision if it was analysed already; one that was not takes the marks along.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, delete, insert, select, update

from alnnode.db.tables import Instance, Job, MarkOf, Result, Series
from alnnode.records import JobState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import Connection

    from alnnode.db.rows import NewInstance

MAX_REFERENCES = 16  # series that one object can be of
# The claim reads the marks when the job begins: until then nothing need be opened again.
_TAKES_ALONG = (JobState.RECEIVING, JobState.READY, JobState.SKIPPED)
USED = "holds a reader's marks: they are used in the analysis of the images that they refer to"
NOT_HERE = "holds a reader's marks on images that are not here; they are used if those come"


def note(connection: Connection, fresh: Sequence[NewInstance]) -> None:
    """Note what new objects are marks of; results of this node that a PACS sends back are none."""
    marks = [instance for instance in fresh if instance.refers]
    if not marks:
        return
    uids = [instance.sop_instance_uid for instance in marks]
    own = set(connection.execute(select(Result.sop_instance_uid).where(Result.sop_instance_uid.in_(uids))).scalars())
    rows = [
        {"sop_instance_uid": instance.sop_instance_uid, "series_uid": uid, "revision": None}
        for instance in marks
        if instance.sop_instance_uid not in own
        for uid in instance.refers[:MAX_REFERENCES]
    ]
    if rows:
        connection.execute(insert(MarkOf), rows)


def lock(connection: Connection, series_uid: str) -> tuple[str, ...]:
    """Lock a series and all that its objects are marks of, in one order for every process; return the latter."""
    named = select(MarkOf.series_uid).join(Instance, Instance.sop_instance_uid == MarkOf.sop_instance_uid)
    of = tuple(sorted(set(connection.execute(named.where(Instance.series_uid == series_uid)).scalars())))
    if of:
        query = select(Series.series_uid).where(Series.series_uid.in_((series_uid, *of))).order_by(Series.series_uid)
        connection.execute(query.with_for_update()).all()
    return of


def revise(
    connection: Connection, series_uid: str, of: Sequence[str], *, used: bool
) -> tuple[list[tuple[str, str, int, str]], str]:
    """Say from which revision on the marks of a complete series count.

    Returns:
        What needs a new revision: (series UID, study UID, revision, id of the predecessor); and the words for the marks' own job.
    """
    wanted: list[tuple[str, str, int, str]] = []
    here = False
    for uid in of:
        # Locked, so that no worker takes the job between this look and what follows from it, without the marks.
        latest = connection.execute(
            select(Job.job_id, Job.study_uid, Job.revision, Job.state, Job.purged_at)
            .where(Job.series_uid == uid)
            .order_by(Job.revision.desc())
            .limit(1)
            .with_for_update()
        ).one_or_none()
        revision = 0 if latest is None else int(latest.revision)
        here = here or (latest is not None and latest.purged_at is None)
        fresh = select(Instance.sop_instance_uid).where(Instance.series_uid == series_uid)
        new = MarkOf.sop_instance_uid.in_(fresh) & (MarkOf.series_uid == uid) & MarkOf.revision.is_(None)
        if latest is not None and used and latest.purged_at is None and latest.state not in _TAKES_ALONG:
            if connection.execute(select(MarkOf.series_uid).where(new).limit(1)).first() is None:
                continue
            revision += 1
            wanted.append((uid, latest.study_uid, revision, latest.job_id))
        connection.execute(update(MarkOf).where(new).values(revision=revision))
    return wanted, USED if here else NOT_HERE


def of_job(connection: Connection, series_uid: str, revision: int) -> list[tuple[str, str]]:
    """Return path and sha256 of the marks that a revision of a series takes along."""
    query = (
        select(Instance.path, Instance.sha256)
        .join(MarkOf, MarkOf.sop_instance_uid == Instance.sop_instance_uid)
        .where(MarkOf.series_uid == series_uid, MarkOf.revision <= revision)
        .order_by(Instance.sop_instance_uid)
    )
    return [(path, digest) for path, digest in connection.execute(query)]


def needed() -> ColumnElement[bool]:
    """Jobs of series whose objects are marks of a series of images that is still kept.

    Marks on marks are used by nobody: a report that names its own series, or two that name each other, would be kept for ever.
    """
    marks = select(Instance.series_uid).join(MarkOf, MarkOf.sop_instance_uid == Instance.sop_instance_uid)
    kept = select(Job.series_uid).where(Job.purged_at.is_(None), Job.series_uid.not_in(marks))
    return Job.series_uid.in_(marks.where(MarkOf.series_uid.in_(kept)))


def forget(connection: Connection, series_uid: str) -> None:
    """Delete what is noted of the objects of a series, before they go themselves."""
    gone = select(Instance.sop_instance_uid).where(Instance.series_uid == series_uid)
    connection.execute(delete(MarkOf).where(MarkOf.sop_instance_uid.in_(gone)))
