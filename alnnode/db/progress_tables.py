"""Tables of the workers' progress: the present step of each running job, and counters for monitoring."""

from __future__ import annotations

from sqlalchemy import BigInteger, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from alnnode.db.tables import Base

BINS = 10  # of probability, each 0.1 wide
PROBABILITY_DAY = "probability_day"  # kind of the counters of one day; the label is the beginning of the bundle's digest, a space, and the date


class JobStepRow(Base):
    """The present step of the analysis of a running job."""

    __tablename__ = "job_steps"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.job_id"), primary_key=True)
    step: Mapped[str] = mapped_column(String(16))


class TallyRow(Base):
    """A counter that only grows: the number of measurements and their sum."""

    __tablename__ = "tallies"

    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    label: Mapped[str] = mapped_column(String(64), primary_key=True)
    bin: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    count: Mapped[int] = mapped_column(BigInteger)
    total: Mapped[float]
