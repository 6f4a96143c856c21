"""What workers tell of their work while they do it, for progress and monitoring. Nothing here decides anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from alnnode.db.engine import for_single_reads, for_writing
from alnnode.db.progress_tables import JobStepRow, TallyRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import Connection, Engine

STEP, PROBABILITY = "step", "probability"
BINS = 10  # of probability, each 0.1 wide

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Tally:
    """One counter; for probabilities ``label`` is the bundle's digest and ``bin`` the tenth."""

    label: str
    bin: int
    count: int
    total: float


class Figures:
    """Safe to share between threads and processes. Writing never raises: no job fails for want of a figure."""

    def __init__(self, engine: Engine) -> None:
        self._writer, self._reader = for_writing(engine), for_single_reads(engine)

    def begin(self, job_id: str, step: str, ended: tuple[str, float] | None) -> None:
        """Note the step that a job is at now, and how long (s) the one before took."""
        try:
            with self._writer.begin() as connection:
                dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
                connection.execute(
                    dialect.insert(JobStepRow)
                    .values(job_id=job_id, step=step[:16])
                    .on_conflict_do_update(index_elements=["job_id"], set_={"step": step[:16]})
                )
                if ended is not None:
                    _count(connection, STEP, ended[0], 0, 1, ended[1])
        except SQLAlchemyError as error:
            log.warning("step_not_noted", job=job_id, error=type(error).__name__)

    def probabilities(self, bundle_digest: str, values: Sequence[float]) -> None:
        """Count the probabilities that a bundle gave the nodes of one analysis."""
        bins = [min(BINS - 1, int(value * BINS)) for value in values]
        try:
            with self._writer.begin() as connection:
                for number in sorted(set(bins)):
                    inside = [value for value, own in zip(values, bins, strict=True) if own == number]
                    _count(connection, PROBABILITY, bundle_digest, number, len(inside), sum(inside))
        except SQLAlchemyError as error:
            log.warning("probabilities_not_noted", error=type(error).__name__)

    def tallies(self, kind: str) -> tuple[Tally, ...]:
        """Return the counters of one kind."""
        query = select(TallyRow.label, TallyRow.bin, TallyRow.count, TallyRow.total).where(TallyRow.kind == kind)
        with self._reader.connect() as connection:
            return tuple(Tally(*row) for row in connection.execute(query.order_by(TallyRow.label, TallyRow.bin)))


def _count(connection: Connection, kind: str, label: str, number: int, count: int, total: float) -> None:
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    connection.execute(
        dialect.insert(TallyRow)
        .values(kind=kind, label=label[:64], bin=number, count=count, total=total)
        .on_conflict_do_update(
            index_elements=["kind", "label", "bin"],
            set_={"count": TallyRow.count + count, "total": TallyRow.total + total},
        )
    )
