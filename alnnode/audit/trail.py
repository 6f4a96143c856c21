"""Accept audit messages from every stage of the node, without making the caller wait and without raising errors."""

from __future__ import annotations

import atexit
import queue
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from alnnode.audit.events import Events
from alnnode.audit.message import ParticipantObject, patient
from alnnode.audit.outbox import AuditOutbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from alnnode.audit.message import Message
    from alnnode.settings import Settings

    FindPatient = Callable[[], ParticipantObject | None]

log = structlog.get_logger()

AT_ONCE = 10_000  # messages that wait in memory until they are on the disk
QUIET = 60.0  # seconds between two log lines on lost messages
CLOSE_LIMIT = 2.0  # seconds


class Trail:
    """Writes messages to the outbox in its own thread; does nothing when the settings turn the audit trail off.

    Attributes:
        events: makes the messages.
        identity: whether messages name the patient.
    """

    def __init__(self, settings: Settings) -> None:
        audit = settings.audit
        self.events = Events(settings.node.ae_title)
        self.identity = audit.identity
        self._source, self._site = settings.node.ae_title, audit.site
        self._logged_at, self._not_logged = float("-inf"), 0  # of lost messages
        self._queue: queue.Queue[tuple[Message, FindPatient | None] | None] = queue.Queue(AT_ONCE)
        self._outbox: AuditOutbox | None = None
        if audit.kind == "off":
            return
        self._outbox = AuditOutbox(settings.node.data_dir.resolve(), settings.internal.audit_messages)
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    @property
    def enabled(self) -> bool:
        """Whether messages are written."""
        return self._outbox is not None

    def put(self, message: Message, find_patient: FindPatient | None = None) -> None:
        """Hand over a message and return immediately.

        Args:
            message: what happened.
            find_patient: returns the patient. The thread of the trail calls it later, and only when messages name patients.
        """
        if self._outbox is None:
            return
        try:
            self._queue.put_nowait((message, find_patient if self.identity else None))
        except queue.Full:
            self._lose()

    def close(self) -> None:
        """Write the messages that were handed over, and stop; later messages are not written."""
        if self._outbox is None or not self._thread.is_alive():
            return
        atexit.unregister(self.close)
        try:
            self._queue.put(None, timeout=CLOSE_LIMIT)
        except queue.Full:
            return
        self._thread.join(CLOSE_LIMIT)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            self._write(*item)

    def _write(self, message: Message, find_patient: FindPatient | None) -> None:
        assert self._outbox is not None
        if find_patient is not None and (person := self._patient(find_patient)) is not None:
            message = replace(message, objects=(*message.objects, person))
        try:
            written = self._outbox.put(message.xml(self._source, self._site))
        except OSError:
            written = False
        if not written:
            self._lose()

    @staticmethod
    def _patient(find_patient: FindPatient) -> ParticipantObject | None:
        """Return the patient, or None after any error: a message without a patient is better than no message and a dead thread."""
        try:
            return find_patient()
        except Exception as error:  # noqa: BLE001 - the function may call the database, the disk and pydicom
            log.warning("audit_patient_not_found", error=type(error).__name__)
            return None

    def _lose(self) -> None:
        """Count a lost message; log the count at most once in `QUIET` seconds."""
        assert self._outbox is not None
        self._not_logged += 1
        try:
            self._outbox.lose()
        except OSError as error:
            log.error("audit_loss_not_counted", error=type(error).__name__)  # noqa: TRY400 - no paths in logs
        if time.monotonic() - self._logged_at >= QUIET:
            log.error("audit_messages_lost", count=self._not_logged, silent_for_s=QUIET)
            self._logged_at, self._not_logged = time.monotonic(), 0


def patient_in(paths: Iterable[Path]) -> ParticipantObject | None:
    """Return the patient of the first of these objects that can be read; None when none can."""
    from alnnode.imaging import part10  # noqa: PLC0415 - a supervisor starts without pydicom, whose import takes half a second

    for path in paths:
        try:
            found = part10.read(path, pixels=False, tags=["PatientID", "PatientName", "SpecificCharacterSet"])
            identifier, name = str(found.get("PatientID") or ""), str(found.get("PatientName") or "")
        # pydicom promises no set of exceptions; a message without its patient is better than no message.
        except Exception:  # noqa: BLE001, S112
            continue
        return patient(identifier or "none", name)
    return None
