"""Storage commitment of delivered objects (PS3.4 Annex J): COMMITTING to SENT, or back to PENDING for objects that were not committed.

Every request to a destination has its own Transaction UID, which others cannot guess. A late answer counts too: an archive may take hours,
and may answer the first request after it received a second one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import insert, select, update

from alnnode.counted import counted
from alnnode.db import clock
from alnnode.db.engine import for_writing
from alnnode.db.tables import Delivery, DeliveryState, Job, Transaction
from alnnode.deliver import delivery_rows

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime, timedelta

    from sqlalchemy.engine import Connection, Engine, RowMapping

MAX_RESENDS = 3  # times that objects are resent because the destination did not commit them


class Commitments:
    """The requests of the node as Storage Commitment SCU, and their answers. Safe to share between threads.

    ``now`` arguments default to the clock of the database; all times are aware.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine, self._writer = engine, for_writing(engine)

    def sent(self, delivery_id: str, sop_instance_uids: Collection[str], now: datetime | None = None) -> bool:
        """Record that a destination stored these objects and is to commit them; the sweep then enqueues the request."""
        moment = now or clock.now(self._engine)
        values: dict[str, object] = {
            "state": DeliveryState.COMMITTING,
            "uncommitted": " ".join(sop_instance_uids),
            "sent_at": moment,
            "last_error": None,
            "attempts": 0,
            "unanswered": 0,
            "next_attempt_at": moment,
            "due_at": moment,
        }
        with self._writer.begin() as connection:
            return delivery_rows.settle(connection, delivery_id, values, [DeliveryState.PENDING]) is not None

    def ask(self, delivery_id: str, transaction_uid: str, now: datetime | None = None) -> None:
        """Record a request before it is sent, because its answer may come before the sending returns."""
        with self._writer.begin() as connection:
            connection.execute(
                insert(Transaction).values(
                    transaction_uid=transaction_uid, delivery_id=delivery_id, asked_at=now or clock.now(connection)
                )
            )

    def asked(self, delivery_id: str, until: datetime) -> bool:
        """Record that the destination accepted the request; without an answer, the next request is sent at ``until``.

        Returns:
            False when the destination has answered already.
        """
        values: dict[str, object] = {
            "next_attempt_at": until,
            "due_at": until,
            "last_error": None,
            "attempts": 0,
            "unanswered": Delivery.unanswered + 1,
        }
        with self._writer.begin() as connection:
            return delivery_rows.settle(connection, delivery_id, values, [DeliveryState.COMMITTING]) is not None

    def answered(
        self,
        transaction_uid: str,
        committed: Collection[str],
        failed: Mapping[str, str],
        resend_after: timedelta,
        now: datetime | None = None,
    ) -> bool:
        """Record an answer to a request. When every object is committed, the delivery is SENT.

        Args:
            transaction_uid: of the request.
            committed: SOP Instance UIDs of committed objects.
            failed: the reason by SOP Instance UID, of objects that are not committed.
            resend_after: how long after the answer these are resent. After `MAX_RESENDS` times, the delivery and its job are FAILED instead.
            now: see the class.

        Returns:
            False when the node sent no such request, or the delivery was deleted.
        """
        with self._writer.begin() as connection:
            found = connection.execute(
                select(Delivery.__table__)
                .join(Transaction, Transaction.delivery_id == Delivery.delivery_id)
                .where(Transaction.transaction_uid == transaction_uid)
            )
            row = found.mappings().one_or_none()
            if row is None:
                return False
            # As in `delivery_rows.settle`: the changes of the deliveries of a job are made one after the other.
            connection.execute(select(Job.job_id).where(Job.job_id == row["job_id"]).with_for_update())
            query = select(Delivery.__table__).where(Delivery.delivery_id == row["delivery_id"])
            row = connection.execute(query).mappings().one()
            if row["state"] in delivery_rows.OPEN:
                moment = now or clock.now(connection)
                _record(connection, row, _Answer(committed, failed, moment + resend_after, moment))
            return True


@dataclass(frozen=True, slots=True)
class _Answer:
    """The arguments of `Commitments.answered`."""

    committed: Collection[str]
    failed: Mapping[str, str]
    resend_at: datetime
    now: datetime


def _record(connection: Connection, row: RowMapping, answer: _Answer) -> None:
    rows = delivery_rows.result_rows(connection, row["job_id"], row["roles"].split())
    everything = [file.sop_instance_uid for file in rows]
    open_ = everything if row["uncommitted"] is None else row["uncommitted"].split()
    left = [uid for uid in open_ if uid not in answer.committed]
    refused = [uid for uid in left if uid in answer.failed]
    delivery_id = row["delivery_id"]
    if not left:
        delivery_rows.complete(connection, delivery_id, {"committed_at": answer.now, "uncommitted": ""}, answer.now)
    elif not refused or row["state"] == DeliveryState.PENDING:
        values: dict[str, object] = {"uncommitted": " ".join(left), "unanswered": 0}
        connection.execute(update(Delivery).where(Delivery.delivery_id == delivery_id).values(values))
    elif row["resends"] >= MAX_RESENDS:
        words = f"{len(refused)} of {len(everything)} objects are not committed though they were sent {MAX_RESENDS + 1} times"
        delivery_rows.refuse(connection, delivery_id, f"{words}: {answer.failed[refused[0]]}", answer.now)
    else:
        values = {
            "state": DeliveryState.PENDING,
            "uncommitted": " ".join(left),
            "resends": row["resends"] + 1,
            "attempts": 0,
            "next_attempt_at": answer.resend_at,
            "due_at": answer.resend_at,
            "last_error": f"{counted(len(refused), 'object was not committed and is', 'objects were not committed and are')} resent: {answer.failed[refused[0]]}",
        }
        delivery_rows.settle(connection, delivery_id, values)
