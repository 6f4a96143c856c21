"""The tables of the worklist (UPS-RS): workitems, subscriptions and the event reports that are still to be sent.

They hold no patient data: the data set of a workitem is a file in the spool, and so are the conditions of a filtered subscription.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations at run time

from sqlalchemy import ForeignKey, Index, String, Text, false
from sqlalchemy.orm import Mapped, mapped_column

from alnnode.db.tables import UID, Base


class WorkitemRow(Base):
    """One Unified Procedure Step. `alnnode.worklist.worklist` is the only writer."""

    __tablename__ = "workitems"

    workitem_uid: Mapped[str] = mapped_column(UID, primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    transaction_uid: Mapped[str | None] = mapped_column(UID)  # whoever knows it may change the workitem: it is never shown
    document: Mapped[str | None] = mapped_column(String(255))  # relative to the spool; None: deleted
    service_url: Mapped[str] = mapped_column(Text)  # DICOMweb root for the requester
    performed_here: Mapped[bool]
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.job_id"))
    started_job: Mapped[bool] = mapped_column(server_default=false())  # the job was started for this workitem, not by a route
    cancel_requested: Mapped[bool]
    attempts: Mapped[int]  # to fetch the input
    lease_until: Mapped[datetime | None]  # until then a process fetches the input, or waits for its next attempt
    created_at: Mapped[datetime]
    changed_at: Mapped[datetime]

    __table_args__ = (Index(None, "state", "created_at"),)


class SubscriptionRow(Base):
    """The subscription of an AE to one workitem, or to future workitems (the well-known UIDs of PS3.4 CC.2.3)."""

    __tablename__ = "ups_subscriptions"

    workitem_uid: Mapped[str] = mapped_column(UID, primary_key=True)
    subscriber: Mapped[str] = mapped_column(String(16), primary_key=True)
    deletion_lock: Mapped[bool]
    filters: Mapped[str | None] = mapped_column(String(255))  # relative to the spool


class EventRow(Base):
    """One event report for one subscriber; it is deleted when it is sent or a day old."""

    __tablename__ = "ups_events"

    event_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    subscriber: Mapped[str] = mapped_column(String(16))
    workitem_uid: Mapped[str] = mapped_column(UID)
    event_type: Mapped[int]
    state: Mapped[str] = mapped_column(String(16))
    progress: Mapped[int | None]
    sent: Mapped[bool]
    at: Mapped[datetime]

    __table_args__ = (Index(None, "subscriber", "event_id"),)
