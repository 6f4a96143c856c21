"""``python -m hosts``: the long run; prints what was done and exits with 1 if an invariant is violated."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from hosts.network import missing
from hosts.plan import Plan
from hosts.run import hosts


def main() -> int:
    """Run the schedule and print the result."""
    parser = argparse.ArgumentParser(prog="python -m hosts")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=60)
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--longest", type=float, default=15.0, help="seconds that a host is cut off at most")
    parser.add_argument("--store", action="store_true", help="put the spool into an object storage")
    parser.add_argument("--keep", action="store_true", help="do not delete the folder with the logs")
    options = parser.parse_args()
    if lacking := missing():
        print(f"cannot run: this machine lacks {lacking}")
        return 2
    folder = Path(tempfile.mkdtemp(prefix="alnnode-hosts-logs-"))
    out = hosts(
        folder,
        Plan(store=options.store),
        options.seed,
        faults_count=options.faults,
        studies_count=options.studies,
        longest=options.longest,
    )
    print(out.text())
    print("FAILED" if out.violations else "no violations: no image lost, no result duplicated, no job stuck")
    if out.violations or options.keep:
        print(f"logs: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if out.violations else 0


if __name__ == "__main__":
    sys.exit(main())
