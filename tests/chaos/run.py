"""One run: a calm beginning, faults under a schedule while studies come in, a calm end, and then the questions."""

from __future__ import annotations

import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from bundles import write_bundle
from listening import wait_for
from processes import children
from sqlalchemy.exc import SQLAlchemyError

from alnnode.locate.detector import DetectorSettings, ScoreNet
from alnnode.records import JobState
from alnnode.store.tables import DeliveryState
from chaos import faults, studies
from chaos.invariants import ENDS, violations
from chaos.peers import Network, Pacs, Senders, echoes
from chaos.rig import REPOSITORY, Rig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chaos.studies import Study

CALM_LIMIT = 12.0  # seconds for a small study from its release to its report, when nothing is wrong
END_LIMIT = 240.0  # seconds until everything has ended, when nothing is wrong any more
WHOLE = 6  # each of so many studies shows the axillae


@dataclass
class Outcome:
    """What a run saw."""

    studies: int = 0
    images: int = 0
    faults: int = 0
    seconds: float = 0.0
    calm: list[float] = field(default_factory=list)
    drained: float = 0.0
    retried: int = 0
    violations: list[str] = field(default_factory=list)
    recoveries: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def table(self) -> str:
        """Markdown: fault, how often, and the seconds from its beginning to the next sign of life."""
        over = {fault.name: fault.over for fault in (*faults.FAULTS, faults.DISK)}
        lines = ["| fault | count | seconds to the next | median | longest |", "|---|---:|---|---:|---:|"]
        for name, seconds in sorted(self.recoveries.items(), key=lambda item: list(over).index(item[0])):
            lines.append(f"| {name} | {len(seconds)} | {over[name]} | {statistics.median(seconds):.1f} | {max(seconds):.1f} |")
        return "\n".join(lines)


