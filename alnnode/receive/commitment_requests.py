"""Storage commitment requests that senders make (PS3.4 Annex J): kept until each has its answer, whatever restarts meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

from sqlalchemy import delete, insert, select, update

from alnnode.db.clock_repair import AHEAD
from alnnode.db.engine import for_single_reads, for_writing
from alnnode.db.tables import CommitmentRequest, Instance, RequestState
from alnnode.db.transitions import MAX_TEXT

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy.engine import Engine

Reference = tuple[str, str]  # SOP Class and SOP Instance UID
_BATCH = 500  # UIDs in one question to the database
_FIRST, _CEILING = timedelta(seconds=1), timedelta(minutes=15)  # between two tries to answer
KEPT = timedelta(days=30)  # what was answered or given up, for who asks what became of it
_LEASE = timedelta(minutes=2)  # for one try: reading what is asked for takes a while


@dataclass(frozen=True, slots=True)
class Request:
    """A request to answer; ``attempt`` is 1 for the first try."""

    request_id: str
    requester: str
    transaction_uid: str
    objects: tuple[Reference, ...]
    duplicate: bool
    attempt: int


@dataclass(frozen=True, slots=True)
class Kept:
    """What is recorded of one object."""

    sop_class_uid: str
    path: str  # relative to the spool
    sha256: str  # hex, of the data set as encoded


class Requests:
    """The requests to the node as Storage Commitment SCP. Safe to share between threads and processes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = for_writing(engine)
        self._reader = for_single_reads(engine)

    def receive(
        self, requester: str, transaction_uid: str, objects: Sequence[Reference], due_at: datetime, now: datetime | None = None
    ) -> str:
        """Keep a request durably; its id.

        The same request again (requester, Transaction UID, objects) is answered again. The same Transaction UID for other objects is
        kept as a duplicate, none of whose objects will be committed.
        """
        text = "\n".join(" ".join(reference) for reference in objects)
        with self._writer.begin() as connection:
            known = connection.execute(
                select(CommitmentRequest.request_id, CommitmentRequest.objects).where(
                    CommitmentRequest.requester == requester, CommitmentRequest.transaction_uid == transaction_uid
                )
            ).all()
            same = next((row.request_id for row in known if row.objects == text), None)
            state = {
                "state": RequestState.PENDING,
                "attempts": 0,
                "received_at": now or datetime.now(UTC),
                "due_at": due_at,
                "answered_at": None,
                "failures": None,
            }
            if same is not None:
                connection.execute(update(CommitmentRequest).where(CommitmentRequest.request_id == same).values(**state))
                return str(same)
            request_id = uuid4().hex
            connection.execute(
                insert(CommitmentRequest).values(
                    request_id=request_id,
                    requester=requester,
                    transaction_uid=transaction_uid,
                    objects=text,
                    duplicate=bool(known),
                    **state,
                )
            )
            return request_id

    def claim(self, request_id: str, now: datetime | None = None) -> Request | None:
        """Take a request to answer it now; None when it has its answer. It is due again later in case this try is never finished."""
        moment = now or datetime.now(UTC)
        with self._writer.begin() as connection:
            row = connection.execute(
                select(CommitmentRequest.__table__)
                .where(CommitmentRequest.request_id == request_id, CommitmentRequest.state == RequestState.PENDING)
                .with_for_update()
            ).one_or_none()
            if row is None:
                return None
            attempt = row.attempts + 1
            connection.execute(
                update(CommitmentRequest)
                .where(CommitmentRequest.request_id == request_id)
                .values(attempts=attempt, due_at=moment + _LEASE)
            )
        pairs = tuple((one, other) for one, _, other in (line.partition(" ") for line in row.objects.splitlines()))
        return Request(request_id, row.requester, row.transaction_uid, pairs, row.duplicate, attempt)

    def next_due(self, now: datetime | None = None) -> Request | None:
        """Take the request that has waited longest for its next try; None when none is due. Each is given out once."""
        moment = now or datetime.now(UTC)
        # What is due further ahead than anything is put off was written before the clock was set back.
        due = (CommitmentRequest.due_at <= moment) | (CommitmentRequest.due_at > moment + _CEILING + AHEAD)
        waiting = (CommitmentRequest.state == RequestState.PENDING, due)
        query = select(CommitmentRequest.request_id, CommitmentRequest.due_at).where(*waiting)
        with self._reader.connect() as connection:
            rows = connection.execute(query.order_by(CommitmentRequest.due_at).limit(8)).all()
        for row in rows:
            with self._writer.begin() as connection:
                won = connection.execute(
                    update(CommitmentRequest)
                    .where(CommitmentRequest.request_id == row.request_id, CommitmentRequest.due_at == row.due_at, waiting[0])
                    .values(due_at=moment + _LEASE)
                )
            if won.rowcount:
                return self.claim(row.request_id, moment)
        return None

    def answered(self, request_id: str, failures: int, now: datetime | None = None) -> None:
        """Note that the requester has its answer."""
        self._end(request_id, RequestState.ANSWERED, failures=failures, answered_at=now or datetime.now(UTC), last_error=None)

    def deferred(self, request: Request, error: str, now: datetime | None = None) -> None:
        """Note why the requester could not be told; each further wait until the next try is twice as long, up to a quarter of an hour."""
        due_at = (now or datetime.now(UTC)) + min(_FIRST * (1 << min(request.attempt, 10)), _CEILING)
        self._end(request.request_id, RequestState.PENDING, last_error=error[:MAX_TEXT], due_at=due_at)

    def given_up(self, request_id: str, error: str) -> None:
        """Note that no further try will be made; the requester may ask again."""
        self._end(request_id, RequestState.FAILED, last_error=error[:MAX_TEXT])

    def _end(self, request_id: str, state: RequestState, **values: object) -> None:
        with self._writer.begin() as connection:
            connection.execute(
                update(CommitmentRequest)
                .where(CommitmentRequest.request_id == request_id, CommitmentRequest.state == RequestState.PENDING)
                .values(state=state, **values)
            )

    def purge(self, now: datetime | None = None) -> int:
        """Delete requests that came long ago (`KEPT`) and have their answer, or will never have one; how many."""
        ended = CommitmentRequest.state.in_((RequestState.ANSWERED, RequestState.FAILED))
        old = CommitmentRequest.received_at < (now or datetime.now(UTC)) - KEPT
        with self._writer.begin() as connection:
            return int(connection.execute(delete(CommitmentRequest).where(ended, old)).rowcount)

    def recorded(self, sop_instance_uids: Collection[str]) -> dict[str, Kept]:
        """What is recorded under these UIDs."""
        uids, found = sorted(set(sop_instance_uids)), dict[str, Kept]()
        columns = (Instance.sop_instance_uid, Instance.sop_class_uid, Instance.path, Instance.sha256)
        for start in range(0, len(uids), _BATCH):
            query = select(*columns).where(Instance.sop_instance_uid.in_(uids[start : start + _BATCH]))
            with self._reader.connect() as connection:
                found |= {row[0]: Kept(row[1], row[2], row[3]) for row in connection.execute(query)}
        return found
