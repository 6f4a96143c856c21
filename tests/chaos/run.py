"""One run: a calm beginning, faults under a schedule while studies come in, a calm end, and then the questions."""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
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
from chaos.invariants import ENDS, violations
from chaos.peers import Network, Pacs, Senders, echoes
from chaos.rig import Rig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from chaos.studies import Study

CALM_LIMIT = 180.0  # seconds for a small study from its release to its report, when nothing is wrong; some machines are busy
END_LIMIT = 600.0  # seconds until everything has ended, when nothing is wrong: about one minute on an idle machine
WHOLE = 6  # each of so many studies shows the axillae


@dataclass
class Outcome:
    """What a run saw.

    Attributes:
        left_out: faults that this machine cannot make.
        unusual: when something does not hold, lines of the node's logs that may say why.
    """

    studies: int = 0
    images: int = 0
    faults: int = 0
    seconds: float = 0.0
    calm: list[float] = field(default_factory=list)
    drained: float = 0.0
    retried: int = 0
    violations: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    unusual: list[str] = field(default_factory=list)
    recoveries: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def table(self) -> str:
        """Markdown: fault, how often, and the seconds from its beginning to the next sign of life."""
        over = {fault.name: fault.over for fault in faults.EVERY}
        lines = ["| fault | count | recovery event | median, s | longest, s |", "|---|---:|---|---:|---:|"]
        for name, seconds in sorted(self.recoveries.items(), key=lambda item: list(over).index(item[0])):
            lines.append(f"| {name} | {len(seconds)} | {over[name]} | {statistics.median(seconds):.1f} | {max(seconds):.1f} |")
        return "\n".join([*lines, *(f"left out on this machine: {name}" for name in self.left_out)])

    def explain(self) -> str:
        """What does not hold, and what the logs say of it."""
        kinds = Counter(line.partition(":")[0] for line in self.violations)
        counts = [f"{count} x {kind}" for kind, count in kinds.items()]
        logs = ["from the logs of the node:", *self.unusual] if self.unusual else []
        return "\n".join([*counts, *self.violations[:30], *logs])


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
        settings = DetectorSettings(channels=(4, 6, 8), threshold=0.1)
        bundle = write_bundle(folder / "bundle", (dict(AxillaNet(settings.channels).state_dict()), settings.to_dict()))
        ports = {"pacs": self.network.port, "archive": self.archive.port}
        self.rig = Rig(folder, bundle, ports, plant=plant, disk_mb=disk_mb)
        self.pacs.node_port = self.rig.port
        self.senders = Senders(self.rig.port, self.rig.web_port, lambda _: self.signs.saw(faults.STORED))
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
        for number in range(count + 1):
            study = self.send()
            wait_for(lambda study=study: self.reported(study), CALM_LIMIT)
            if number:
                self.outcome.calm.append(time.monotonic() - (study.complete_at or 0))
        self.outcome.violations += self.early()

    def early(self) -> Iterator[str]:
        """Yield a line for each job whose task came before the job: such a task is lost, and only the sweep's second one runs it.

        It is seen in the log and not by the time that it takes, which a busy machine may take as well.
        """
        claimed = set()
        for line in self.rig.log("work").read_text().splitlines():
            said = json.loads(line) if line.startswith("{") and line.endswith("}") else {}
            if said.get("event") == "job_claimed":
                claimed.add(said["job"])
            elif said.get("event") == "job_not_claimed" and said["job"] not in claimed:
                yield f"EARLY: a task of job {said['job']} came before the job was there to be claimed"

    def break_things(self, count: int, studies_count: int, pause: tuple[float, float]) -> None:
        """Make faults; studies come in evenly meanwhile, some of them a second time, later."""
        disk, clock = self.rig.disk.small, self.rig.clock.settable
        self.outcome.left_out = [*([] if disk else [faults.DISK.name]), *([] if clock else [one.name for one in faults.CLOCK])]
        plan = faults.schedule(count, self.random, disk=disk, clock=clock)
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
                subprocess.run(command, check=True, capture_output=True, env=self.rig.environment)
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
        out.unusual = self.rig.unusual() if out.violations else []
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
