"""``python -m chaos``: the long run; prints the table of docs/security.md and exits with 1 if an invariant is violated."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

from chaos.results import ChaosResult
from chaos.run import administer, chaos


def main() -> int:
    """Run the schedule and print the result."""
    parser = argparse.ArgumentParser(prog="python -m chaos")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=210)
    parser.add_argument("--studies", type=int, default=110)
    parser.add_argument("--keep", action="store_true", help="do not delete the folder with the logs")
    parser.add_argument(
        "--remote-database",
        action="store_true",
        help="run PostgreSQL in another network namespace, and cut the link; needs root",
    )
    parser.add_argument(
        "--administration", action="store_true", help="no faults: reload, drain, pause and backfill under load; see --actions"
    )
    parser.add_argument("--actions", type=int, default=40, help="of --administration, with as many studies")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="alnnode-chaos-"))
    out = _administer(folder, options) if options.administration else _chaos(folder, options)
    print(out.explain())
    print("FAILED" if out.violations else "no violations: no image lost, no report duplicated, no job stuck")
    if not (out.violations or options.keep):
        import shutil

        shutil.rmtree(folder, ignore_errors=True)
    else:
        print(f"logs: {folder}")
    return 1 if out.violations else 0


def _administer(folder: Path, options: argparse.Namespace) -> ChaosResult:
    out = administer(folder, options.seed, actions=options.actions, studies_count=options.actions, pause=(0.2, 1.5))
    print(out.table())
    kinds = Counter(line.partition(":")[0] for line in out.violations)
    print(
        f"\nseed {options.seed}: {out.faults} actions over {out.studies} studies, and {out.backfilled} studies by backfill; {out.images} acknowledged "
        f"images, {out.seconds:.0f} s; {out.refused} refused, {kinds['LOST']} lost, {kinds['DUPLICATED']} doubled, {kinds['NOT DRAINED']} not drained"
    )
    return out


def _chaos(folder: Path, options: argparse.Namespace) -> ChaosResult:
    out = chaos(
        folder,
        options.seed,
        faults_count=options.faults,
        studies_count=options.studies,
        pause=(0.2, 2.4),
        poison=True,
        remote_database=options.remote_database,
    )
    print(out.table())
    print(
        f"\nseed {options.seed}: {out.faults} faults over {out.studies} studies, {out.images} acknowledged images, {out.seconds:.0f} s; "
        f"without faults at most {max(out.calm):.1f} s, all jobs ended {out.drained:.0f} s after the last fault, {out.retried} retried with `alnnode retry`"
    )
    return out


if __name__ == "__main__":
    sys.exit(main())
