"""``python -m alnnode.receive``: run one listening process; ``ALNNODE_CONFIG`` names the settings file."""

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
    from alnnode.receive.scp import run_listener
    from alnnode.settings import load


def main() -> int:
    """Listen until SIGTERM."""
    # A collection of garbage need not visit what the imports made: it takes some 10 ms instead of 100, in which the process receives nothing.
    gc.freeze()
    config = os.environ.get("ALNNODE_CONFIG")
    try:
        settings = load(Path(config) if config else None)
        logs.configure(settings.logging, JobLogs(settings.node.data_dir).write)
        run_listener(settings, ready=lambda _: report_ready())
    except AlnnodeError as error:
        sys.stderr.write(f"the listener cannot start: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
