"""The storage commitment requests of senders (PS3.4 Annex J) in the database, until each is answered, also after restarts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

from sqlalchemy import delete, insert, select, update

from alnnode.db import clock
from alnnode.db.clock import MAX_SKEW
from alnnode.db.engine import for_single_reads, for_writing
from alnnode.db.tables import CommitmentRequest, Instance, RequestState
from alnnode.db.transitions import MAX_TEXT

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy.engine import Engine

Reference = tuple[str, str]  # SOP Class and SOP Instance UID
_BATCH = 500  # UIDs in one query
_FIRST, _CEILING = timedelta(seconds=1), timedelta(minutes=15)  # between two attempts to answer
RETENTION = timedelta(days=30)  # of requests that were answered or given up, for the status page
_LEASE = timedelta(minutes=2)  # for one attempt: reading the objects takes time


@dataclass(frozen=True, slots=True)
class ClaimedRequest:
    """A request to answer; ``attempt`` is 1 for the first attempt."""

    request_id: str
    requester: str
    transaction_uid: str
    objects: tuple[Reference, ...]
    duplicate: bool
    attempt: int


@dataclass(frozen=True, slots=True)
class RecordedObject:
    """The columns of one instance that the answer depends on."""

    sop_class_uid: str
    path: str  # relative to the spool
    sha256: str  # hex, of the data set as encoded


class CommitmentRequests:
    """The requests to the node as Storage Commitment SCP. Safe to share between threads and processes.

    ``now`` arguments default to the clock of the database; all times are aware.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = for_writing(engine)
        self._reader = for_single_reads(engine)

    def receive(
        self,
        requester: str,
        transaction_uid: str,
        objects: Sequence[Reference],
        due_after: timedelta,
        now: datetime | None = None,
    ) -> str:
        """Record a request durably, to be answered ``due_after`` the present time if nobody answers it before; return its id.

        A repeated request (same requester, Transaction UID and objects) is answered again. A request with the same Transaction UID and
        other objects is recorded as a duplicate, and none of its objects is committed.
        """
        text = "\n".join(" ".join(reference) for reference in objects)
        with self._writer.begin() as connection:
            moment = now or clock.now(connection)
            known = connection.execute(
                select(CommitmentRequest.request_id, CommitmentRequest.objects).where(
                    CommitmentRequest.requester == requester, CommitmentRequest.transaction_uid == transaction_uid
                )
            ).all()
            same = next((row.request_id for row in known if row.objects == text), None)
            state = {
                "state": RequestState.PENDING,
                "attempts": 0,
                "received_at": moment,
                "due_at": moment + due_after,
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

    def claim(self, request_id: str, now: datetime | None = None) -> ClaimedRequest | None:
        """Claim a request to answer it now; None when it is answered or given up. It becomes due again in case this attempt never ends."""
        moment = now or clock.now(self._engine)
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
        return ClaimedRequest(request_id, row.requester, row.transaction_uid, pairs, row.duplicate, attempt)

    def next_due(self, now: datetime | None = None) -> ClaimedRequest | None:
        """Claim the request whose next attempt has been due for the longest time; None when none is due. Each is returned once."""
        moment = now or clock.now(self._engine)
        # A due time further in the future than any wait is from before the clock was set back (`alnnode.db.clock`).
        due = (CommitmentRequest.due_at <= moment) | (CommitmentRequest.due_at > moment + _CEILING + MAX_SKEW)
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
        """Record that the requester received the answer, with the number of objects that were not committed."""
        self._end(
            request_id, RequestState.ANSWERED, failures=failures, answered_at=now or clock.now(self._engine), last_error=None
        )

    def deferred(self, request: ClaimedRequest, error: str, now: datetime | None = None) -> None:
        """Record why the answer was not received; the wait until the next attempt doubles each time, up to 15 minutes."""
        due_at = (now or clock.now(self._engine)) + min(_FIRST * (1 << min(request.attempt, 10)), _CEILING)
        self._end(request.request_id, RequestState.PENDING, last_error=error[:MAX_TEXT], due_at=due_at)

    def given_up(self, request_id: str, error: str) -> None:
        """Record that no further attempt is made; the requester may repeat the request."""
        self._end(request_id, RequestState.FAILED, last_error=error[:MAX_TEXT])

    def _end(self, request_id: str, state: RequestState, **values: object) -> None:
        with self._writer.begin() as connection:
            connection.execute(
                update(CommitmentRequest)
                .where(CommitmentRequest.request_id == request_id, CommitmentRequest.state == RequestState.PENDING)
                .values(state=state, **values)
            )

    def delete_old(self, now: datetime | None = None) -> int:
        """Delete requests that were received long ago (`RETENTION`) and were answered or given up; return how many."""
        ended = CommitmentRequest.state.in_((RequestState.ANSWERED, RequestState.FAILED))
        old = CommitmentRequest.received_at < (now or clock.now(self._engine)) - RETENTION
        with self._writer.begin() as connection:
            return int(connection.execute(delete(CommitmentRequest).where(ended, old)).rowcount)

    def recorded(self, sop_instance_uids: Collection[str]) -> dict[str, RecordedObject]:
        """Return the recorded objects of these SOP Instance UIDs."""
        uids, found = sorted(set(sop_instance_uids)), dict[str, RecordedObject]()
        columns = (Instance.sop_instance_uid, Instance.sop_class_uid, Instance.path, Instance.sha256)
        for start in range(0, len(uids), _BATCH):
            query = select(*columns).where(Instance.sop_instance_uid.in_(uids[start : start + _BATCH]))
            with self._reader.connect() as connection:
                found |= {row[0]: RecordedObject(row[1], row[2], row[3]) for row in connection.execute(query)}
        return found
