"""The thread that observes the node and sends notices. Of several hosts, the one that holds the lease does."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

import structlog
from sqlalchemy.exc import SQLAlchemyError

from alnnode.db import clock
from alnnode.db import engine as engines
from alnnode.db.leader import Leader
from alnnode.errors import ServiceError
from alnnode.notify.notices import Notices
from alnnode.notify.outbox import NoticeOutbox

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.engine import Engine

    from alnnode.notify.outbox import Message
    from alnnode.settings import Settings

log = structlog.get_logger()

LEASE = timedelta(seconds=120)  # longer than an attempt takes; a message of a killed sender is sent again after it
CLEANING_INTERVAL = 3600.0  # seconds


class Channel(Protocol):
    """A way to an administrator."""

    def send(self, message: Message) -> None:
        """Send a message.

        Raises:
            ServiceError: the receiver did not accept it.
        """


def channels(settings: Settings) -> Mapping[str, Channel]:
    """Return the channels of the settings by name."""
    notify, node = settings.notify, settings.node.ae_title
    found: dict[str, Channel] = {}
    # A supervisor starts without the libraries of channels that the settings do not have.
    if notify.webhook is not None:
        from alnnode.notify.webhook import WebhookChannel  # noqa: PLC0415

        found["webhook"] = WebhookChannel(notify.webhook, node)
    if notify.mail is not None:
        from alnnode.notify.mail import MailChannel  # noqa: PLC0415

        found["mail"] = MailChannel(notify.mail, node)
    return found


class Notifier:
    """Observes and sends until it is closed. Without a channel in the settings it does nothing."""

    def __init__(self, settings: Settings, engine: Engine, lease: timedelta = LEASE) -> None:
        self._settings, self._engine, self._lease = settings, engine, lease
        self._channels = channels(settings)
        self._notices, self._outbox = Notices(settings, engine), NoticeOutbox(engine)
        self._next_cleaning = 0.0

    def once(self) -> None:
        """Write the notices of new events, gather them into messages, and send all messages that are due.

        Raises:
            OSError, SQLAlchemyError: the disk or the database fails; the next call continues.
        """
        if not self._channels:
            return
        self._notices.observe(clock.now(self._engine))
        self._outbox.gather(tuple(self._channels), timedelta(seconds=self._settings.notify.gather), clock.now(self._engine))
        while message := self._outbox.claim(self._lease, clock.now(self._engine)):
            self._send(message)
        if time.monotonic() >= self._next_cleaning:
            self._outbox.forget(clock.now(self._engine))
            self._next_cleaning = time.monotonic() + CLEANING_INTERVAL

    def _send(self, message: Message) -> None:
        try:
            if message.channel not in self._channels:
                raise ServiceError("the settings no longer have this channel")  # noqa: TRY301 - handled like every failure
            self._channels[message.channel].send(message)
        except ServiceError as error:
            facts = {"message": message.message_id, "channel": message.channel, "attempt": message.attempt, "error": str(error)}
            if self._outbox.failed(message, str(error), clock.now(self._engine)):
                log.warning("notice_not_sent", **facts)
            else:
                log.error("notice_given_up", **facts)  # noqa: TRY400 - the text of the error is the reason
            return
        self._outbox.sent(message, clock.now(self._engine))
        log.info("notice_sent", message=message.message_id, channel=message.channel, events=len(message.notices))


class NotifierThread:
    """Calls `Notifier.once` periodically, in a thread of its own: a mail server that hangs must not delay the sweep."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._stop = settings, threading.Event()
        self._thread = threading.Thread(target=self._run, name="notifier", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self, seconds: float = 3.0) -> None:
        """Stop; wait at most ``seconds``. A message that is being sent then is sent again after its lease."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        database, notifier = engines.create(self._settings.database_url, 1), None
        leader = Leader(database, "notifications")
        alone = database.dialect.name == "sqlite"  # its file is on one host
        while not self._stop.wait(self._settings.internal.notify_interval):
            try:
                if alone or leader.leads():
                    notifier = notifier or Notifier(self._settings, database)  # it needs the disk, which may be away
                    notifier.once()
            except Exception as error:  # noqa: BLE001 - a fault in one message must not end all notifications
                log.warning("notify_failed", error=type(error).__name__)
        with suppress(SQLAlchemyError):  # the lease ends soon anyway
            leader.resign()
        database.dispose()
