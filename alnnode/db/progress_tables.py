"""Tables of the workers' progress: the present step of each running job, and counters for monitoring."""

from __future__ import annotations

from sqlalchemy import BigInteger, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from alnnode.db.tables import Base


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
