"""The present step of a job's analysis, and the duration of each step."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alnnode.status.progress import WorkProgress

END = "deliver"


class StepTimer:
    """Records the steps of one attempt."""

    def __init__(self, progress: WorkProgress, job_id: str) -> None:
        self._progress, self._job_id = progress, job_id
        self._present: tuple[str, float] | None = None

    def begin(self, step: str) -> None:
        """Record that a step begins, which ends the step before."""
        now = time.monotonic()
        ended = None if self._present is None else (self._present[0], now - self._present[1])
        self._progress.begin_step(self._job_id, step, ended)
        self._present = step, now
