"""The tables: what the node knows of instances, series, jobs, results and deliveries.

Times are UTC. UIDs are at most 64 characters (PS3.5 section 9.1). No patient name or number is kept in the database; the
series and study descriptions are, because routes ask for them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, DateTime, ForeignKey, Index, MetaData, String, Text, TypeDecorator, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect


class DeliveryState(StrEnum):
    """Where one destination stands with the results of one job."""

    PENDING = "PENDING"
    COMMITTING = "COMMITTING"  # sent; the destination has not yet said that it keeps every object
    SENT = "SENT"
    FAILED = "FAILED"


class UTCDateTime(TypeDecorator[datetime]):
    """Aware datetimes, kept as UTC: SQLite has no type that knows a zone."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Refuse a naive time: it would be read back as another moment."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without zone cannot be stored")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Give the zone back."""
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
    """One series that was received, with what routes and completion ask of it."""

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
    revision: Mapped[int]  # of the job that was receiving: the input of revision r is every instance up to r

    __table_args__ = (Index(None, "series_uid", "revision"),)


class Job(Base):
    """One analysis of a series. `alnnode.analyse.jobs` is the only writer."""

    __tablename__ = "jobs"

    job_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    series_uid: Mapped[str] = mapped_column(ForeignKey("series.series_uid"))
    study_uid: Mapped[str] = mapped_column(UID)
    revision: Mapped[int]
    predecessor_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.job_id"))
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(Text)
    not_analysed: Mapped[str | None] = mapped_column(Text)  # the results say that the series cannot be analysed, and why
    attempts: Mapped[int] = mapped_column(default=0)
    enqueues: Mapped[int] = mapped_column(default=0)
    input_digest: Mapped[str | None] = mapped_column(DIGEST)
    bundle_digest: Mapped[str | None] = mapped_column(DIGEST)
    settings_digest: Mapped[str | None] = mapped_column(DIGEST)
    created_at: Mapped[datetime]
    content_at: Mapped[datetime]  # the moment inside the result objects: created_at, or that of an identical earlier job
    claimed_at: Mapped[datetime | None]
    lease_until: Mapped[datetime | None]
    due_at: Mapped[datetime | None]  # when the sweep enqueues it (again)
    finished_at: Mapped[datetime | None]
    purged_at: Mapped[datetime | None]  # since then its bytes are gone

    __table_args__ = (UniqueConstraint("series_uid", "revision"), Index(None, "state", "due_at"), Index(None, "created_at"))


class Result(Base):
    """One result object, durable in the outbox."""

    __tablename__ = "results"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.job_id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    role: Mapped[str] = mapped_column(String(16))
    sop_class_uid: Mapped[str] = mapped_column(UID)
    sop_instance_uid: Mapped[str] = mapped_column(UID, index=True)
    series_instance_uid: Mapped[str] = mapped_column(UID)
    study_instance_uid: Mapped[str] = mapped_column(UID, index=True)
    transfer_syntax_uid: Mapped[str] = mapped_column(UID)
    sha256: Mapped[str] = mapped_column(DIGEST)  # of the whole file
    path: Mapped[str] = mapped_column(String(255))  # relative to the spool


class MarkOf(Base):
    """One received object that holds a reader's marks on a series, which need not be here."""

    __tablename__ = "marks"

    sop_instance_uid: Mapped[str] = mapped_column(ForeignKey("instances.sop_instance_uid"), primary_key=True)
    series_uid: Mapped[str] = mapped_column(UID, primary_key=True)
    revision: Mapped[int | None]  # of the series' job that takes it along first; None until the marks' own series is complete

    __table_args__ = (Index(None, "series_uid", "revision"),)


class Delivery(Base):
    """The results of one job on their way to one destination."""

    __tablename__ = "deliveries"

    delivery_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.job_id"))
    destination: Mapped[str] = mapped_column(String(32))
    roles: Mapped[str] = mapped_column(String(64))  # space-separated
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime]
    lease_until: Mapped[datetime | None]
    due_at: Mapped[datetime]  # when the sweep enqueues it (again)
    enqueues: Mapped[int] = mapped_column(default=0)
    last_error: Mapped[str | None] = mapped_column(Text)
    sent_at: Mapped[datetime | None]
    uncommitted: Mapped[str | None] = mapped_column(Text)  # SOP Instance UIDs, space-separated, that are to be committed yet
    resends: Mapped[int] = mapped_column(default=0)  # how often objects were sent again because they were not committed
    unanswered: Mapped[int] = mapped_column(default=0)  # commitment questions that it took since it was sent the objects
    committed_at: Mapped[datetime | None]

    __table_args__ = (UniqueConstraint("job_id", "destination"), Index(None, "state", "due_at"))


class Transaction(Base):
    """One question to a destination whether it keeps what a delivery sent; each may be answered, however late."""

    __tablename__ = "transactions"

    transaction_uid: Mapped[str] = mapped_column(UID, primary_key=True)
    delivery_id: Mapped[str] = mapped_column(ForeignKey("deliveries.delivery_id"), index=True)
    asked_at: Mapped[datetime]


class RequestState(StrEnum):
    """Where the answer to a commitment request stands."""

    PENDING = "PENDING"
    ANSWERED = "ANSWERED"
    FAILED = "FAILED"


class CommitmentRequest(Base):
    """One storage commitment request that a sender made, until it has its answer and after."""

    __tablename__ = "commitment_requests"

    request_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    requester: Mapped[str] = mapped_column(String(16))  # AE title
    transaction_uid: Mapped[str] = mapped_column(UID)
    objects: Mapped[str] = mapped_column(Text)  # a line for each: SOP Class and SOP Instance UID
    duplicate: Mapped[bool]  # the Transaction UID stood for other objects before
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(default=0)
    received_at: Mapped[datetime]
    due_at: Mapped[datetime]  # when its answer is tried (again)
    answered_at: Mapped[datetime | None]
    failures: Mapped[int | None]  # objects that were not committed, once answered
    last_error: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (Index(None, "requester", "transaction_uid"), Index(None, "state", "due_at"))
