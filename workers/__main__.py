"""``python -m workers analyse|deliver`` runs one worker. The environment variable ``ALNNODE_CONFIG`` names the settings file.

Exit codes: 1 the worker does not start; 2 wrong usage; 3 the settings are not valid.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from alnnode import logs
from alnnode.errors import AlnnodeError, SettingsError
from alnnode.process.job_logs import JobLogs
from alnnode.settings import load
from alnnode.task_queue import ANALYSE, DELIVER
from workers.app import create, refuse_at_start, run
from workers.runtime import Runtime

EXIT_REFUSED, EXIT_SETTINGS = 1, 3


def main() -> int:
    """Run the worker of the queue that the command line names."""
    queue = sys.argv[1] if len(sys.argv) == 2 else ""
    if queue not in {ANALYSE, DELIVER}:
        sys.stderr.write(f"usage: python -m workers {ANALYSE}|{DELIVER}\n")
        return 2
    config = os.environ.get("ALNNODE_CONFIG")
    try:
        settings = load(Path(config) if config else None)
        logs.configure(settings.logging, JobLogs(settings.node.data_dir).write)
        refuse_at_start(settings, queue)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_SETTINGS
    except AlnnodeError as error:
        sys.stderr.write(f"the {queue} worker does not start: {error}\n")
        return EXIT_REFUSED
    run(create(Runtime(settings)), queue, settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
