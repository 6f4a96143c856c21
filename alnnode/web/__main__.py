"""``python -m alnnode.web``: the HTTP part of the supervisor; the settings file is named by ``ALNNODE_CONFIG``."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

from alnnode import logs
from alnnode.errors import AlnnodeError
from alnnode.process.supervised import report_ready
from alnnode.settings import load
from alnnode.web.server import run

# A search makes thousands of small objects and lets go of all of them; Python's own 700 has it look for cycles among them, and now and then among
# all attributes in memory, a dozen times in each. benchmarks/qido.py: about a tenth of a search's time.
COLLECT_AFTER = 50_000  # objects


def main() -> int:
    """Serve until SIGTERM."""
    gc.set_threshold(COLLECT_AFTER, 10, 10)
    config = os.environ.get("ALNNODE_CONFIG")
    try:
        settings = load(Path(config) if config else None)
        logs.configure(settings.logging)
        run(settings, ready=lambda _: report_ready())
    except AlnnodeError as error:
        sys.stderr.write(f"the web service does not start: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
