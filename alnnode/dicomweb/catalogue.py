"""Find the objects that the node holds, by study, series and instance: received objects and results whose files are not deleted.

The database holds no patient data, so a caller searches by UIDs only; it reads further attributes from the objects themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import DateTime, func, select, type_coerce, union_all

from alnnode.db.engine import for_single_reads
from alnnode.db.tables import Instance, Job, Result, Series

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from sqlalchemy import Subquery
    from sqlalchemy.engine import Engine


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """One object whose file is in the spool; ``path`` is relative to the spool."""

    sop_instance_uid: str
    sop_class_uid: str
    series_uid: str
    study_uid: str
    transfer_syntax_uid: str
    path: str
    stored_at: datetime  # when the object was received; of a result, when its job was created


class StoredSeries(NamedTuple):
    """One series, with the path of one of its objects; ``stored_at`` is when the last one was received, UTC without a zone."""

    study_uid: str
    series_uid: str
    path: str
    stored_at: datetime


class Catalogue:
    """Reads only. Safe to share between threads."""

    def __init__(self, engine: Engine) -> None:
        self._reader = for_single_reads(engine)

    def series(self, studies: Collection[str] | None = None, series: Collection[str] | None = None) -> tuple[StoredSeries, ...]:
        """Return the series that the node holds, the most recent first; only those of the given UIDs.

        Every search runs this query over all series. Therefore it uses one index lookup for each series, does not count, and returns times as the
        database stores them.
        """
        one = (
            select(Instance.path)
            .where(Instance.series_uid == Series.series_uid)
            .order_by(Instance.revision)
            .limit(1)
            .scalar_subquery()
        )
        received = _restricted(
            select(
                Series.study_uid,
                Series.series_uid,
                one.label("path"),
                type_coerce(Series.last_received_at, DateTime()).label("stored_at"),
            ),
            (Series.study_uid, studies),
            (Series.series_uid, series),
        ).subquery()
        results = _restricted(
            select(
                Result.study_instance_uid,
                Result.series_instance_uid,
                func.min(Result.path),
                type_coerce(func.max(Job.created_at), DateTime()),
            )
            .join(Job, Job.job_id == Result.job_id)
            .where(Job.purged_at.is_(None))
            .group_by(Result.study_instance_uid, Result.series_instance_uid),
            (Result.study_instance_uid, studies),
            (Result.series_instance_uid, series),
        )
        with self._reader.connect() as connection:
            rows = [
                *connection.execute(select(received).where(received.c.path.is_not(None))).all(),
                *connection.execute(results).all(),
            ]
        rows.sort(key=itemgetter(1))
        rows.sort(key=itemgetter(3), reverse=True)
        # If a PACS sends results back, the node holds their series twice: as results and as received objects.
        unique: dict[tuple[str, str], Any] = {}
        for row in rows:
            unique.setdefault((row[0], row[1]), row)
        return tuple(map(StoredSeries._make, unique.values()))

    def counts(self, series: Collection[str]) -> dict[str, int]:
        """Return the number of objects of each of these series."""
        # Distinct, because jobs with the same input have the same results, and a PACS may send results back.
        stored = _stored(None, series, None)
        query = select(stored.c.series_uid, func.count(stored.c.sop_instance_uid.distinct())).group_by(stored.c.series_uid)
        with self._reader.connect() as connection:
            return dict(connection.execute(query).all())

    def instances(
        self,
        studies: Collection[str] | None = None,
        series: Collection[str] | None = None,
        instances: Collection[str] | None = None,
        limit: int | None = None,
    ) -> tuple[StoredInstance, ...]:
        """Return the objects that the node holds, each once and in a stable order; only those of the given UIDs."""
        stored = _stored(studies, series, instances)
        query = select(stored).order_by(stored.c.study_uid, stored.c.series_uid, stored.c.sop_instance_uid).limit(limit)
        with self._reader.connect() as connection:
            rows = connection.execute(query).all()
        # Jobs with the same input have the same results, each with its own files.
        return tuple({row.sop_instance_uid: StoredInstance(*row) for row in rows}.values())


def _stored(studies: Collection[str] | None, series: Collection[str] | None, instances: Collection[str] | None) -> Subquery:
    received: Any = select(
        Instance.sop_instance_uid,
        Instance.sop_class_uid,
        Instance.series_uid,
        Series.study_uid,
        Instance.transfer_syntax_uid,
        Instance.path,
        Instance.received_at.label("stored_at"),
    ).join(Series, Series.series_uid == Instance.series_uid)
    results: Any = (
        select(
            Result.sop_instance_uid,
            Result.sop_class_uid,
            Result.series_instance_uid.label("series_uid"),
            Result.study_instance_uid.label("study_uid"),
            Result.transfer_syntax_uid,
            Result.path,
            Job.created_at.label("stored_at"),
        )
        .join(Job, Job.job_id == Result.job_id)
        .where(Job.purged_at.is_(None))
    )
    received = _restricted(
        received, (Series.study_uid, studies), (Instance.series_uid, series), (Instance.sop_instance_uid, instances)
    )
    results = _restricted(
        results,
        (Result.study_instance_uid, studies),
        (Result.series_instance_uid, series),
        (Result.sop_instance_uid, instances),
    )
    return union_all(received, results).subquery("stored")


def _restricted(query: Any, *conditions: tuple[Any, Collection[str] | None]) -> Any:
    for column, values in conditions:
        if values is not None:
            query = query.where(column.in_(values))
    return query
