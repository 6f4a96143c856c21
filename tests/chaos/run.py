"""One run: studies without faults, studies during scheduled faults, waiting for the end of all jobs, and the check of the invariants."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import torch
from bundles import write_bundle
from listening import wait_for
from processes import children
from sqlalchemy.exc import SQLAlchemyError

from alnnode.db.tables import DeliveryState
from alnnode.locate.detector import DetectorSettings
from alnnode.locate.network import AxillaNet
from alnnode.records import JobState
from chaos import faults, studies
from chaos.administration import Administration
from chaos.invariants import ENDS, violations
from chaos.peers import Network, Pacs, Senders, echoes
from chaos.results import ChaosResult, RecoveryTimes
from chaos.rig import Rig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from chaos.studies import Study

CALM_LIMIT = 180.0  # seconds for a small study from its release to its report without faults, also on a busy machine
END_LIMIT = 600.0  # seconds until all jobs have ended; an idle machine takes about one minute
AXILLAE_EVERY = 6  # every sixth study shows the axillae


class Run:
    """The node, its peers, and the faults that are injected."""

    def __init__(self, folder: Path, seed: int, *, plant: str = "", disk_mb: int = 3000, remote_database: bool = False) -> None:
        self.random = random.Random(seed)
        self.outcome, self.recovery_times = ChaosResult(), RecoveryTimes()
        self.with_nodes, self.without_axillae = studies.originals(folder / "phantom")
        self.pacs = Pacs(lambda _: self.recovery_times.event_seen(faults.DELIVERED))
        self.archive = Pacs(lambda _: self.recovery_times.event_seen(faults.REPORTED))
        self.network = Network(self.pacs.port)
        torch.manual_seed(0)
        settings = DetectorSettings(channels=(4, 6, 8), threshold=0.1)
        bundle = write_bundle(folder / "bundle", (dict(AxillaNet(settings.channels).state_dict()), settings.to_dict()))
        ports = {"pacs": self.network.port, "archive": self.archive.port}
        self.rig = Rig(folder, bundle, ports, plant=plant, disk_mb=disk_mb, remote_database=remote_database)
        self.pacs.node = ("127.0.0.1", self.rig.port)
        self.senders = Senders(self.rig.port, self.rig.web_port, lambda _: self.recovery_times.event_seen(faults.STORED))
        self.administration = Administration(self.rig, self.without_axillae)
        self.world = faults.World(self.rig, self.pacs, self.network, self.senders, self.random, self.administration)
        self.studies: list[Study] = []

    def close(self) -> None:
        """Stop the peers; the rig stops itself."""
        self.senders.close()
        for peer in (self.network, self.pacs, self.archive, self.administration):
            peer.close()

    def send(self, *, axillae: bool = False, poison: bool = False) -> Study:
        """Let a sender send the next study."""
        study = studies.make(
            len(self.studies), self.with_nodes if axillae else self.without_axillae, axillae=axillae, poison=poison
        )
        self.studies.append(study)
        self.senders.send(study)
        return study

    def reported(self, study: Study, times: int = 1) -> bool:
        """Return whether both peers have received at least ``times`` reports of a study."""
        return all(
            sum(pacs.studies[uid] == study.uid for uid in list(pacs.reports)) >= times for pacs in (self.pacs, self.archive)
        )

    def calm(self, count: int = 2) -> None:
        """Send studies one by one without faults; the first one only warms up the worker and is not timed."""
        for number in range(count + 1):
            study = self.send()
            wait_for(lambda study=study: self.reported(study), CALM_LIMIT)
            if number:
                self.outcome.calm.append(time.monotonic() - (study.complete_at or 0))
        self.outcome.violations += self.early()

    def early(self) -> Iterator[str]:
        """Yield a line for each job whose task was received before the job was READY: that task is lost, and the sweep must enqueue another.

        The log shows it. The duration does not, because a busy machine may be as slow.
        """
        claimed = set()
        for line in self.rig.log("work").read_text().splitlines():
            entry = json.loads(line) if line.startswith("{") and line.endswith("}") else {}
            if entry.get("event") == "job_claimed":
                claimed.add(entry["job"])
            elif entry.get("event") == "job_not_claimed" and entry["job"] not in claimed:
                yield f"EARLY: the task of job {entry['job']} was received before the job could be claimed"

    def scheduled(self, count: int) -> list[faults.Fault]:
        """Return faults that this machine can make, in an order that depends on the seed."""
        disk, clock = self.rig.disk.small, self.rig.clock.settable
        self.outcome.left_out = [*([] if disk else [faults.DISK.name]), *([] if clock else [one.name for one in faults.CLOCK])]
        remote = self.rig.postgres.namespace is not None
        return faults.schedule(count, self.random, disk=disk, clock=clock, remote=remote)

    def inject(self, plan: Sequence[faults.Fault], studies_count: int, pause: tuple[float, float]) -> None:
        """Inject faults while studies are sent at an even rate; some studies are sent again later."""
        for number, fault in enumerate(plan):
            while len(self.studies) < studies_count * (number + 1) / len(plan):
                self.send(axillae=len(self.studies) % AXILLAE_EVERY == 0)
            repeated = self.random.choice(self.studies)
            if self.random.random() < 0.2 and repeated.complete_at is not None and not repeated.poison:
                self.senders.send(repeated)
            time.sleep(self.random.uniform(*pause))
            self.recovery_times.fault_started(fault)
            fault.make(self.world)
            self.outcome.faults += 1

    def poison(self) -> Callable[[], None]:
        """Send a study whose analysing process is killed in every attempt; return a function that stops the killing."""
        study = self.send(axillae=True, poison=True)
        ended = threading.Event()

        def kill() -> None:
            killed = 0  # number of the last attempt that was killed
            while not ended.wait(0.05):
                with suppress(SQLAlchemyError):
                    running = [job for job in self.rig.jobs.list(JobState.RUNNING) if job.study_uid == study.uid]
                    if running and running[0].attempts > killed:
                        killed = running[0].attempts
                        self._kill_child()

        thread = threading.Thread(target=kill, daemon=True)
        thread.start()
        return ended.set

    def _kill_child(self) -> None:
        for pid in [child for worker in self.rig.find("workers analyse") for child in children(worker)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def end(self) -> None:
        """Wait until all jobs have ended; then retry once the jobs whose delivery the PACS refused, as an administrator would."""
        start = time.monotonic()
        self.pacs.statuses.clear()
        self._drain(start)
        for job in self.rig.jobs.list(JobState.FAILED):
            refused = any(delivery.state is DeliveryState.FAILED for delivery in job.deliveries)
            poison = any(study.uid == job.study_uid and study.poison for study in self.studies)
            unlucky = not poison and any(words in (job.reason or "") for words in ("ended its worker", "not enough memory"))
            if refused or unlucky:
                command = [sys.executable, "-m", "alnnode", "retry", job.job_id, "--config", str(self.rig.config)]
                subprocess.run(command, check=True, capture_output=True, env=self.rig.environment)
                self.outcome.retried += 1
        self._drain(time.monotonic())
        self.outcome.drained = time.monotonic() - start

    def _drain(self, start: float) -> None:
        def ended() -> bool:
            received = all(study.complete_at is not None for study in self.studies)
            with suppress(SQLAlchemyError):
                return received and self._all_ended()
            return False

        with suppress(AssertionError):  # `violations` names the jobs that have not ended
            wait_for(ended, END_LIMIT - (time.monotonic() - start))

    def _all_ended(self) -> bool:
        jobs = self.rig.jobs.list(limit=10000)
        sent = {study.uid for study in (*self.studies, *self.administration.backfilled)}
        return sent <= {job.study_uid for job in jobs} and all(job.state in ENDS for job in jobs)

    def conclude(self) -> ChaosResult:
        """Check the invariants and return the result."""
        out = self.outcome
        if not echoes(self.rig.port):
            out.violations.append("DEAF: the node does not answer C-ECHO at the end")
        every = [*self.studies, *self.administration.backfilled]
        out.violations += [*self.administration.violations, *violations(self.rig, every, (self.pacs, self.archive))]
        out.studies, out.backfilled = len(self.studies), len(self.administration.backfilled)
        out.images, out.refused = sum(len(study.acknowledged) for study in every), self.senders.refused
        out.recoveries = self.recovery_times.recoveries
        out.unusual = self.rig.unusual() if out.violations else []
        return out


def chaos(
    folder: Path,
    seed: int,
    *,
    faults_count: int,
    studies_count: int,
    pause: tuple[float, float],
    poison: bool,
    remote_database: bool = False,
) -> ChaosResult:
    """Run the complete schedule once."""
    start = time.monotonic()
    run = Run(folder, seed, remote_database=remote_database)
    try:
        with run.rig:
            run.calm()
            stop_killing = run.poison() if poison else None
            run.inject(run.scheduled(faults_count), studies_count, pause)
            run.end()
            if stop_killing:
                stop_killing()
            outcome = run.conclude()
    finally:
        run.close()
    outcome.seconds = time.monotonic() - start
    return outcome


def administer(folder: Path, seed: int, *, actions: int, studies_count: int, pause: tuple[float, float]) -> ChaosResult:
    """Reload, drain, pause and backfill under load, without faults: no sender may be refused, besides the invariants of `chaos`."""
    start = time.monotonic()
    run = Run(folder, seed)
    try:
        with run.rig:
            run.inject(faults.administration(actions), studies_count, pause)
            run.end()
            outcome = run.conclude()
    finally:
        run.close()
    if outcome.refused:
        outcome.violations.append(f"REFUSED: {outcome.refused} studies had to be sent again")
    outcome.seconds = time.monotonic() - start
    return outcome
