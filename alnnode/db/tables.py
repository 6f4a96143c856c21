"""The tables of instances, series, jobs, results and deliveries.

Times are UTC. UIDs have at most 64 characters (PS3.5 section 9.1). The database holds no patient name and no Patient ID. It holds the
series and study descriptions, because route conditions use them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, DateTime, ForeignKey, Index, MetaData, String, Text, TypeDecorator, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect


class DeliveryState(StrEnum):
    """The state of the delivery of one job's results to one destination."""

    PENDING = "PENDING"
    COMMITTING = "COMMITTING"  # sent; the destination has not yet committed every object
    SENT = "SENT"
    FAILED = "FAILED"


class UTCDateTime(TypeDecorator[datetime]):
    """Aware datetimes, stored as UTC: SQLite has no type with a time zone."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Refuse a naive time: it would be read back as another time."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without zone cannot be stored")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Return the time with its zone, UTC."""
        return None if value is None else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """Fixed constraint names, so that a later migration can name them on both dialects."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UTCDateTime()}  # noqa: RUF012 - read by SQLAlchemy, never written


UID = String(64)
DIGEST = String(64)


class Series(Base):
    """One received series, with the attributes that routes and the completion rule use."""

    __tablename__ = "series"

    series_uid: Mapped[str] = mapped_column(UID, primary_key=True)
    study_uid: Mapped[str] = mapped_column(UID, index=True)
    calling_ae: Mapped[str] = mapped_column(String(16))
    modality: Mapped[str] = mapped_column(String(16))
    body_part: Mapped[str] = mapped_column(String(64))
    series_description: Mapped[str] = mapped_column(Text)
    study_description: Mapped[str] = mapped_column(Text)
    kernel: Mapped[str] = mapped_column(Text)
    slice_thickness: Mapped[float | None]
    announced: Mapped[int | None]  # Number of Series Related Instances (0020,1209)
    last_received_at: Mapped[datetime]
    released_at: Mapped[datetime | None]


class Instance(Base):
    """One received object whose bytes are durable in the spool."""

    __tablename__ = "instances"

    sop_instance_uid: Mapped[str] = mapped_column(UID, primary_key=True)
    series_uid: Mapped[str] = mapped_column(ForeignKey("series.series_uid"))
    sop_class_uid: Mapped[str] = mapped_column(UID)
    transfer_syntax_uid: Mapped[str] = mapped_column(UID)
    path: Mapped[str] = mapped_column(String(255))  # relative to the spool
    sha256: Mapped[str] = mapped_column(DIGEST)  # of the data set as encoded, without File Meta Information
    size: Mapped[int] = mapped_column(BigInteger)
    calling_ae: Mapped[str] = mapped_column(String(16))
    received_at: Mapped[datetime]
    revision: Mapped[int]  # of the RECEIVING job: the input of revision r is every instance with a revision up to r

    __table_args__ = (Index(None, "series_uid", "revision"),)


class Job(Base):
    """One analysis of a revision of a series; `alnnode.db.transitions` changes its state."""

    __tablename__ = "jobs"

    job_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    series_uid: Mapped[str] = mapped_column(ForeignKey("series.series_uid"))
    study_uid: Mapped[str] = mapped_column(UID)
    revision: Mapped[int]
    predecessor_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.job_id"))
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(Text)
    not_analysed: Mapped[str | None] = mapped_column(Text)  # why the series cannot be analysed, when the results say so
    attempts: Mapped[int] = mapped_column(default=0)
    enqueues: Mapped[int] = mapped_column(default=0)
    priority: Mapped[int] = mapped_column(default=0, server_default="0")  # records.priority.Priority
    input_digest: Mapped[str | None] = mapped_column(DIGEST)
    bundle_digest: Mapped[str | None] = mapped_column(DIGEST)
    settings_digest: Mapped[str | None] = mapped_column(DIGEST)
    created_at: Mapped[datetime]
    content_at: Mapped[datetime]  # the time inside the result objects: created_at, or that of an identical earlier job
    claimed_at: Mapped[datetime | None]
    lease_until: Mapped[datetime | None]
    # When the sweep enqueues it. Of a NOT_ANALYSED job: its report is held back since then. Of a RECEIVING job: it was READY until then.
    due_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    purged_at: Mapped[datetime | None]  # when its files were deleted

    __table_args__ = (
        UniqueConstraint("series_uid", "revision"),
        Index(None, "state", "due_at"),
        Index(None, "state", "created_at"),
        Index(None, "created_at"),
        Index(None, "finished_at"),
        Index(None, "study_uid"),
    )


class Result(Base):
    """One result object, durable in the outbox."""

    __tablename__ = "results"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.job_id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    role: Mapped[str] = mapped_column(String(16))
    sop_class_uid: Mapped[str] = mapped_column(UID)
    sop_instance_uid: Mapped[str] = mapped_column(UID, index=True)
    series_instance_uid: Mapped[str] = mapped_column(UID, index=True)
    study_instance_uid: Mapped[str] = mapped_column(UID, index=True)
    transfer_syntax_uid: Mapped[str] = mapped_column(UID)
    sha256: Mapped[str] = mapped_column(DIGEST)  # of the whole file
    path: Mapped[str] = mapped_column(String(255))  # relative to the spool


class MarkOf(Base):
    """One received object with a reader's marks on a series, which need not have been received."""

    __tablename__ = "marks"

    sop_instance_uid: Mapped[str] = mapped_column(ForeignKey("instances.sop_instance_uid"), primary_key=True)
    series_uid: Mapped[str] = mapped_column(UID, primary_key=True)
    revision: Mapped[
        int | None
    ]  # the first revision of the series that uses the marks; None until the series of the marks is complete

    __table_args__ = (Index(None, "series_uid", "revision"),)


