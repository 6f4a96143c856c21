"""The order of analysis: whose turn it is, and which series a backfill retrieves. The tables hold no patient data but UIDs and dates."""

from __future__ import annotations

from datetime import date, datetime  # noqa: TC003 - SQLAlchemy reads the annotations at run time

from sqlalchemy import Index, String, Text, func
from sqlalchemy.orm import Mapped, mapped_column

from alnnode.db.tables import UID, Base, Job
from alnnode.records.priority import Priority

# The greater, the sooner a job is analysed and its results are delivered.
URGENCY = func.coalesce(func.nullif(Job.priority, int(Priority.NOT_SET)), int(Priority.MEDIUM))


class SenderTurnRow(Base):
    """When a job of a sender was claimed last, as a number that only grows: the sender with the smallest has the next turn."""

    __tablename__ = "sender_turns"

    calling_ae: Mapped[str] = mapped_column(String(16), primary_key=True)
    turn: Mapped[int]


class BackfillDayRow(Base):
    """A day of which a backfill has recorded all series of an archive."""

    __tablename__ = "backfill_days"

    archive: Mapped[str] = mapped_column(String(16), primary_key=True)
    search: Mapped[str] = mapped_column(String(32), primary_key=True)  # digest of the conditions of the search
    day: Mapped[date] = mapped_column(primary_key=True)


class BackfillSeriesRow(Base):
    """A series that a backfill retrieves."""

    __tablename__ = "backfill_series"

    series_uid: Mapped[str] = mapped_column(UID, primary_key=True)
    study_uid: Mapped[str] = mapped_column(UID)
    archive: Mapped[str] = mapped_column(String(16))
    day: Mapped[date]
    images: Mapped[int | None]  # that the archive says it has
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int]
    due_at: Mapped[datetime]  # when it may be retrieved, or when the lease of the present attempt ends
    last_error: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (Index(None, "archive", "state", "due_at"),)


class BackfillState:
    """The states of a series of a backfill."""

    FOUND, RETRIEVED, FAILED = "FOUND", "RETRIEVED", "FAILED"
