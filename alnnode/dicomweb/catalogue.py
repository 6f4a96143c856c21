"""What the node holds now, by study, series and instance: received objects and results, for as long as their bytes are kept.

No patient data are in the database, so these questions are about UIDs only; who asks for more reads the objects themselves.
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
class Held:
    """One object whose bytes are in the spool; ``path`` is relative to it."""

    sop_instance_uid: str
    sop_class_uid: str
    series_uid: str
    study_uid: str
    transfer_syntax_uid: str
    path: str
    at: datetime  # when it was received, or its job was opened


class HeldSeries(NamedTuple):
    """One series, with the path of one of its objects; ``at`` is when the last one came, UTC without a zone."""

    study_uid: str
    series_uid: str
    path: str
    at: datetime


class Catalogue:
    """Reads only. Safe to share between threads."""

    def __init__(self, engine: Engine) -> None:
        self._reader = for_single_reads(engine)

    def series(self, studies: Collection[str] | None = None, series: Collection[str] | None = None) -> tuple[HeldSeries, ...]:
        """Series that are held, those of the newest first; only these studies and series when given.

        Asked for with every search, over everything that is held: so one look into an index for each series, no counting, and times as they
        are stored.
        """
        one = (
            select(Instance.path)
            .where(Instance.series_uid == Series.series_uid)
            .order_by(Instance.revision)
            .limit(1)
            .scalar_subquery()
        )
        received = _only(
            select(
                Series.study_uid,
                Series.series_uid,
                one.label("path"),
                type_coerce(Series.last_received_at, DateTime()).label("at"),
            ),
            (Series.study_uid, studies),
            (Series.series_uid, series),
        ).subquery()
        results = _only(
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
        # Results that a PACS sent back are held twice, as received objects too; the series is one.
        alone: dict[tuple[str, str], Any] = {}
        for row in rows:
            alone.setdefault((row[0], row[1]), row)
        return tuple(map(HeldSeries._make, alone.values()))

    def counts(self, series: Collection[str]) -> dict[str, int]:
        """How many objects each of these series has."""
        # Jobs with the same input have the same results, and a PACS may send them back.
        held = _held(None, series, None)
        query = select(held.c.series_uid, func.count(held.c.sop_instance_uid.distinct())).group_by(held.c.series_uid)
        with self._reader.connect() as connection:
            return dict(connection.execute(query).all())

    def instances(
        self,
        studies: Collection[str] | None = None,
        series: Collection[str] | None = None,
        instances: Collection[str] | None = None,
        limit: int | None = None,
    ) -> tuple[Held, ...]:
        """Objects that are held, each once, in an order that stays the same; only those of the given UIDs."""
        held = _held(studies, series, instances)
        query = select(held).order_by(held.c.study_uid, held.c.series_uid, held.c.sop_instance_uid).limit(limit)
        with self._reader.connect() as connection:
            rows = connection.execute(query).all()
        # Jobs with the same input have the same results, each with its own copy.
        return tuple({row.sop_instance_uid: Held(*row) for row in rows}.values())


def _held(studies: Collection[str] | None, series: Collection[str] | None, instances: Collection[str] | None) -> Subquery:
    received: Any = select(
        Instance.sop_instance_uid,
        Instance.sop_class_uid,
        Instance.series_uid,
        Series.study_uid,
        Instance.transfer_syntax_uid,
        Instance.path,
        Instance.received_at.label("at"),
    ).join(Series, Series.series_uid == Instance.series_uid)
    results: Any = (
        select(
            Result.sop_instance_uid,
            Result.sop_class_uid,
            Result.series_instance_uid.label("series_uid"),
            Result.study_instance_uid.label("study_uid"),
            Result.transfer_syntax_uid,
            Result.path,
            Job.created_at.label("at"),
        )
        .join(Job, Job.job_id == Result.job_id)
        .where(Job.purged_at.is_(None))
    )
    received = _only(
        received, (Series.study_uid, studies), (Instance.series_uid, series), (Instance.sop_instance_uid, instances)
    )
    results = _only(
        results,
        (Result.study_instance_uid, studies),
        (Result.series_instance_uid, series),
        (Result.sop_instance_uid, instances),
    )
    return union_all(received, results).subquery("held")


def _only(query: Any, *conditions: tuple[Any, Collection[str] | None]) -> Any:
    for column, values in conditions:
        if values is not None:
            query = query.where(column.in_(values))
    return query