class Signs:
    """Notes what the peers see, and so how long after each fault there was life again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[tuple[str, str, float]] = []
        self.recoveries: dict[str, list[float]] = defaultdict(list)

    def began(self, fault: faults.Fault) -> None:
        """Begin to wait."""
        with self._lock:
            self._waiting.append((fault.name, fault.over, time.monotonic()))

    def saw(self, kind: str) -> None:
        """Note a sign of life."""
        now = time.monotonic()
        with self._lock:
            for name, _, start in [item for item in self._waiting if item[1] == kind]:
                self.recoveries[name].append(now - start)
            self._waiting = [item for item in self._waiting if item[1] != kind]


class Run:
    """The node, its peers and what happens to them."""

    def __init__(self, folder: Path, seed: int, *, plant: str = "", disk_mb: int = 3000) -> None:
        self.random = random.Random(seed)
        self.outcome, self.signs = Outcome(), Signs()
        self.whole, self.block = studies.originals(folder / "phantom")
        self.pacs = Pacs(lambda _: self.signs.saw(faults.DELIVERED))
        self.archive = Pacs(lambda _: self.signs.saw(faults.REPORTED))
        self.network = Network(self.pacs.port)
        torch.manual_seed(0)
        settings = DetectorSettings()
        bundle = write_bundle(folder / "bundle", (dict(ScoreNet(settings.channels).state_dict()), settings.to_dict()))
        ports = {"pacs": self.network.port, "archive": self.archive.port}
        self.rig = Rig(folder, bundle, ports, plant=plant, disk_mb=disk_mb)
        self.pacs.node_port = self.rig.port
        self.senders = Senders(self.rig.port, lambda _: self.signs.saw(faults.STORED))
        self.world = faults.World(self.rig, self.pacs, self.network, self.senders, self.random)
        self.studies: list[Study] = []

    def close(self) -> None:
        """End the peers; the rig ends itself."""
        self.senders.close()
        for peer in (self.network, self.pacs, self.archive):
            peer.close()

    def send(self, *, whole: bool = False, poison: bool = False) -> Study:
        """Let a sender send the next study."""
        study = studies.make(len(self.studies), self.whole if whole else self.block, whole=whole, poison=poison)
        self.studies.append(study)
        self.senders.send(study)
        return study

    def reported(self, study: Study, times: int = 1) -> bool:
        """Whether reports of a study have reached both places."""
        return all(
            sum(pacs.studies[uid] == study.uid for uid in list(pacs.reports)) >= times for pacs in (self.pacs, self.archive)
        )

    def calm(self, count: int = 2) -> None:
        """Send studies one by one while nothing is wrong; the first one only warms the worker up."""
        first = self.send()
        wait_for(lambda: self.reported(first), 90)
        for _ in range(count):
            study = self.send()
            wait_for(lambda study=study: self.reported(study), 60)
            self.outcome.calm.append(time.monotonic() - (study.complete_at or 0))
        if max(self.outcome.calm) > CALM_LIMIT:
            self.outcome.violations.append(
                f"SLOW: {max(self.outcome.calm):.0f} s from release to report without any fault; a task was lost"
            )

    def break_things(self, count: int, studies_count: int, pause: tuple[float, float]) -> None:
        """Make faults; studies come in evenly meanwhile, some of them a second time, later."""
        plan = faults.schedule(count, self.random, disk=self.rig.disk.small)
        for number, fault in enumerate(plan):
            while len(self.studies) < studies_count * (number + 1) / count:
                self.send(whole=len(self.studies) % WHOLE == 0)
            again = self.random.choice(self.studies)
            if self.random.random() < 0.2 and again.complete_at is not None and not again.poison:
                self.senders.send(again)
            time.sleep(self.random.uniform(*pause))
            self.signs.began(fault)
            fault.make(self.world)
            self.outcome.faults += 1

    def poison(self) -> Callable[[], None]:
        """Send a study whose analysis always dies; return what ends the killing."""
        study = self.send(whole=True, poison=True)
        ended = threading.Event()

        def kill() -> None:
            killed = 0  # attempts
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
        """Wait until everything has ended; then a person retries what the PACS refused for good, once."""
        start = time.monotonic()
        self.pacs.statuses.clear()
        self._drain(start)
        for job in self.rig.jobs.list(JobState.FAILED):
            refused = any(delivery.state is DeliveryState.FAILED for delivery in job.deliveries)
            poison = any(study.uid == job.study_uid and study.poison for study in self.studies)
            unlucky = not poison and any(words in (job.reason or "") for words in ("ended its worker", "not enough memory"))
            if refused or unlucky:
                command = [sys.executable, "-m", "alnnode", "retry", job.job_id, "--config", str(self.rig.config)]
                subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
                self.outcome.retried += 1
        self._drain(time.monotonic())
        self.outcome.drained = time.monotonic() - start

    def _drain(self, start: float) -> None:
        def ended() -> bool:
            whole = all(study.complete_at is not None for study in self.studies)
            with suppress(SQLAlchemyError):
                return whole and self._all_ended()
            return False

        with suppress(AssertionError):  # what has not ended is named below
            wait_for(ended, END_LIMIT - (time.monotonic() - start))

    def _all_ended(self) -> bool:
        jobs = self.rig.jobs.list(limit=10000)
        return {study.uid for study in self.studies} <= {job.study_uid for job in jobs} and all(
            job.state in ENDS for job in jobs
        )

    def conclude(self) -> Outcome:
        """Ask whether all holds."""
        out = self.outcome
        if not echoes(self.rig.port):
            out.violations.append("DEAF: no answer to C-ECHO at the end")
        out.violations += violations(self.rig, self.studies, (self.pacs, self.archive))
        out.studies, out.images = len(self.studies), sum(len(study.acknowledged) for study in self.studies)
        out.recoveries = self.signs.recoveries
        return out


def chaos(
    folder: Path, seed: int, *, faults_count: int, studies_count: int, pause: tuple[float, float], poison: bool
) -> Outcome:
    """Run everything once."""
    start = time.monotonic()
    run = Run(folder, seed)
    try:
        with run.rig:
            run.calm()
            spare = run.poison() if poison else None
            run.break_things(faults_count, studies_count, pause)
            run.end()
            if spare:
                spare()
            outcome = run.conclude()
    finally:
        run.close()
    outcome.seconds = time.monotonic() - start
    return outcome
