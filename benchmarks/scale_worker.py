"""An analysing worker of `scale.py` whose analysis sleeps: ``python scale_worker.py SECONDS``; ``ALNNODE_CONFIG`` names the settings."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from alnnode import logs
from alnnode.settings import load
from alnnode.task_queue import ANALYSE
from workers.app import create, run
from workers.runtime import Runtime


class SleepingAnalyst:
    """Takes a fixed time and no CPU, and returns no objects, so that nothing is delivered."""

    digest = "0" * 64
    arithmetic = "sleep"

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def analyse(self, paths, context, progress, marks=()):  # noqa: ANN001, ANN201, ARG002
        """Report the steps of an analysis and sleep."""
        for step in ("read", "locate", "classify", "explain", "report"):
            progress(step)
            time.sleep(self._seconds / 5)
        return [], None


if __name__ == "__main__":
    settings = load(Path(os.environ["ALNNODE_CONFIG"]))
    logs.configure(settings.logging)
    run(create(Runtime(settings, SleepingAnalyst(float(sys.argv[1])))), ANALYSE, settings)
