"""Audit messages of the retention: which studies had files deleted."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Self

from alnnode.audit.events import study
from alnnode.audit.study_auditor import StudyAuditor
from alnnode.audit.trail import patient_in

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType

    from alnnode.audit.message import ParticipantObject
    from alnnode.audit.trail import Trail


class RetentionAuditor(StudyAuditor):
    """Writes one message for each study, when the ``with`` block of a clean-up ends, also when an exception ends it."""

    def __init__(self, trail: Trail) -> None:
        super().__init__(trail)
        self._files: Counter[str] = Counter()
        self._patients: dict[str, ParticipantObject | None] = {}
        self._patient: ParticipantObject | None = None  # of the series that is deleted now

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for uid, files in self._files.items():
            self._trail.put(self._events.deleted(study(uid), files), partial(self._patients.get, uid))

    def begin_series(self, paths: Iterable[Path]) -> None:
        """Read the patient from the files of a series before they are deleted, if messages name patients."""
        self._patient = patient_in(paths) if self._trail.enabled and self._trail.identity else None

    def series_deleted(self, study_uid: str, files: int) -> None:
        """Count the deleted files of a series of this study."""
        self._files[study_uid] += files
        self._patients.setdefault(study_uid, self._patient)
