"""Tables for administrators: what is paused, and the associations that the listener rejected."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations at run time

from sqlalchemy import BigInteger, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from alnnode.db.tables import Base


class PauseRow(Base):
    """The analysis, or one destination, that an administrator paused."""

    __tablename__ = "pauses"

    target: Mapped[str] = mapped_column(String(64), primary_key=True)  # "analysis", or "destination " and its name
    paused_at: Mapped[datetime]
    paused_by: Mapped[str] = mapped_column(String(64))


class RejectionRow(Base):
    """Equal rejections of association requests. The texts came over the network: they are cleaned before they are stored."""

    __tablename__ = "rejected_associations"

    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    called_ae: Mapped[str] = mapped_column(String(16), primary_key=True)
    calling_ae: Mapped[str] = mapped_column(String(16), primary_key=True)
    address: Mapped[str] = mapped_column(String(64), primary_key=True)
    detail: Mapped[str] = mapped_column(String(255))  # of the most recent one
    count: Mapped[int] = mapped_column(BigInteger)
    first_at: Mapped[datetime]
    last_at: Mapped[datetime]

    __table_args__ = (Index(None, "last_at"),)
