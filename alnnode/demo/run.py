"""Run the demonstration: make a phantom, start PACS and node, send, wait, verify, and write the page."""

from __future__ import annotations

import shutil
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydicom import dcmread
from rich.console import Console

from alnnode import phantom
from alnnode.analyse.jobs import Jobs
from alnnode.counted import counted
from alnnode.db import engine
from alnnode.demo import page, peers
from alnnode.errors import AlnnodeError, ServiceError
from alnnode.records import JobState
from alnnode.settings import load

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pydicom import Dataset

RESULT_LIMIT = 240.0  # seconds; a slow machine needs far less


@dataclass
class Clock:
    """The steps so far with their durations."""

    console: Console
    rows: list[tuple[str, str]] = field(default_factory=list)

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Show a spinner while the step runs, and record its duration."""
        start = time.monotonic()
        with self.console.status(what):
            yield
        took = f"{time.monotonic() - start:.1f} s"
        self.rows.append((what, took))
        self.console.print(f"  ✓ {what} ({took})", highlight=False)


def run(out: Path, seed: int) -> int:
    """Run the whole demonstration below ``out``; return the exit code."""
    console = Console()
    clock = Clock(console)
    out = out.resolve()
    received = out / "received"
    for name in ("study", "node", "received"):
        shutil.rmtree(out / name, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    try:
        with ExitStack() as stack:
            with clock.step("make a phantom study"):
                truth, files = _study(out / "study", seed)
            with clock.step("start a stand-in PACS and the node"):
                pacs_port = stack.enter_context(peers.run_pacs(received))
                config = peers.configure(out, pacs_port)
                node = stack.enter_context(peers.run_node(config, out / "node.log"))
            with clock.step(f"send {len(files)} images by C-STORE"):
                peers.send(files, load(config).listener.port)
            with clock.step("wait for the results to come back"):
                _wait(config, node)
            checks, report, captures = _verify(received, files, truth)
        text = page.render(str(report.get("SeriesDescription", "")), report, captures, clock.rows, checks)
    except (AlnnodeError, OSError) as error:
        console.print(
            f"  ✗ {error}\n  The log of the node is {out / 'node.log'}.",
            style="red",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        return 1
    (out / "report.html").write_text(text, encoding="utf-8")
    for line in checks:
        console.print(f"  ✓ {line}", highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"\nOpen {out / 'report.html'} in a browser.\n"
        "Next: `alnnode init` writes the settings for your PACS and tests it; then `alnnode check` and `alnnode serve`.",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return 0


def _study(folder: Path, seed: int) -> tuple[phantom.Phantom, list[Path]]:
    made = phantom.make_patient(seed, 0)
    return made, phantom.write_series(made, folder)


def _wait(config: Path, node: subprocess.Popen[bytes]) -> None:
    settings = load(config)
    jobs = Jobs(engine.create(settings.database_url))
    deadline = time.monotonic() + RESULT_LIMIT
    while time.monotonic() < deadline:
        if node.poll() is not None:
            raise ServiceError(f"the node ended with exit code {node.returncode}")
        for job in jobs.list(limit=10):
            if job.state in {JobState.FAILED, JobState.NOT_ANALYSED}:
                raise ServiceError(f"the job ended {job.state.value}: {job.reason}")
            if job.state is JobState.DELIVERED:
                return
        time.sleep(0.2)
    raise ServiceError(f"the results did not come back within {RESULT_LIMIT:.0f} s")


def _verify(received: Path, files: Sequence[Path], truth: phantom.Phantom) -> tuple[list[str], Dataset, list[Dataset]]:
    """Verify what the PACS received.

    Returns:
        What was verified, one sentence each; the structured report; the captures in order.

    Raises:
        ServiceError: an object is missing, came twice, or is in another study.
    """
    objects: list[Dataset] = [dcmread(path) for path in sorted(received.glob("*.dcm"))]
    reports = [item for item in objects if item.Modality == "SR"]
    captures = sorted((item for item in objects if item.Modality != "SR"), key=lambda item: int(item.InstanceNumber))
    uids = {item.SOPInstanceUID for item in objects}
    source = dcmread(files[0], stop_before_pixels=True)
    if len(reports) != 1:
        raise ServiceError(f"expected one structured report back, found {len(reports)}")
    if not captures:
        raise ServiceError("no capture came back")
    if len(uids) != len(objects):
        raise ServiceError("an object came back twice")
    if any(item.StudyInstanceUID != source.StudyInstanceUID or item.PatientID != source.PatientID for item in objects):
        raise ServiceError("an object came back in another study or for another patient")
    checks = [
        f"one structured report and {counted(len(captures), 'capture')} came back over C-STORE",
        "every object once, in the study and for the patient that was sent",
        f"the phantom has {counted(len(truth.nodes), 'node')}, {sum(node.malignant for node in truth.nodes)} of them drawn as metastatic",
    ]
    return checks, reports[0], captures
