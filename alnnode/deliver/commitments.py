"""Storage commitment of what was delivered (PS3.4 Annex J): COMMITTING to SENT, or back to PENDING for what was not committed.

Every question to a destination has a Transaction UID of its own, which no stranger can guess. An answer counts whenever it comes: an
archive may take hours, and may answer the first question after it was asked a second time.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import insert, select, update

from alnnode.db.engine import for_writing
from alnnode.db.tables import Delivery, DeliveryState, Job, Transaction
from alnnode.deliver import delivery_rows

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy.engine import Connection, Engine, RowMapping

MAX_RESENDS = 3  # times that objects are sent again because the destination did not commit them


class Commitments:
    """The questions and answers of the node as Storage Commitment SCU. Safe to share between threads.

    ``now`` arguments default to the clock; all times are aware.
    """

    def __init__(self, engine: Engine) -> None:
        self._writer = for_writing(engine)

    def sent(self, delivery_id: str, sop_instance_uids: Collection[str], now: datetime | None = None) -> bool:
        """Note that a destination took these objects and is to commit them; the sweep then enqueues the question."""
        moment = now or datetime.now(UTC)
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
        """Write down a question before it is put: its answer may be faster than whatever would follow."""
        with self._writer.begin() as connection:
            connection.execute(
                insert(Transaction).values(
                    transaction_uid=transaction_uid, delivery_id=delivery_id, asked_at=now or datetime.now(UTC)
                )
            )

    def asked(self, delivery_id: str, until: datetime) -> bool:
        """Note that the destination took the question; it is asked again at ``until``. False when it has answered already."""
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
        resend_at: datetime,
        now: datetime | None = None,
    ) -> bool:
        """Take an answer: SOP Instance UIDs that are committed, and those that are not, with the reason.

        When all are, the delivery is at its end. What is not is sent again at ``resend_at``, at most `MAX_RESENDS` times; then the
        delivery and its job fail. False when nobody asked that, or the delivery is no longer there.
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
            # As in `deliveries.settle`: answers and deliveries of one job come one after the other.
            connection.execute(select(Job.job_id).where(Job.job_id == row["job_id"]).with_for_update())
            query = select(Delivery.__table__).where(Delivery.delivery_id == row["delivery_id"])
            row = connection.execute(query).mappings().one()
            if row["state"] in delivery_rows.OPEN:
                _take(connection, row, committed, failed, resend_at, now or datetime.now(UTC))
            return True


def _take(
    connection: Connection,
    row: RowMapping,
    committed: Collection[str],
    failed: Mapping[str, str],
    resend_at: datetime,
    now: datetime,
) -> None:
    everything = [file.sop_instance_uid for file in delivery_rows.files(connection, row["job_id"], row["roles"].split())]
    open_ = everything if row["uncommitted"] is None else row["uncommitted"].split()
    left = [uid for uid in open_ if uid not in committed]
    refused = [uid for uid in left if uid in failed]
    delivery_id = row["delivery_id"]
    if not left:
        delivery_rows.complete(connection, delivery_id, {"committed_at": now, "uncommitted": ""}, now)
    elif not refused or row["state"] == DeliveryState.PENDING:
        values: dict[str, object] = {"uncommitted": " ".join(left), "unanswered": 0}
        connection.execute(update(Delivery).where(Delivery.delivery_id == delivery_id).values(values))
    elif row["resends"] >= MAX_RESENDS:
        words = f"{len(refused)} of {len(everything)} objects are not committed though they were sent {MAX_RESENDS + 1} times"
        delivery_rows.refuse(connection, delivery_id, f"{words}: {failed[refused[0]]}", now)
    else:
        values = {
            "state": DeliveryState.PENDING,
            "uncommitted": " ".join(left),
            "resends": row["resends"] + 1,
            "attempts": 0,
            "next_attempt_at": resend_at,
            "due_at": resend_at,
            "last_error": f"{len(refused)} objects were not committed and are sent again: {failed[refused[0]]}",
        }
        delivery_rows.settle(connection, delivery_id, values)
