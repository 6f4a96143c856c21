"""The series lock and the insertion of a job: what receiving, analysing and retention share.

Whoever decides by the instances or jobs of a series locks the row of the series first. SQLite has one writer at a time anyway.

No transaction of PostgreSQL may wait for another one in a circle. So all lock rows in this order: a series before its jobs; of several
series, and of the jobs of several series, by UID (`by_uid`) and revision; a job before its deliveries. A worker may lock a job without its
series, and then locks no other row of these tables except the deliveries of the job.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

from sqlalchemy import insert, select

from alnnode.db.tables import Job, Series
from alnnode.records import JobState

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Connection, RowMapping
    from sqlalchemy.orm import InstrumentedAttribute


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job of a revision of a series; ``predecessor_id`` is the job of the revision before, None for the first."""

    series_uid: str
    study_uid: str
    revision: int
    predecessor_id: str | None


def by_uid(connection: Connection, column: InstrumentedAttribute[str]) -> ColumnElement[str]:
    """Return what to sort UIDs by in the database, so that the order is Python's: the collation of the database may have another one."""
    return column.collate("C") if connection.dialect.name == "postgresql" else column.expression


def lock_series(connection: Connection, series_uid: str) -> RowMapping:
    """Return the row of a series; every other writer of this series waits until the transaction ends."""
    return (
        connection.execute(select(Series.__table__).where(Series.series_uid == series_uid).with_for_update()).mappings().one()
    )


def lock_jobs(connection: Connection, which: ColumnElement[bool]) -> None:
    """Lock jobs; the caller has locked no job before, or only these."""
    jobs = select(Job.job_id).where(which).order_by(by_uid(connection, Job.series_uid), Job.revision)
    connection.execute(jobs.with_for_update()).all()


def open_job(connection: Connection, job: NewJob, at: datetime) -> str:
    """Insert a RECEIVING job and return its id."""
    job_id = uuid4().hex
    connection.execute(
        insert(Job).values(
            job_id=job_id,
            series_uid=job.series_uid,
            study_uid=job.study_uid,
            revision=job.revision,
            predecessor_id=job.predecessor_id,
            state=JobState.RECEIVING,
            attempts=0,
            enqueues=0,
            created_at=at,
            content_at=at,
        )
    )
    return job_id
