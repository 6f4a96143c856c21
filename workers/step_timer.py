"""Which step of its analysis a job is at, and how long each took."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alnnode.status.progress import Figures

END = "deliver"


class Steps:
    """The steps of one attempt."""

    def __init__(self, figures: Figures, job_id: str) -> None:
        self._figures, self._job_id = figures, job_id
        self._present: tuple[str, float] | None = None

    def begin(self, step: str) -> None:
        """Begin a step, which ends the one before."""
        now = time.monotonic()
        ended = None if self._present is None else (self._present[0], now - self._present[1])
        self._figures.begin(self._job_id, step, ended)
        self._present = step, now
