"""`alnnode serve` in its own processes, as a site runs it, with the questions that tests ask."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import marked
from listening import free_port, wait_for
from processes import command_line, descendants
from pydicom import dcmread
from pydicom.uid import ComprehensiveSRStorage, CTImageStorage
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from alnnode.analyse.jobs import Jobs
from alnnode.analyse.operator_actions import OperatorActions
from alnnode.db import engine
from alnnode.settings import load

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pydicom import Dataset

QUICK = (
    "detector_threshold = 0.0",
    "max_nodes = 2",
)  # networks of random weights give random scores: accept every candidate, and report two nodes


def configure(
    folder: Path,
    bundle: Path | str,
    *,
    pacs_port: int | None = None,
    modality: str = "CT",
    processes: int = 1,
    analysis: Sequence[str] = QUICK,
) -> Path:
    lines = [
        "[node]", f'data_dir = "{folder / "data"}"',
        "[listener]", f"port = {free_port()}", f"processes = {processes}",
        "[web]", f"port = {free_port()}",
        "[completion]", "association_grace = 0.5", "quiet = 60",
        "[internal]", "sweep_interval = 0.2",
        "[analysis]", "threads = 1", f'bundle = "{bundle}"', *analysis,
        "[[routes]]", 'name = "all"', f'modalities = ["{modality}"]',
        "[logging]", 'format = "console"',
    ]  # fmt: skip
    if pacs_port is not None:
        lines += ["[[destinations]]", 'name = "pacs"', 'ae_title = "PACS"', 'host = "127.0.0.1"', f"port = {pacs_port}"]
    config = folder / "config.toml"
    config.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return config


@contextmanager
def running(command: str, config: Path):
    """Run ``alnnode serve``, ``listen`` or ``work`` until the end of the block; it is ready when the block begins."""
    log = config.with_name(f"{command}.log")
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "alnnode", command, "--config", str(config)], stdout=sink, stderr=sink
        )
    try:
        wait_for(lambda: process.poll() is not None or b"node_ready" in log.read_bytes(), 120)
        assert process.poll() is None, log.read_text()
        yield Serving(process, config, log)
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(30)


@contextmanager
def serving(folder: Path, bundle: Path | str, **options):
    """Run ``alnnode serve``; it answers a C-ECHO when the block begins."""
    with running("serve", configure(folder, bundle, **options)) as node:
        assert node.answers()
        yield node


class Serving:
    """A running node, with the questions that tests ask."""

    def __init__(self, process: subprocess.Popen[bytes], config: Path, log: Path) -> None:
        self.process, self.log = process, log
        self.settings = load(config)
        self.port = self.settings.listener.port
        self._jobs: Jobs | None = None

    @property
    def jobs(self) -> Jobs:
        if self._jobs is None:
            self._jobs = Jobs(engine.create(self.settings.database_url, 2))
        return self._jobs

    @property
    def operator(self) -> OperatorActions:
        return OperatorActions(engine.create(self.settings.database_url, 2))

    def answers(self) -> bool:
        entity = AE("SENDER")
        entity.add_requested_context(Verification)
        association = entity.associate("127.0.0.1", self.port, ae_title="ALNNODE")
        if not association.is_established:
            return False
        status = association.send_c_echo()
        association.release()
        return status.get("Status") == 0x0000

    def send(self, files) -> list[Path]:
        """Send the files by C-STORE on one association; return those with status success, until the association ends."""
        entity = AE("SENDER")
        entity.add_requested_context(CTImageStorage)
        entity.add_requested_context(marked.SR)
        entity.add_requested_context(ComprehensiveSRStorage)
        entity.dimse_timeout = 20
        association = entity.associate("127.0.0.1", self.port, ae_title="ALNNODE")
        done = []
        for path in files:
            if not association.is_established:
                break
            status = association.send_c_store(dcmread(path))
            if status.get("Status") != 0x0000:
                break
            done.append(path)
        if association.is_established:
            association.release()
        return done

    def find(self, word: str) -> list[int]:
        """Return the ids of the node's processes whose command line contains ``word``."""
        return [pid for pid in descendants(self.process.pid) if word in command_line(pid)]


def tracked(report: Dataset) -> dict[str, set[str]]:
    """Return the tracking UIDs of a report, each with the codes of who located the node."""
    found: dict[str, set[str]] = {}

    def walk(item, uid):
        for child in item.get("ContentSequence", []):
            name = child.ConceptNameCodeSequence[0].CodeValue if "ConceptNameCodeSequence" in child else ""
            if name == "112040":
                uid = str(child.UID)
                found.setdefault(uid, set())
            elif name == "LOCATED-BY":
                found[uid].add(child.ConceptCodeSequence[0].CodeValue)
            walk(child, uid)

    walk(report, "")
    return found
