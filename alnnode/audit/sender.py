"""The thread that sends waiting audit messages, oldest first. One sender works on a data directory, however many hosts share it."""

from __future__ import annotations

import fcntl
import threading
from typing import IO, TYPE_CHECKING

import structlog

from alnnode.audit.outbox import AuditOutbox
from alnnode.audit.sinks import open_sink
from alnnode.errors import ServiceError

if TYPE_CHECKING:
    from alnnode.settings import Settings

log = structlog.get_logger()

POLL = 0.5  # seconds
FIRST_WAIT, LAST_WAIT = 1.0, 60.0  # seconds after a failure
BATCH = 1000


class AuditSender:
    """Sends messages until it is closed; messages that it could not send wait for the next start."""

    def __init__(self, settings: Settings) -> None:
        audit = settings.audit
        self._enabled = audit.kind != "off"
        self._stop = threading.Event()
        if audit.kind == "off":
            return
        self._outbox = AuditOutbox(settings.node.data_dir.resolve(), settings.internal.audit_messages)
        self._sink = open_sink(audit, settings.node.ae_title)
        self._wait = 0.0
        self._thread = threading.Thread(target=self._run, name="audit-sender", daemon=True)
        self._thread.start()

    def close(self, seconds: float = 3.0) -> None:
        """Send the waiting messages once more, and stop; wait at most ``seconds`` for the thread."""
        if self._enabled:
            self._stop.set()
            self._thread.join(seconds)

    def _run(self) -> None:
        with (self._outbox.folder / "sender.lock").open("w") as lock:
            while not self._stop.wait(self._wait or POLL):
                if self._locks(lock):
                    self.send_waiting()
            if self._locks(lock):
                self.send_waiting()
        self._sink.close()

    @staticmethod
    def _locks(lock: IO[str]) -> bool:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # the sender of another host holds the lock
            return False
        return True

    def send_waiting(self) -> None:
        """Send all messages that wait now. Each failure in a row doubles the wait before the next attempt."""
        for path in self._outbox.oldest(BATCH):
            try:
                self._sink.send(path.read_bytes())
                path.unlink()
            except (OSError, ServiceError) as error:
                if not self._wait:
                    words = str(error) if isinstance(error, ServiceError) else type(error).__name__
                    log.warning("audit_not_sent", error=words, waiting=self._outbox.count())
                self._wait = min(LAST_WAIT, self._wait * 2 or FIRST_WAIT)
                return
        if self._wait:
            log.info("audit_sent_again")
        self._wait = 0.0
