"""The progress of workers: the present step of each job, and counters for monitoring. No decision depends on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from alnnode.db import clock
from alnnode.db.engine import for_single_reads, for_writing
from alnnode.db.progress_tables import BINS, PROBABILITY_DAY, JobStepRow, TallyRow
from alnnode.db.tallies import Tally, add_to_tally

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy.engine import Engine

STEP, PROBABILITY = "step", "probability"
DIGEST = 40  # characters of a bundle's digest in the counters of one day

log = structlog.get_logger()


class WorkProgress:
    """Safe to share between threads and processes. Writing never raises: a missing counter fails no job."""

    def __init__(self, engine: Engine) -> None:
        self._writer, self._reader = for_writing(engine), for_single_reads(engine)

    def begin_step(self, job_id: str, step: str, ended: tuple[str, float] | None) -> None:
        """Record the present step of a job, and the name and duration (s) of the step before."""
        try:
            with self._writer.begin() as connection:
                dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
                connection.execute(
                    dialect.insert(JobStepRow)
                    .values(job_id=job_id, step=step[:16])
                    .on_conflict_do_update(index_elements=["job_id"], set_={"step": step[:16]})
                )
                if ended is not None:
                    add_to_tally(connection, STEP, Tally(ended[0], 0, 1, ended[1]))
        except SQLAlchemyError as error:
            log.warning("step_not_noted", job=job_id, error=type(error).__name__)

    def count_probabilities(self, bundle_digest: str, values: Sequence[float], now: datetime | None = None) -> None:
        """Count the probabilities of the nodes of one analysis, which the bundle of this digest computed: in all, and of this day (UTC)."""
        bins = [min(BINS - 1, int(value * BINS)) for value in values]
        try:
            with self._writer.begin() as connection:
                day = f"{bundle_digest[:DIGEST]} {now or clock.now(connection):%Y-%m-%d}"
                for number in sorted(set(bins)):
                    inside = [value for value, own in zip(values, bins, strict=True) if own == number]
                    for kind, label in ((PROBABILITY, bundle_digest), (PROBABILITY_DAY, day)):
                        add_to_tally(connection, kind, Tally(label, number, len(inside), sum(inside)))
        except SQLAlchemyError as error:
            log.warning("probabilities_not_noted", error=type(error).__name__)

    def tallies(self, kind: str) -> tuple[Tally, ...]:
        """Return the counters of one kind."""
        query = select(TallyRow.label, TallyRow.bin, TallyRow.count, TallyRow.total).where(TallyRow.kind == kind)
        with self._reader.connect() as connection:
            return tuple(Tally(*row) for row in connection.execute(query.order_by(TallyRow.label, TallyRow.bin)))
