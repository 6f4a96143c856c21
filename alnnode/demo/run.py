"""Run the demonstration: phantom, node, stand-in PACS, send, wait, verify, page."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydicom import dcmread
from pynetdicom import AE, build_context
from pynetdicom.sop_class import CTImageStorage, Verification  # type: ignore[attr-defined]
from rich.console import Console

from alnnode import phantom
from alnnode.analyse.jobs import Jobs
from alnnode.db import engine
from alnnode.demo import pacs, page
from alnnode.errors import AlnnodeError, ServiceError
from alnnode.records import JobState
from alnnode.settings import load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydicom import Dataset

NODE, SENDER = "ALNNODE", "DEMO_CT"
START_LIMIT, RESULT_LIMIT = 60.0, 240.0  # seconds; a slow machine needs far less
CONFIG = """# written by `alnnode demo`
[node]
ae_title = "{node}"
data_dir = "{data}"

[listener]
port = {port}

[web]
enabled = false

[completion]
association_grace = 1
quiet = 20

[[destinations]]
name = "demo-pacs"
ae_title = "{pacs}"
host = "127.0.0.1"
port = {pacs_port}

[logging]
format = "console"
"""


@dataclass
class Clock:
    """Collects how long each step took."""

    console: Console
    rows: list[tuple[str, str]] = field(default_factory=list)

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Show a spinner while the step runs; keep its duration."""
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
                pacs_port = stack.enter_context(_pacs(received))
                config = _configure(out, pacs_port)
                node = stack.enter_context(_node(config, out / "node.log"))
            with clock.step(f"send {len(files)} images by C-STORE"):
                _send(files, load(config).listener.port)
            with clock.step("wait for the results to come back"):
                _wait(config, node)
            checks, report, captures = _verify(received, files, truth)
        banner = str(report.get("SeriesDescription", "")) if report else ""
        text = page.render(_banner(report) or banner, report, captures, clock.rows, checks)
    except (AlnnodeError, OSError) as error:
        console.print(
            f"  ✗ {error}\n  the node's log: {out / 'node.log'}", style="red", markup=False, highlight=False, soft_wrap=True
        )
        return 1
    (out / "report.html").write_text(text, encoding="utf-8")
    for line in checks:
        console.print(f"  ✓ {line}", highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"\nOpen {out / 'report.html'} in a browser.\n"
        "Next: copy config.example.toml to config.toml, name your PACS under [[destinations]], run `alnnode check`, then `alnnode serve`.",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return 0


def _study(folder: Path, seed: int) -> tuple[phantom.Phantom, list[Path]]:
    made = phantom.make_patient(seed, 0)
    return made, phantom.write_series(made, folder)


@contextmanager
def _pacs(folder: Path) -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-m", "alnnode.demo.pacs", str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line.strip().isdigit():
            raise ServiceError("the stand-in PACS did not start")
        yield int(line)
    finally:
        _end(process)


@contextmanager
def _node(config: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    settings = load(config)
    with log.open("w", encoding="utf-8") as sink:
        command = [sys.executable, "-m", "alnnode", "serve", "--config", str(config)]
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        deadline = time.monotonic() + START_LIMIT
        while not _answers(settings.listener.port):
            if process.poll() is not None:
                raise ServiceError(f"the node ended at start with code {process.returncode}")
            if time.monotonic() > deadline:
                raise ServiceError(f"the node did not answer a C-ECHO within {START_LIMIT:.0f} s")
            time.sleep(0.2)
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _configure(out: Path, pacs_port: int) -> Path:
    path = out / "config.toml"
    data = json.dumps(str(out / "node"))[1:-1]
    path.write_text(
        CONFIG.format(node=NODE, data=data, port=_free_port(), pacs=pacs.AE_TITLE, pacs_port=pacs_port), encoding="utf-8"
    )
    return path


def _answers(port: int) -> bool:
    entity = AE(SENDER)
    entity.connection_timeout = entity.acse_timeout = 2
    association = entity.associate("127.0.0.1", port, [build_context(Verification)], ae_title=NODE)
    if not association.is_established:
        return False
    status = association.send_c_echo()
    association.release()
    return "Status" in status and status.Status == 0x0000


def _send(files: list[Path], port: int) -> None:
    entity = AE(SENDER)
    entity.add_requested_context(CTImageStorage)
    association = entity.associate("127.0.0.1", port, ae_title=NODE)
    if not association.is_established:
        raise ServiceError("the node refused the association")
    try:
        for path in files:
            status = association.send_c_store(path)
            if "Status" not in status or status.Status != 0x0000:
                raise ServiceError(f"the node refused an image with status {status.get('Status')}")
    finally:
        association.release()


def _wait(config: Path, node: subprocess.Popen[bytes]) -> None:
    settings = load(config)
    jobs = Jobs(engine.create(settings.database_url))
    deadline = time.monotonic() + RESULT_LIMIT
    while time.monotonic() < deadline:
        if node.poll() is not None:
            raise ServiceError(f"the node ended with code {node.returncode}")
        for job in jobs.list(limit=10):
            if job.state is JobState.FAILED:
                raise ServiceError(f"the job failed: {job.reason}")
            if job.state is JobState.DELIVERED:
                return
        time.sleep(0.2)
    raise ServiceError(f"no result within {RESULT_LIMIT:.0f} s")


def _verify(received: Path, files: list[Path], truth: phantom.Phantom) -> tuple[list[str], Dataset, list[Dataset]]:
    """Check what the PACS holds; return the sentences for the page, the report and the captures."""
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
        f"one structured report and {len(captures)} capture(s) came back over C-STORE",
        "every object once, in the study and for the patient that was sent",
        f"the phantom has {len(truth.nodes)} node(s), {sum(node.malignant for node in truth.nodes)} of them drawn as metastatic",
    ]
    return checks, reports[0], captures


def _banner(report: Dataset) -> str:
    return str(report.get("SeriesDescription", ""))
