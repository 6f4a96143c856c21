"""The processes of the demonstration: the stand-in PACS, the node, and the C-STORE SCU that sends the study."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pynetdicom import AE, build_context
from pynetdicom.sop_class import CTImageStorage, Verification  # type: ignore[attr-defined]

from alnnode.demo import pacs
from alnnode.errors import ServiceError
from alnnode.settings import load

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

NODE, SENDER = "ALNNODE", "DEMO_CT"  # AE titles
START_LIMIT = 60.0  # seconds; a slow machine needs far less
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


def configure(out: Path, pacs_port: int) -> Path:
    """Write the settings of the node, and return their path."""
    path = out / "config.toml"
    data = json.dumps(str(out / "node"))[1:-1]
    path.write_text(
        CONFIG.format(node=NODE, data=data, port=_free_port(), pacs=pacs.AE_TITLE, pacs_port=pacs_port), encoding="utf-8"
    )
    return path


@contextmanager
def run_pacs(folder: Path) -> Iterator[int]:
    """Run the stand-in PACS, which stores what it receives in ``folder``; yield its port.

    Raises:
        ServiceError: it does not start.
    """
    process = subprocess.Popen([sys.executable, "-m", "alnnode.demo.pacs", str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line.strip().isdigit():
            raise ServiceError("the stand-in PACS did not start; the lines above may give the reason")
        yield int(line)
    finally:
        _end(process)


@contextmanager
def run_node(config: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``alnnode serve`` with its output in ``log``; yield the process when the node answers C-ECHO.

    Raises:
        ServiceError: it does not start in time.
    """
    settings = load(config)
    with log.open("w", encoding="utf-8") as sink:
        command = [sys.executable, "-m", "alnnode", "serve", "--config", str(config)]
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        deadline = time.monotonic() + START_LIMIT
        while not _answers(settings.listener.port):
            if process.poll() is not None:
                raise ServiceError(f"the node ended at start with exit code {process.returncode}")
            if time.monotonic() > deadline:
                raise ServiceError(f"the node did not answer C-ECHO within {START_LIMIT:.0f} s")
            time.sleep(0.2)
        yield process
    finally:
        _end(process)


def send(files: Sequence[Path], port: int) -> None:
    """Send the images to the node by C-STORE, on one association.

    Raises:
        ServiceError: the node rejects the association, or refuses an image.
    """
    entity = AE(SENDER)
    entity.add_requested_context(CTImageStorage)
    association = entity.associate("127.0.0.1", port, ae_title=NODE)
    if not association.is_established:
        raise ServiceError("the node rejected the association")
    try:
        for path in files:
            status = association.send_c_store(path)
            if "Status" not in status or status.Status != 0x0000:
                raise ServiceError(f"the node refused an image with status {status.get('Status')}")
    finally:
        association.release()


def _answers(port: int) -> bool:
    entity = AE(SENDER)
    entity.connection_timeout = entity.acse_timeout = 2
    association = entity.associate("127.0.0.1", port, [build_context(Verification)], ae_title=NODE)
    if not association.is_established:
        return False
    status = association.send_c_echo()
    association.release()
    return "Status" in status and status.Status == 0x0000


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
