"""The outbox of messages: notices are gathered into messages, and each message is claimed under a lease until it is sent.

A sender that is killed between the receiver's answer and the record of it leaves a message that is sent again: with the same id, so that
the receiver can drop the duplicate. Everything else is sent once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

from sqlalchemy import and_, delete, func, insert, or_, select, update

from alnnode.db.clock import MAX_SKEW
from alnnode.db.engine import for_writing
from alnnode.db.notify_tables import MessageRow, MessageState, NoticeRow
from alnnode.db.transitions import MAX_TEXT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import Engine

MOST_EVENTS = 100  # in one message
FIRST_WAIT, LONGEST_WAIT = timedelta(seconds=10), timedelta(minutes=15)
GIVEN_UP_AFTER = timedelta(days=3)
FORGOTTEN_AFTER = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Notice:
    """One event of a message."""

    event_id: str
    kind: str
    subject: str
    text: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Message:
    """Several events for one channel; every attempt has the same id and the same events."""

    message_id: str
    channel: str
    attempt: int
    created_at: datetime
    notices: tuple[Notice, ...]


class NoticeOutbox:
    """Safe to share between threads and processes. All times are aware."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._writer = engine, for_writing(engine)

    def gather(self, channels: Sequence[str], gather: timedelta, now: datetime) -> int:
        """Make messages of the notices, as soon as the oldest has waited for ``gather``; return how many messages.

        Each message has at most `MOST_EVENTS` events, and a row for each channel.
        """
        waiting = NoticeRow.message_id.is_(None)
        made = 0
        with self._writer.begin() as connection:
            oldest = connection.execute(select(func.min(NoticeRow.at)).where(waiting)).scalar_one()
            if oldest is None or now < oldest + gather <= now + gather + MAX_SKEW:
                return 0
            query = select(NoticeRow.event_id).where(waiting).order_by(NoticeRow.at, NoticeRow.event_id)
            while found := connection.execute(query.limit(MOST_EVENTS).with_for_update(skip_locked=True)).scalars().all():
                message_id = uuid4().hex
                connection.execute(update(NoticeRow).where(NoticeRow.event_id.in_(found)).values(message_id=message_id))
                rows = [
                    {
                        "message_id": message_id,
                        "channel": channel,
                        "state": MessageState.PENDING,
                        "attempts": 0,
                        "created_at": now,
                        "due_at": now,
                    }
                    for channel in channels
                ]
                connection.execute(insert(MessageRow), rows)
                made += 1
        return made

    def claim(self, lease: timedelta, now: datetime) -> Message | None:
        """Claim the oldest message that is due, for the time of the lease; None when there is none."""
        longest = max(LONGEST_WAIT, lease) + MAX_SKEW  # a later time was written before the clock was set back
        due = (MessageRow.state == MessageState.PENDING, or_(MessageRow.due_at <= now, MessageRow.due_at > now + longest))
        with self._writer.begin() as connection:
            query = select(MessageRow.__table__).where(*due).order_by(MessageRow.due_at, MessageRow.message_id).limit(1)
            row = connection.execute(query.with_for_update(skip_locked=True)).mappings().one_or_none()
            if row is None:
                return None
            this = and_(MessageRow.message_id == row["message_id"], MessageRow.channel == row["channel"])
            connection.execute(update(MessageRow).where(this).values(attempts=MessageRow.attempts + 1, due_at=now + lease))
            of_message = select(NoticeRow.event_id, NoticeRow.kind, NoticeRow.subject, NoticeRow.text, NoticeRow.at)
            of_message = of_message.where(NoticeRow.message_id == row["message_id"]).order_by(NoticeRow.at, NoticeRow.event_id)
            notices = tuple(Notice(*notice) for notice in connection.execute(of_message))
        return Message(row["message_id"], row["channel"], row["attempts"] + 1, row["created_at"], notices)

    def sent(self, message: Message, now: datetime) -> bool:
        """Record that the receiver accepted a message; return False when another sender has claimed it since."""
        return self._settle(message, state=MessageState.SENT, sent_at=now, last_error=None)

    def failed(self, message: Message, error: str, now: datetime) -> bool:
        """Record that an attempt failed; return whether there is another one, after a wait that doubles up to `LONGEST_WAIT`."""
        again = now - message.created_at < GIVEN_UP_AFTER
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(message.attempt - 1, 16))
        state = MessageState.PENDING if again else MessageState.FAILED
        self._settle(message, state=state, due_at=now + wait, last_error=error[:MAX_TEXT])
        return again

    def _settle(self, message: Message, **values: object) -> bool:
        claimed = (
            MessageRow.message_id == message.message_id,
            MessageRow.channel == message.channel,
            MessageRow.state == MessageState.PENDING,
            MessageRow.attempts == message.attempt,
        )
        with self._writer.begin() as connection:
            return bool(connection.execute(update(MessageRow).where(*claimed).values(values)).rowcount)

    def forget(self, now: datetime) -> int:
        """Delete notices and messages that ended long ago; return the number of notices."""
        before = now - FORGOTTEN_AFTER
        waiting = select(MessageRow.message_id).where(MessageRow.state == MessageState.PENDING)
        with self._writer.begin() as connection:
            ended = (MessageRow.created_at < before, MessageRow.message_id.not_in(waiting))
            old = select(MessageRow.message_id).where(*ended)
            count = connection.execute(delete(NoticeRow).where(NoticeRow.message_id.in_(old))).rowcount
            connection.execute(
                delete(MessageRow).where(MessageRow.created_at < before, MessageRow.state != MessageState.PENDING)
            )
        return int(count)

    def troubles(self) -> list[tuple[str, str, int]]:
        """Return channel, last error and number of the messages that were not sent yet or were given up."""
        query = (
            select(MessageRow.channel, func.max(MessageRow.last_error), func.count())
            .where(MessageRow.state != MessageState.SENT, MessageRow.last_error.is_not(None))
            .group_by(MessageRow.channel)
            .order_by(MessageRow.channel)
        )
        with self._engine.connect() as connection:
            return [(channel, error or "", count) for channel, error, count in connection.execute(query)]
