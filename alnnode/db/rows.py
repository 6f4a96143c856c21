"""Values that go into the database and come out of it: frozen, without a connection."""

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
    """The outcome for one instance of `ReceivedSeries.record_instances`."""

    NEW = "new"
    SAME = "same"  # recorded before, with the same bytes
    CONFLICT = "conflict"  # recorded before, with other bytes: the first object stays


@dataclass(frozen=True, slots=True)
class SeriesFacts:
    """The attributes of a series that routes and the completion rule use, from its first instance."""

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
    refers: tuple[str, ...] = ()  # Series Instance UIDs of the images that its marks refer to


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
        attempt: 1 for the first run, and after an operator retried the job.
        claimed_at: when the claim was made. `Jobs` checks attempt and time at every later change, so that a worker whose job was claimed by
            another worker cannot overwrite the other worker's state.
        paths: of the input instances, relative to the spool, in the order of their SOP Instance UIDs.
        marks: paths of the objects with a reader's marks on these images, likewise.
        input_digest: sha256 (hex) over the sorted hex digests of the input instances and marks; after `Jobs.identify` the digest given to it.
        created: the time from which all dates and times inside the result objects are taken (UTC).
        revision: of the report. ``created`` and ``revision`` are those of an earlier job that had the same input, bundle and settings.
        predecessor: the report that this report replaces.
        superseded: all result objects of the series that the new results replace.
    """

    job_id: str
    study_uid: str
    series_uid: str
    attempt: int
    claimed_at: datetime
    paths: tuple[str, ...]
    input_digest: str
    created: datetime
    revision: int
    predecessor: Predecessor | None
    marks: tuple[str, ...] = ()
    superseded: tuple[ResultReference, ...] = ()


@dataclass(frozen=True, slots=True)
class NotAnalysed:
    """Why a series cannot be analysed, when the results only say so.

    Attributes:
        reason: for a radiographer.
        once_per_study: deliver the results only if no other series of the study is analysed, is still to be, or is reported.
    """

    reason: str
    once_per_study: bool = False


@dataclass(frozen=True, slots=True)
class DeliveryClaim:
    """A delivery that the caller may make until its lease ends; ``attempt`` is 1 for the first attempt."""

    delivery_id: str
    job_id: str
    destination: str
    attempt: int
    files: tuple[ResultRow, ...]
    sent: bool = False  # the files were sent; the destination is to be asked to commit them
    unanswered: int = 0  # commitment requests that the destination accepted and did not answer


@dataclass(frozen=True, slots=True)
class DeliveryStatus:
    """The state of a delivery to one destination."""

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
    """A job with its deliveries, as the job list shows it."""

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
    priority: int = 0  # records.priority.Priority
