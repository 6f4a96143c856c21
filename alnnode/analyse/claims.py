"""The claim: READY to RUNNING, with the input of the revision and the identity of its report."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sqlalchemy import and_, select, update

from alnnode.analyse.queue_order import is_free, most_urgent, next_turn
from alnnode.analyse.report_identity import Digests, report_identity
from alnnode.counted import counted
from alnnode.db.pauses import ANALYSIS, forbids
from alnnode.db.rows import Claim
from alnnode.db.tables import Instance, Job, MarkOf
from alnnode.db.transitions import change_state
from alnnode.records import JobState

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime, timedelta

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Connection, RowMapping


@dataclass(frozen=True, slots=True)
class ClaimTerms:
    """The terms on which a worker claims jobs.

    Attributes:
        lease: the job is the worker's for this long, unless the worker renews the lease.
        max_attempts: a job whose analysis ended its worker so many times is FAILED instead.
        bundle_digest: sha256 (hex) of the worker's model bundle.
        settings_digest: sha256 (hex) of the settings that change a result.
        marked: whether the input includes a reader's marks.
        first_attempts: claim no job that a worker has claimed before, because other analyses run in the process.
    """

    lease: timedelta
    max_attempts: int
    bundle_digest: str
    settings_digest: str
    marked: bool = True
    first_attempts: bool = False


def digest_of(digests: Iterable[str]) -> str:
    """Return the sha256 (hex) over sorted hex digests: it identifies a set of instances, in whatever order they were received."""
    return hashlib.sha256("\n".join(sorted(digests)).encode("ascii")).hexdigest()


def claim(connection: Connection, job_id: str, terms: ClaimTerms, now: datetime) -> Claim | None:
    """Claim the most urgent job inside a transaction; see `alnnode.analyse.jobs.Jobs.claim`."""
    if forbids(connection, ANALYSIS):  # here, because the analysis may have been paused since the worker looked
        return None
    message: str | None = job_id
    while (job := most_urgent(connection, message, now, first_attempts=terms.first_attempts)) is not None:
        if job["attempts"] < terms.max_attempts:
            next_turn(connection, job["series_uid"])
            return _take(connection, job, terms, now)
        reason = f"the analysis ended its worker {counted(job['attempts'], 'time')}"
        ended = {"reason": reason, "finished_at": now, "lease_until": None, "due_at": None}
        change_state(connection, job["job_id"], JobState(job["state"]), JobState.FAILED, is_free(now), **ended)
        message = None  # that job is locked until the end of the transaction, which therefore waits for no other one
    return None


def _take(connection: Connection, job: RowMapping, terms: ClaimTerms, now: datetime) -> Claim:
    inputs = connection.execute(
        select(Instance.path, Instance.sha256)
        .where(Instance.series_uid == job["series_uid"], Instance.revision <= job["revision"])
        .order_by(Instance.sop_instance_uid)
    ).all()
    marks = _marks(connection, job) if terms.marked else []
    input_digest = digest_of(digest for _, digest in (*inputs, *marks))
    identity = report_identity(connection, job, Digests(input_digest, terms.bundle_digest, terms.settings_digest))
    change_state(
        connection,
        job["job_id"],
        JobState(job["state"]),
        JobState.RUNNING,
        is_free(now),
        attempts=job["attempts"] + 1,
        claimed_at=now,
        lease_until=now + terms.lease,
        due_at=now + terms.lease,
        enqueues=0,
        input_digest=input_digest,
        bundle_digest=terms.bundle_digest,
        settings_digest=terms.settings_digest,
        content_at=identity.created,
        reason=None,
    )
    return Claim(
        job_id=job["job_id"],
        study_uid=job["study_uid"],
        series_uid=job["series_uid"],
        attempt=job["attempts"] + 1,
        claimed_at=now,
        paths=tuple(path for path, _ in inputs),
        input_digest=input_digest,
        marks=tuple(path for path, _ in marks),
        **identity._asdict(),
    )


def _marks(connection: Connection, job: RowMapping) -> list[tuple[str, str]]:
    """Return path and sha256 of the objects with a reader's marks that a revision of a series uses."""
    query = (
        select(Instance.path, Instance.sha256)
        .join(MarkOf, MarkOf.sop_instance_uid == Instance.sop_instance_uid)
        .where(MarkOf.series_uid == job["series_uid"], MarkOf.revision <= job["revision"])
        .order_by(Instance.sop_instance_uid)
    )
    return [(path, digest) for path, digest in connection.execute(query)]


def is_claimed_by(claim: Claim) -> ColumnElement[bool]:
    """Return the condition for a running job that nobody has claimed since. The attempts begin anew when an operator retries a job."""
    return and_(Job.attempts == claim.attempt, Job.claimed_at == claim.claimed_at)


def identify(connection: Connection, claim: Claim, input_digest: str) -> Claim | None:
    """Write the final input digest of a claim inside a transaction; see `alnnode.analyse.jobs.Jobs.identify`."""
    claimed = and_(Job.job_id == claim.job_id, Job.state == JobState.RUNNING, is_claimed_by(claim))
    job = connection.execute(select(Job.__table__).where(claimed).with_for_update()).mappings().one_or_none()
    if job is None:
        return None
    identity = report_identity(connection, job, Digests(input_digest, job["bundle_digest"], job["settings_digest"]))
    connection.execute(update(Job).where(claimed).values(input_digest=input_digest, content_at=identity.created))
    return replace(claim, input_digest=input_digest, **identity._asdict())
