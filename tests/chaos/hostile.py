"""``python -m chaos.hostile``: senders and readers work while hostile clients hold hundreds of connections to a node at the default settings.

It fails if a legitimate request is refused, if the 95th percentile of their durations is above twice that of the calm (the same work without
the hostile clients, before and afterwards), or if a process of the node needs more than 400 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import dicom_objects
import httpx
from listening import free_port, wait_for
from programs import system
from web_service import body, content_type, part10

from alnnode.db import schema
from alnnode.settings import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MEMORY, SLOWER = 400.0, 2.0  # MB of a process; times the calm
OBJECTS, SIDE = 5, 256  # of one association or request
PAUSE = 0.5  # seconds between two pieces of work of one client
ROOT = Path(__file__).parents[2]


@dataclass
class Outcome:
    """What the legitimate clients measured.

    Attributes:
        seconds: of each piece of work, by kind and phase.
        refused: what was refused.
    """

    phase: str = "calm"
    seconds: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    refused: list[str] = field(default_factory=list)

    def p95(self, kind: str, phase: str) -> float:
        """Return the 95th percentile in seconds."""
        return statistics.quantiles(self.seconds[kind, phase], n=20)[-1]


class Node:
    """The processes of a node that have a port: two listeners and the HTTP service, at the default settings."""

    def __init__(self, folder: Path) -> None:
        self.port, self.web_port = free_port(), free_port()
        config = folder / "config.toml"
        config.write_text(
            f'[node]\ndata_dir = "{folder}"\n[listener]\nport = {self.port}\n[web]\nport = {self.web_port}\n[retention]\nmin_free_mb = 0\n',
            encoding="utf-8",
        )
        schema.migrate(load(config).database_url)
        environment = {
            **os.environ,
            "ALNNODE_CONFIG": str(config),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        }
        with (folder / "log").open("wb") as log:
            modules = ["alnnode.receive"] * load(config).listener.processes + ["alnnode.web"]
            self.processes = {
                f"{module} {number}": subprocess.Popen([sys.executable, "-m", module], env=environment, stdout=log, stderr=log)
                for number, module in enumerate(modules)
            }
        self.log = folder / "log"
        wait_for(lambda: self.log.read_bytes().count(b'"listening"') >= len(modules) - 1 and self.lives(), 120)

    def lives(self) -> bool:
        """Return whether the HTTP service answers."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.web_port}/health/live", timeout=20).status_code == 200
        except httpx.TransportError:
            return False

    def memory(self) -> dict[str, float]:
        """Return the peak of the resident memory of each process, MB; a process that ended is missing."""
        found = {}
        for name, process in self.processes.items():
            if process.poll() is None:
                peak = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text(encoding="ascii"))
                found[name] = int(peak[1]) / 1024 if peak else 0.0
        return found

    def stop(self) -> None:
        """Stop the processes."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(60)


class Clients:
    """Two senders by C-STORE (DCMTK), two by STOW-RS, and two readers."""

    def __init__(self, node: Node, outcome: Outcome) -> None:
        self._node, self._outcome, self._ended = node, outcome, threading.Event()
        self._storescu = system("storescu") or "storescu"
        work = [self._sends_dimse, self._sends_dimse, self._sends_stow, self._sends_stow, self._searches, self._reads]
        self._threads = [threading.Thread(target=self._repeat, args=(one, number)) for number, one in enumerate(work)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the work."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, work: Callable[[httpx.Client, int, int], str], number: int) -> None:
        count = 0
        # Each request has its own connection: a server may close an idle one at the moment of the next request (RFC 9112 section 9.3.1).
        limits = httpx.Limits(max_keepalive_connections=0)
        with httpx.Client(base_url=f"http://127.0.0.1:{self._node.web_port}", timeout=60, limits=limits) as client:
            while not self._ended.wait(PAUSE):
                phase, start = self._outcome.phase, time.monotonic()
                count += 1
                try:
                    refusal = work(client, number, count)
                except (
                    httpx.TransportError,
                    OSError,
                    RuntimeError,
                ) as error:  # pynetdicom: RuntimeError after the end of an association
                    refusal = f"{type(error).__name__} {error}"
                if refusal:
                    self._outcome.refused.append(f"{phase}: {work.__name__}: {refusal}")
                elif self._outcome.phase == phase:
                    self._outcome.seconds[work.__name__.strip("_"), phase].append(time.monotonic() - start)

    @staticmethod
    def _images(number: int, count: int) -> list:
        series = f"{dicom_objects.STUDY}.{number + 1}"
        return [dicom_objects.ct(count * OBJECTS + one, series=series, side=SIDE) for one in range(OBJECTS)]

    def _sends_dimse(self, _: httpx.Client, number: int, count: int) -> str:
        # DCMTK and not pynetdicom: in a pynetdicom SCU, another thread sometimes takes the response, and the SCU waits for it in vain.
        with tempfile.TemporaryDirectory() as folder:
            for one, image in enumerate(self._images(number, count)):
                Path(folder, f"{one}.dcm").write_bytes(part10(image))
            command = [
                self._storescu,
                "-aec",
                "ALNNODE",
                "-aet",
                f"SENDER{number}",
                "+sd",
                "127.0.0.1",
                str(self._node.port),
                folder,
            ]
            done = subprocess.run(command, env={**os.environ, "TCP_NODELAY": "1"}, capture_output=True, text=True, check=False)
        return "" if done.returncode == 0 else f"storescu ended with {done.returncode}: {done.stderr.strip()[:200]}"

    def _sends_stow(self, client: httpx.Client, number: int, count: int) -> str:
        content = body(*(part10(image) for image in self._images(number, count)))
        return _refusal(client.post("/dicom-web/studies", content=content, headers=content_type()))

    def _searches(self, client: httpx.Client, *_: int) -> str:
        return _refusal(client.get("/dicom-web/series?limit=50")) or _refusal(client.get("/health/ready"), 200, 503)

    def _reads(self, client: httpx.Client, *_: int) -> str:
        found = client.get("/dicom-web/instances?limit=1")
        if found.status_code != 200 or not found.json():
            return _refusal(found, 200, 204)
        study, series, instance = (found.json()[0][tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018"))
        return _refusal(client.get(f"/dicom-web/studies/{study}/series/{series}/instances/{instance}"))


def _refusal(response: httpx.Response, *good: int) -> str:
    return "" if response.status_code in (good or (200,)) else f"HTTP {response.status_code}"


@contextmanager
def attacked(node: Node, connections: int) -> Iterator[dict[str, dict[str, float]]]:
    """Run the hostile clients in a process of their own; the dictionary is filled at the end."""
    numbers: dict[str, dict[str, float]] = {}
    command = [sys.executable, "-m", "chaos.attackers", str(node.port), str(node.web_port), str(connections)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield numbers
    finally:
        numbers.update(json.loads(process.communicate(timeout=60)[0]))


def run(
    folder: Path, seconds: float, calm: float, connections: int
) -> tuple[Outcome, dict[str, float], dict[str, dict[str, float]]]:
    """Return what the clients measured, the peak memory by process, and the numbers of the hostile clients."""
    node, outcome = Node(folder), Outcome("warm-up")
    clients = Clients(node, outcome)
    try:
        time.sleep(min(10, calm))
        outcome.phase = "calm"
        time.sleep(calm)
        outcome.phase = "hostile"
        with attacked(node, connections) as numbers:
            time.sleep(seconds)
            outcome.phase = "between"
        time.sleep(2)
        outcome.phase = "calm"
        time.sleep(calm)
    finally:
        clients.close()
        memory = node.memory()
        alive = node.lives()
        node.stop()

    if len(memory) < len(node.processes) or not alive:
        outcome.refused.append("a process of the node ended")
    return outcome, memory, numbers


def report(outcome: Outcome, memory: dict[str, float], numbers: dict[str, dict[str, float]]) -> bool:
    """Print the tables; return whether every limit held."""
    print("| hostile connections | open on average | opened |\n|---|---:|---:|")
    for kind, number in numbers.items():
        print(f"| {kind} | {number['open']:.0f} | {number['opened']:.0f} |")
    print("\n| legitimate work | calm: count | p95, s | hostile: count | p95, s | ratio |\n|---|---:|---:|---:|---:|---:|")
    slow = False
    for kind in sorted({kind for kind, _ in outcome.seconds}):
        calm, hostile = outcome.p95(kind, "calm"), outcome.p95(kind, "hostile")
        slow |= hostile > SLOWER * calm
        counts = [len(outcome.seconds[kind, phase]) for phase in ("calm", "hostile")]
        print(f"| {kind} | {counts[0]} | {calm:.3f} | {counts[1]} | {hostile:.3f} | {hostile / calm:.2f} |")
    print(f"\nrefused: {len(outcome.refused)}; peak memory, MB: { ({name: round(peak) for name, peak in memory.items()}) }")
    for line in outcome.refused[:20]:
        print(line)
    held = not (outcome.refused or slow or max(memory.values()) > MEMORY)
    print("all limits held" if held else "FAILED")
    return held


def main() -> int:
    """Run and print the result."""
    parser = argparse.ArgumentParser(prog="python -m chaos.hostile")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--calm-minutes", type=float, default=1.5, help="without hostile clients, before and again afterwards")
    parser.add_argument("--connections", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="alnnode-hostile-") as folder:
        found = run(Path(folder), options.minutes * 60, options.calm_minutes * 60, options.connections)
    return 0 if report(*found) else 1


if __name__ == "__main__":
    sys.exit(main())
