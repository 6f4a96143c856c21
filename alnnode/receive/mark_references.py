"""Which received objects hold a reader's marks on which series, and from which revision on those marks are used.

The references of an object with marks are recorded when it is received. When the series of the marks is complete, each series of
images that was analysed before gets a new revision. A series that is still to be analysed uses the marks in its present revision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import insert, select, update

from alnnode.db.series_jobs import NewJob, by_uid, lock_jobs, open_job
from alnnode.db.tables import Instance, Job, MarkOf, Result, Series
from alnnode.records import JobState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy.engine import Connection

    from alnnode.db.rows import NewInstance

MAX_REFERENCES = 16  # series that one object can have marks on
# The claim reads the marks when the analysis begins: in these states no new revision is needed.
_NOT_CLAIMED = (JobState.RECEIVING, JobState.READY, JobState.SKIPPED)
USED = "holds marks: they are used in the analysis of the images that they refer to"
NOT_RECEIVED = "holds marks on images that were not received; they are used when the images are received"


def record(connection: Connection, fresh: Sequence[NewInstance]) -> None:
    """Record which series the marks of new objects refer to. Results of this node that a PACS sends back count as no marks."""
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


def lock_with_images(connection: Connection, series_uid: str) -> tuple[str, ...]:
    """Lock a series, all series that its marks refer to, and the jobs of all of them, in the order of `alnnode.db.series_jobs`.

    Returns:
        Series Instance UIDs of the latter, sorted; empty when the series holds no marks.
    """
    named = select(MarkOf.series_uid).join(Instance, Instance.sop_instance_uid == MarkOf.sop_instance_uid)
    images = tuple(sorted(set(connection.execute(named.where(Instance.series_uid == series_uid)).scalars())))
    if images:
        uids = (series_uid, *images)
        series = select(Series.series_uid).where(Series.series_uid.in_(uids)).order_by(by_uid(connection, Series.series_uid))
        connection.execute(series.with_for_update()).all()
        # No worker may claim a job of the images between `revise` and the end of the transaction, and so without the marks.
        lock_jobs(connection, Job.series_uid.in_(uids))
    return images


def revise(connection: Connection, series_uid: str, images: Sequence[str], at: datetime, *, used: bool) -> str:
    """Open a new revision of each series of images that was analysed without the marks of this complete series.

    Args:
        connection: inside a transaction that holds the locks of `lock_with_images`.
        series_uid: of the marks.
        images: Series Instance UIDs of the images that the marks refer to.
        at: the time at which the new revisions are opened.
        used: whether the settings let the analysis use marks.

    Returns:
        The reason with which the job of the marks' own series ends SKIPPED.
    """
    received = False
    for uid in images:
        latest = connection.execute(
            select(Job.job_id, Job.study_uid, Job.revision, Job.state, Job.purged_at)
            .where(Job.series_uid == uid)
            .order_by(Job.revision.desc())
            .limit(1)
        ).one_or_none()
        revision = 0 if latest is None else int(latest.revision)
        received = received or (latest is not None and latest.purged_at is None)
        fresh = select(Instance.sop_instance_uid).where(Instance.series_uid == series_uid)
        new = MarkOf.sop_instance_uid.in_(fresh) & (MarkOf.series_uid == uid) & MarkOf.revision.is_(None)
        if latest is not None and used and latest.purged_at is None and latest.state not in _NOT_CLAIMED:
            if connection.execute(select(MarkOf.series_uid).where(new).limit(1)).first() is None:
                continue
            revision += 1
            open_job(connection, NewJob(uid, latest.study_uid, revision, latest.job_id), at)
        connection.execute(update(MarkOf).where(new).values(revision=revision))
    return USED if received else NOT_RECEIVED