class Delivery(Base):
    """The delivery of the results of one job to one destination."""

    __tablename__ = "deliveries"

    delivery_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.job_id"))
    destination: Mapped[str] = mapped_column(String(32))
    roles: Mapped[str] = mapped_column(String(64))  # space-separated
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime]
    lease_until: Mapped[datetime | None]
    due_at: Mapped[datetime]  # when the sweep enqueues it
    enqueues: Mapped[int] = mapped_column(default=0)
    last_error: Mapped[str | None] = mapped_column(Text)
    sent_at: Mapped[datetime | None]
    uncommitted: Mapped[str | None] = mapped_column(Text)  # SOP Instance UIDs, space-separated, that are not committed yet
    resends: Mapped[int] = mapped_column(default=0)  # how often objects were resent because they were not committed
    unanswered: Mapped[int] = mapped_column(
        default=0
    )  # commitment requests that the destination accepted since the objects were sent
    committed_at: Mapped[datetime | None]

    __table_args__ = (
        UniqueConstraint("job_id", "destination"),
        Index(None, "state", "due_at"),
        Index(None, "destination", "sent_at"),
        Index(
            "ix_deliveries_last_error",
            "destination",
            "due_at",
            postgresql_where=text("last_error IS NOT NULL"),
            sqlite_where=text("last_error IS NOT NULL"),
        ),
    )


class Transaction(Base):
    """One storage commitment request to a destination; a late answer counts too."""

    __tablename__ = "transactions"

    transaction_uid: Mapped[str] = mapped_column(UID, primary_key=True)
    delivery_id: Mapped[str] = mapped_column(ForeignKey("deliveries.delivery_id"), index=True)
    asked_at: Mapped[datetime]


class RequestState(StrEnum):
    """The state of the answer to a commitment request."""

    PENDING = "PENDING"
    ANSWERED = "ANSWERED"
    FAILED = "FAILED"


class CommitmentRequest(Base):
    """One storage commitment request of a sender."""

    __tablename__ = "commitment_requests"

    request_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    requester: Mapped[str] = mapped_column(String(16))  # AE title
    transaction_uid: Mapped[str] = mapped_column(UID)
    objects: Mapped[str] = mapped_column(Text)  # one line for each object: SOP Class UID and SOP Instance UID
    duplicate: Mapped[bool]  # the Transaction UID was used for other objects before
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(default=0)
    received_at: Mapped[datetime]
    due_at: Mapped[datetime]  # when the next attempt to answer is made
    answered_at: Mapped[datetime | None]
    failures: Mapped[int | None]  # number of objects that were not committed, once answered
    last_error: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (Index(None, "requester", "transaction_uid"), Index(None, "state", "due_at"))
