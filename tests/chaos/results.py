"""The result of a run: violations of the invariants, and how long the node took to recover from each fault."""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from chaos import faults


@dataclass
class ChaosResult:
    """The result of a run.

    Attributes:
        backfilled: number of studies that an archive sent.
        images: number of acknowledged images.
        refused: number of times that a sender had to send a study again.
        calm: seconds from release to report of each study without faults.
        drained: seconds from the last fault to the end of all jobs.
        retried: number of jobs that were retried with `alnnode retry`.
        left_out: faults that this machine cannot make.
        unusual: if an invariant is violated, lines of the node's logs that may explain it.
        recoveries: seconds from the start of each fault to the event that shows recovery, by fault.
    """

    studies: int = 0
    backfilled: int = 0
    images: int = 0
    refused: int = 0
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
        """Return a Markdown table: fault, count, and the seconds from its start to the event that shows recovery."""
        over = {fault.name: fault.over for fault in faults.EVERY}
        lines = ["| fault | count | recovery event | median, s | longest, s |", "|---|---:|---|---:|---:|"]
        for name, seconds in sorted(self.recoveries.items(), key=lambda item: list(over).index(item[0])):
            lines.append(f"| {name} | {len(seconds)} | {over[name]} | {statistics.median(seconds):.1f} | {max(seconds):.1f} |")
        return "\n".join([*lines, *(f"left out on this machine: {name}" for name in self.left_out)])

    def explain(self) -> str:
        """Return the violations, and lines of the logs that may explain them."""
        kinds = Counter(line.partition(":")[0] for line in self.violations)
        counts = [f"{count} x {kind}" for kind, count in kinds.items()]
        logs = ["from the logs of the node:", *self.unusual] if self.unusual else []
        return "\n".join([*counts, *self.violations[:30], *logs])


class RecoveryTimes:
    """Measures the time from the start of each fault to the event at a peer that shows recovery."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[tuple[str, str, float]] = []
        self.recoveries: dict[str, list[float]] = defaultdict(list)

    def fault_started(self, fault: faults.Fault) -> None:
        """Note the start of a fault."""
        with self._lock:
            self._waiting.append((fault.name, fault.over, time.monotonic()))

    def event_seen(self, kind: str) -> None:
        """Note an event at a peer, which shows recovery from the faults that wait for it."""
        now = time.monotonic()
        with self._lock:
            for name, _, start in [item for item in self._waiting if item[1] == kind]:
                self.recoveries[name].append(now - start)
            self._waiting = [item for item in self._waiting if item[1] != kind]
