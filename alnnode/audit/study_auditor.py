"""What the audit adapters of all stages share: messages about studies, the patient of a study, and events that repeat."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from alnnode.audit.events import study
from alnnode.audit.repeated_events import RepeatedEvents
from alnnode.audit.trail import patient_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from alnnode.audit.codes import Code
    from alnnode.audit.message import Message, ParticipantObject
    from alnnode.audit.trail import Trail

    StudyFiles = Callable[[], Iterable[Path]]

UNKNOWN = "unknown"  # Study Instance UID of refused objects, whose study was not read; user ID of a user who gave none
REPEATED_ALERTS = 60.0  # seconds within which equal alerts are written once


@dataclass(slots=True)
class StudyInstances:
    """The instances of one study that a message is about.

    Attributes:
        classes: number of instances of each SOP Class UID.
        files: returns files of the study; called only when messages name patients, in the thread of the audit trail.
    """

    classes: Counter[str] = field(default_factory=Counter)
    files: StudyFiles | None = None


class StudyAuditor:
    """Base of the audit adapters: one for each stage, which says what happened in the terms of that stage."""

    def __init__(self, trail: Trail) -> None:
        self._trail, self._events = trail, trail.events
        self._repeated_alerts = RepeatedEvents(REPEATED_ALERTS)

    def _write(self, message: Message, files: StudyFiles | None = None) -> None:
        """Write a message; the patient is that of the first of ``files`` that can be read."""

        def find_patient() -> ParticipantObject | None:
            return None if files is None else patient_in(files())

        self._trail.put(message, None if files is None else find_patient)

    def _write_received(self, sender: str, address: str, studies: Mapping[str, StudyInstances], refused: int) -> None:
        """Write one message for each study that a peer sent.

        Args:
            sender: AE title, or name of a token.
            address: of the sender.
            studies: what was stored, by Study Instance UID.
            refused: number of refused objects. Their study is not known: the first message counts all of them.
        """
        for uid, instances in (studies or {UNKNOWN: StudyInstances()}).items():
            self._write(self._events.received(sender, address, study(uid, instances.classes), refused), instances.files)
            refused = 0

    def _alert(self, kind: Code, peer: str, address: str, why: str) -> None:
        """Write a Security Alert (PS3.15 section A.5.3.11); of equal alerts within a minute only the first."""
        if self._repeated_alerts.is_first(kind, peer, address, why):
            self._write(self._events.alert(kind, peer, address, why))
