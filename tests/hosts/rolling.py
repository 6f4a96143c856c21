"""``python -m hosts.rolling --previous COMMIT``: update the hosts one by one from the wheel of another release, under load, and go back."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.invariants import ENDS
from listening import wait_for
from sqlalchemy import text

from alnnode.db import engine as engines
from hosts.network import missing
from hosts.plan import REPOSITORY, Plan
from hosts.run import HostsResult, conclude
from hosts.site import Site

if TYPE_CHECKING:
    from collections.abc import Iterator

EVERY = 0.7  # seconds between two studies
MOST_WAITING = 12  # studies, or jobs
SIDE_BY_SIDE = 400.0  # seconds until an old and a new worker have claimed jobs, on a busy machine


@dataclass(frozen=True, slots=True)
class Release:
    """The unpacked wheel of a commit, and the schema that it needs."""

    folder: Path
    label: str


def previous(commit: str, folder: Path) -> Release:
    """Build the wheel of a commit and unpack it."""
    source, wheels, site = (folder / name for name in ("source", "wheels", "site"))
    source.mkdir()
    archive = subprocess.run(["git", "-C", REPOSITORY, "archive", commit], check=True, capture_output=True).stdout
    subprocess.run(["tar", "x", "-C", source], input=archive, check=True)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(wheels), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(site)
    code = "from alnnode.db import schema; from alembic.script import ScriptDirectory as S; print(S.from_config(schema._config()).get_current_head())"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    asked = subprocess.run([sys.executable, "-c", code], env=environment, cwd="/", check=True, capture_output=True, text=True)
    return Release(site, asked.stdout.strip())


@contextmanager
def load(site: Site) -> Iterator[None]:
    """Send studies at an even rate, as long as the node keeps up: a busy machine must not fail because of its queue."""
    over = threading.Event()

    def send() -> None:
        while not over.wait(EVERY):
            waiting = sum(count for state, count in site.jobs.counts().items() if state not in ENDS)
            if waiting < MOST_WAITING and sum(study.complete_at is None for study in site.studies) < MOST_WAITING:
                site.send()

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def label_of(site: Site) -> str:
    """Return the label of the schema in the database."""
    with engines.create(site.postgres.local, 1).connect() as connection:
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()


def claims_of(site: Site, host: str) -> int:
    """Return how many jobs a worker has claimed."""
    return site.services[host].logged("job_claimed")


def update(site: Site, old: Release, say: list[str]) -> None:
    """Update all hosts to this release one by one, and go back one by one."""
    site.migrate(REPOSITORY, "--label", old.label)
    say.append(f"schema migrated live, labelled {label_of(site)} for the old processes")
    hosts = list(site.services)
    site.replace("work1", REPOSITORY)
    before = claims_of(site, "work1"), claims_of(site, "work2")
    wait_for(lambda: claims_of(site, "work1") > before[0] and claims_of(site, "work2") > before[1], SIDE_BY_SIDE)
    say.append("a new and an old worker claimed jobs side by side")
    for host in hosts:
        if host != "work1":
            site.replace(host, REPOSITORY)
    site.migrate(REPOSITORY, "--label", "none")
    say.append(f"{len(hosts)} hosts run this release; the schema is {label_of(site)}")
    time.sleep(5)
    site.migrate(REPOSITORY, "--label", old.label)
    for host in hosts:
        site.replace(host, old.folder)
    say.append(f"{len(hosts)} hosts run the old release again, on the new schema with the label {label_of(site)}")
    time.sleep(5)


def rolling(folder: Path, commit: str) -> tuple[HostsResult, list[str]]:
    """Run once; return the result, and what was done."""
    start, out, say = time.monotonic(), HostsResult(), []
    built = folder / "previous"
    built.mkdir()
    old = previous(commit, built)
    # The release before compares clocks of hosts, so they agree here.
    plan = Plan(secure=(), web=("web1", "web2"), sweep=False, skew=0, seconds=0.3, code=old.folder)
    (folder / "logs").mkdir()
    with Site(folder / "logs", plan, 1) as site:
        say.append(f"previous release: commit {commit}, schema {label_of(site)}")
        with load(site):
            time.sleep(8)
            update(site, old, say)
        conclude(site, out)
    out.seconds = time.monotonic() - start
    return out, say


def main() -> int:
    """Run the update and print the result."""
    parser = argparse.ArgumentParser(prog="python -m hosts.rolling")
    parser.add_argument("--previous", required=True, help="tag or commit of the release before")
    options = parser.parse_args()
    if lacking := missing():
        print(f"cannot run: this machine lacks {lacking}")
        return 2
    folder = Path(tempfile.mkdtemp(prefix="alnnode-rolling-"))
    folder.chmod(0o755)
    out, say = rolling(folder, options.previous)
    print("\n".join([*say, out.text(), f"refused: {out.refused} studies had to be sent again"]))
    failed = bool(out.violations or out.refused)
    print(
        "FAILED" if failed else "no violations: nothing refused, nothing lost, nothing duplicated",
        f"\nlogs: {folder}" if failed else "",
    )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
