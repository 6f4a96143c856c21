"""What the sweep tells the audit trail: which studies are no longer kept."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Self

from alnnode.audit.events import study
from alnnode.audit.trail import patient_in

if TYPE_CHECKING:
    from types import TracebackType

    from alnnode.audit.message import ParticipantObject
    from alnnode.audit.trail import Trail
    from alnnode.spool.spool import Spool


class Deletion:
    """One clean-up; at its end one message is written for each study of which something was deleted, also when it was cut short."""

    def __init__(self, spool: Spool, trail: Trail) -> None:
        self._spool, self._trail = spool, trail
        self._files: Counter[str] = Counter()
        self._patients: dict[str, ParticipantObject | None] = {}
        self._patient: ParticipantObject | None = None  # of the series that is being deleted

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for uid, files in self._files.items():
            self._trail.put(self._trail.events.deleted(study(uid), files), partial(self._patients.get, uid))

    def delete(self, paths: tuple[str, ...]) -> None:
        """Delete the files of one series; whose they were is read before, where messages name patients."""
        self._patient = patient_in(map(self._spool.path, paths)) if self._trail.enabled and self._trail.identity else None
        self._spool.delete(paths)

    def told(self, study_uid: str, files: int) -> None:
        """Note that the files of a series of this study are gone."""
        self._files[study_uid] += files
        self._patients.setdefault(study_uid, self._patient)
