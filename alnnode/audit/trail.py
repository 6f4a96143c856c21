"""What the other rooms hand audit messages to. It never makes them wait, and never fails."""

from __future__ import annotations

import atexit
import queue
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog
from pydicom import dcmread

from alnnode.audit.events import Events
from alnnode.audit.message import Thing, patient
from alnnode.audit.outbox import Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from alnnode.audit.message import Message
    from alnnode.settings import Settings

    FindPatient = Callable[[], Thing | None]

log = structlog.get_logger()

AT_ONCE = 10_000  # messages that this process holds until they are on the disk
QUIET = 60.0  # seconds between two lines in the log on what was lost
CLOSE_LIMIT = 2.0  # seconds


class Trail:
    """Writes messages to the disk in a thread of its own; does nothing when the settings want no audit trail.

    Attributes:
        events: makes the messages.
        identity: whether messages name the patient.
    """

    def __init__(self, settings: Settings) -> None:
        audit = settings.audit
        self.events = Events(settings.node.ae_title)
        self.identity = audit.identity
        self._source, self._site = settings.node.ae_title, audit.site
        self._told_at, self._untold = float("-inf"), 0
        self._queue: queue.Queue[tuple[Message, FindPatient | None] | None] = queue.Queue(AT_ONCE)
        self._waiting: Waiting | None = None
        if audit.kind == "off":
            return
        self._waiting = Waiting(settings.node.data_dir.resolve(), settings.internal.audit_messages)
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    @property
    def enabled(self) -> bool:
        """Whether messages are kept at all."""
        return self._waiting is not None

    def put(self, message: Message, find_patient: FindPatient | None = None) -> None:
        """Hand over; returns at once. ``find_patient`` is asked later, in another thread, and only if patients are to be named."""
        if self._waiting is None:
            return
        try:
            self._queue.put_nowait((message, find_patient if self.identity else None))
        except queue.Full:
            self._lose()

    def close(self) -> None:
        """Write what was handed over; nothing is taken any more."""
        if self._waiting is None or not self._thread.is_alive():
            return
        atexit.unregister(self.close)
        try:
            self._queue.put(None, timeout=CLOSE_LIMIT)
        except queue.Full:
            return
        self._thread.join(CLOSE_LIMIT)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            self._keep(*item)

    def _keep(self, message: Message, find_patient: FindPatient | None) -> None:
        assert self._waiting is not None
        if find_patient is not None and (person := self._patient(find_patient)) is not None:
            message = replace(message, things=(*message.things, person))
        try:
            kept = self._waiting.put(message.xml(self._source, self._site))
        except OSError:
            kept = False
        if not kept:
            self._lose()

    @staticmethod
    def _patient(find_patient: FindPatient) -> Thing | None:
        """Ask for the patient; a message without one is better than none, and than the end of this thread."""
        try:
            return find_patient()
        except Exception as error:  # noqa: BLE001 - it asks the database, the disk, and pydicom
            log.warning("audit_patient_not_found", error=type(error).__name__)
            return None

    def _lose(self) -> None:
        """Count a message that could not be kept, and say so now and then."""
        assert self._waiting is not None
        self._untold += 1
        try:
            self._waiting.lose()
        except OSError as error:
            log.error("audit_loss_not_counted", error=type(error).__name__)  # noqa: TRY400 - no paths in logs
        if time.monotonic() - self._told_at >= QUIET:
            log.error("audit_messages_lost", count=self._untold, silent_for_s=QUIET)
            self._told_at, self._untold = time.monotonic(), 0


def patient_in(paths: Iterable[Path]) -> Thing | None:
    """Return the patient of the first of these objects that can be read."""
    for path in paths:
        try:
            found = dcmread(path, stop_before_pixels=True, specific_tags=["PatientID", "PatientName", "SpecificCharacterSet"])
            identifier, name = str(found.get("PatientID") or ""), str(found.get("PatientName") or "")
        # pydicom promises no set of exceptions; a message without its patient is better than none.
        except Exception:  # noqa: BLE001, S112
            continue
        return patient(identifier or "none", name)
    return None
