"""``python -m alnnode.web``: the HTTP service, a process of the supervisor. ``ALNNODE_CONFIG`` names the settings file."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

from alnnode.process.quick_imports import uncollected

with uncollected():
    from alnnode import logs
    from alnnode.errors import AlnnodeError
    from alnnode.process.job_logs import JobLogs
    from alnnode.process.supervised import report_ready
    from alnnode.settings import load
    from alnnode.web.server import run

# A search allocates and frees thousands of small objects. With Python's default of 700, the garbage collector would run about a dozen times in each
# search, sometimes over all cached attributes, and take about a tenth of its time (benchmarks/qido.py).
GC_THRESHOLD = 50_000  # objects


def main() -> int:
    """Serve until SIGTERM."""
    gc.set_threshold(GC_THRESHOLD, 10, 10)
    config = os.environ.get("ALNNODE_CONFIG")
    try:
        settings = load(Path(config) if config else None)
        logs.configure(settings.logging, JobLogs(settings.node.data_dir).write)
        run(settings, ready=lambda _: report_ready())
    except AlnnodeError as error:
        sys.stderr.write(f"cannot start the HTTP service: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
