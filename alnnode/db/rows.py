"""What goes into the store and what comes out: frozen, without a connection behind it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from alnnode.db.tables import DeliveryState
    from alnnode.records import JobState, ObjectRole, ResultReference

Predecessor = tuple[str, str, str, str]  # SOP class, SOP instance, series and study UID, as in records.ReportContext


class Recorded(StrEnum):
    """What became of an instance that was handed to `Jobs.record_instances`."""

    NEW = "new"
    SAME = "same"  # recorded before, with the same bytes
    CONFLICT = "conflict"  # recorded before, with other bytes: the first stays


@dataclass(frozen=True, slots=True)
class SeriesFacts:
    """What routes and the completion rule ask of a series; taken from its first instance."""

    calling_ae: str = ""
    modality: str = ""
    body_part: str = ""
    series_description: str = ""
    study_description: str = ""
    kernel: str = ""
    slice_thickness: float | None = None  # mm
    announced: int | None = None  # Number of Series Related Instances (0020,1209)


@dataclass(frozen=True, slots=True)
class NewInstance:
    """One object whose bytes are durable in the spool."""

    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    study_uid: str
    transfer_syntax_uid: str
    path: str  # relative to the spool
    sha256: str  # hex, of the data set as encoded
    size: int  # bytes
    received_at: datetime
    facts: SeriesFacts
    refers: tuple[str, ...] = ()  # series that it holds a reader's marks on


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One result object in the outbox."""

    position: int
    role: ObjectRole
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    sha256: str  # hex, of the whole file
    path: str  # relative to the spool


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that the caller may run until its lease ends.

    Attributes:
        attempt: 1 for the first run; hand it to `Jobs.renew`, `analysed` and `fail`, so that a worker whose job was taken
            over cannot write over the one that took it.
        paths: of the input instances, relative to the spool, in the order of their SOP Instance UIDs.
        marks: paths of the objects with a reader's marks on them, likewise.
        input_digest: sha256 (hex) over the sorted hex digests of the input instances and marks; after `Jobs.identify` what that was given.
        created: the moment all dates and times inside the result objects are taken from (UTC).
        revision: of the report. Both are those of an earlier job when that had the same input, bundle and settings.
        predecessor: the report that this one replaces.
        superseded: all result objects of the series that its results replace.
    """

    job_id: str
    study_uid: str
    series_uid: str
    attempt: int
    paths: tuple[str, ...]
    input_digest: str
    created: datetime
    revision: int
    predecessor: Predecessor | None
    marks: tuple[str, ...] = ()
    superseded: tuple[ResultReference, ...] = ()


@dataclass(frozen=True, slots=True)
class DeliveryClaim:
    """A delivery that the caller may make until its lease ends; ``attempt`` is 1 for the first try."""

    delivery_id: str
    job_id: str
    destination: str
    attempt: int
    files: tuple[ResultRow, ...]
    sent: bool = False  # the files were sent, and are to be committed by the destination now
    unanswered: int = 0  # times that the destination was asked that, and took the question, without an answer


@dataclass(frozen=True, slots=True)
class DeliveryStatus:
    """Where one destination stands."""

    delivery_id: str
    destination: str
    state: DeliveryState
    attempts: int
    next_attempt_at: datetime
    last_error: str | None
    sent_at: datetime | None
    committed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job as the job list shows it."""

    job_id: str
    study_uid: str
    series_uid: str
    revision: int
    predecessor_id: str | None
    state: JobState
    reason: str | None
    attempts: int
    instances: int
    results: int
    created_at: datetime
    claimed_at: datetime | None
    finished_at: datetime | None
    purged_at: datetime | None
    deliveries: tuple[DeliveryStatus, ...]
