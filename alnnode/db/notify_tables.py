"""The tables of notifications: conditions that last, notices of events, and the messages that tell of them.

They hold no patient data: names of destinations and workers, ids of jobs, and the texts of errors, which have none.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations at run time

from sqlalchemy import Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from alnnode.db.tables import Base


class ConditionRow(Base):
    """A fault that lasts, from when it is first seen until it is over."""

    __tablename__ = "conditions"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)  # of the fault, as "destination pacs"
    since: Mapped[datetime]
    notified_at: Mapped[datetime | None]  # when its notice was written


class NoticeRow(Base):
    """One event that an administrator is told of."""

    __tablename__ = "notices"

    event_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str] = mapped_column(String(64))  # the fault that lasts, or the id of a job
    since: Mapped[datetime]  # when the fault was first seen, or when the job ended
    text: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime]
    message_id: Mapped[str | None] = mapped_column(String(32), index=True)  # None: it waits for its message

    # Several observers write an event once.
    __table_args__ = (UniqueConstraint("subject", "kind", "since"),)


class MessageState:
    """The states of a message on one channel."""

    PENDING, SENT, FAILED = "PENDING", "SENT", "FAILED"


class MessageRow(Base):
    """A message about several events, on one channel. Its id is the same in each attempt, so that a receiver can drop duplicates."""

    __tablename__ = "notice_messages"

    message_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    channel: Mapped[str] = mapped_column(String(16), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int]
    created_at: Mapped[datetime]
    due_at: Mapped[datetime]  # when the next attempt is made, or when the lease of the present one ends
    sent_at: Mapped[datetime | None]
    last_error: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (Index(None, "state", "due_at"),)
