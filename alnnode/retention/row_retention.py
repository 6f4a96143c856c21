"""Deletion of the rows of series whose files were deleted long ago: series, jobs, results, deliveries and their commitment requests.

All rows of a series are deleted together, in one transaction. So a row that another row needs is never deleted:

- The reports of a series name their predecessors, and an analysis with the same input takes the identity of the earlier one
  (`alnnode.analyse.report_identity`). Both read the results of earlier revisions of the same series. As long as one revision of a series
  has files or has not ended, no row of the series is deleted.
- A storage commitment request of a sender is answered from the rows of instances, which exist exactly as long as the files. A series with
  instances is not deleted.
- The answer to a storage commitment request of the node needs the delivery. A series with an open delivery is not deleted.
- A workitem that exists needs the job that performs it. When the workitem was deleted, only its reference to the job is removed.

The store of prior reports (`alnnode.priors.prior_store`) holds files, not rows; `[retention] follow_up_days` alone ends it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, exists, func, or_, select, update

from alnnode.db.engine import for_writing
from alnnode.db.progress_tables import JobStepRow
from alnnode.db.series_jobs import lock_jobs
from alnnode.db.tables import Delivery, Instance, Job, MarkOf, Result, Series, Transaction
from alnnode.db.worklist_tables import WorkitemRow
from alnnode.deliver.delivery_rows import OPEN

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Connection, Engine


BATCH = 1000  # series in one call, because the sweep must not wait for years of rows; the next call continues


class RowRetention:
    """Deletes rows of series without files. Safe to share between threads and processes."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._writer = engine, for_writing(engine)

    def delete_expired(self, files_deleted_before: datetime) -> int:
        """Delete the rows of at most `BATCH` series whose files were all deleted before this time; return the number of series."""
        expired = _is_expired(files_deleted_before)
        oldest = select(func.min(Job.purged_at)).where(Job.series_uid == Series.series_uid).scalar_subquery()
        with self._engine.connect() as connection:
            query = select(Series.series_uid).where(*expired).order_by(oldest).limit(BATCH)
            found = connection.execute(query).scalars().all()
        deleted = 0
        for series_uid in found:
            with self._writer.begin() as connection:
                # The lock comes first: an instance that is received now is then recorded in a new row of the series, or the series stays.
                locked = select(Series.series_uid).where(Series.series_uid == series_uid).with_for_update()
                if connection.execute(locked).first() is None:
                    continue
                lock_jobs(connection, Job.series_uid == series_uid)
                if connection.execute(select(Series.series_uid).where(Series.series_uid == series_uid, *expired)).first():
                    _delete_series(connection, series_uid)
                    deleted += 1
        return deleted


def _is_expired(files_deleted_before: datetime) -> tuple[ColumnElement[bool], ...]:
    """Conditions on a row of the series table."""
    of_series = Job.series_uid == Series.series_uid
    open_delivery = exists().where(Delivery.job_id == Job.job_id, Delivery.state.in_(OPEN))
    workitem = exists().where(WorkitemRow.job_id == Job.job_id, WorkitemRow.document.is_not(None))
    needed = or_(Job.purged_at.is_(None), Job.purged_at >= files_deleted_before, open_delivery, workitem)
    return (
        ~exists().where(of_series, needed),
        ~exists().where(Instance.series_uid == Series.series_uid),
    )


def _delete_series(connection: Connection, series_uid: str) -> None:
    jobs = select(Job.job_id).where(Job.series_uid == series_uid)
    deliveries = select(Delivery.delivery_id).where(Delivery.job_id.in_(jobs))
    connection.execute(delete(Transaction).where(Transaction.delivery_id.in_(deliveries)))
    for table in (Delivery, Result, JobStepRow):
        connection.execute(delete(table).where(table.job_id.in_(jobs)))
    connection.execute(update(WorkitemRow).where(WorkitemRow.job_id.in_(jobs)).values(job_id=None))
    connection.execute(
        delete(Job).where(Job.series_uid == series_uid)
    )  # in one statement, because jobs name their predecessors
    # Marks that were used in a later revision apply to the first revision of a series that is received again.
    applied = (MarkOf.series_uid == series_uid, MarkOf.revision.is_not(None))
    connection.execute(update(MarkOf).where(*applied).values(revision=0))
    connection.execute(delete(Series).where(Series.series_uid == series_uid))
