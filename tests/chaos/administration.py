"""What an administrator does while the node works: reload, drain, pause, backfill. Nothing may be refused, lost or doubled by it."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from datetime import date, timedelta
from typing import TYPE_CHECKING

from archives import archive
from listening import wait_for
from sqlalchemy.exc import SQLAlchemyError

from alnnode.db.pauses import ANALYSIS
from chaos import studies

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydicom.dataset import FileDataset

    from chaos.rig import Rig
    from chaos.studies import Study

FIRST_DAY = date(2024, 1, 1)  # of the studies of the first backfill; each has a day of its own
FIRST_NUMBER = 100_000  # of a study in the archive
STUDIES = 2  # of one backfill
ATTEMPTS = 20  # of the command, which stops when the database is away; the same command continues
PATIENCE = 120.0  # seconds
POLL = 0.1  # seconds


class Administration:
    """Acts on the node, and notes what must not happen.

    Attributes:
        violations: a line for each analysis that ran while the node was drained.
        backfilled: the studies that the archive sent.
    """

    def __init__(self, rig: Rig, original: list[FileDataset]) -> None:
        self._rig, self._original, self._stack = rig, original, ExitStack()
        self._archive = self._stack.enter_context(archive(rig.port, ()))
        self.violations: list[str] = []
        self.backfilled: list[Study] = []
        self._days = 0

    def close(self) -> None:
        """Stop the archive."""
        self._stack.close()

    def pause(self, target: str, seconds: float) -> None:
        """Pause the analysis or a destination for some seconds, as `alnnode pause` does."""
        _until_done(lambda: self._rig.pauses.pause(target, "chaos"))
        time.sleep(seconds)
        _until_done(lambda: self._rig.pauses.resume(target))

    def drain(self, seconds: float) -> None:
        """Pause the analysis, wait until no job runs, as `alnnode pause analysis --drain` does, and see that none begins for some seconds."""
        _until_done(lambda: self._rig.pauses.pause(ANALYSIS, "chaos"))
        wait_for(lambda: self._running() == 0, PATIENCE)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self._running():
                self.violations.append("NOT DRAINED: a job runs after the end of a drain")
                break
            time.sleep(POLL)
        _until_done(lambda: self._rig.pauses.resume(ANALYSIS))

    def _running(self) -> int | None:
        with suppress(SQLAlchemyError):
            return self._rig.jobs.running()
        return None

    def backfill(self) -> None:
        """Let the archive have new studies, and have `alnnode backfill` retrieve them."""
        day = FIRST_DAY + timedelta(days=self._days)
        self._days += 1
        added = [
            studies.make(FIRST_NUMBER + len(self.backfilled) + number, self._original, axillae=False)
            for number in range(STUDIES)
        ]
        for study in added:
            for dataset in study.datasets:
                dataset.StudyDate = f"{day:%Y%m%d}"
            study.encode()
            self._archive.images += study.datasets
        self.backfilled += added
        command = [sys.executable, "-m", "alnnode", "backfill", "source", "--from", str(day), "--to", str(day)]
        command += ["--rate", "1000000", "--waiting", "100000", "--config", str(self._rig.backfill_config(self._archive.port))]
        for _ in range(ATTEMPTS):
            done = subprocess.run(
                command, capture_output=True, text=True, env=self._rig.environment, check=False, timeout=PATIENCE
            )
            if done.returncode == 0:
                break
            time.sleep(1)
            command = [*dict.fromkeys([*command, "--retry-failed"])]
        else:
            self.violations.append(f"NOT BACKFILLED: {done.stdout[-300:]} {done.stderr[-300:]}")
            return
        for study in added:
            study.acknowledged, study.complete_at = set(study.digests), time.monotonic()


def _until_done(act: Callable[[], object]) -> None:
    """Repeat an action while the database restarts."""

    def done() -> bool:
        with suppress(SQLAlchemyError):
            act()
            return True
        return False

    wait_for(done, 60)
