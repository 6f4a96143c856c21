"""Start the two DICOMweb servers that `stow.py` and `qido.py` measure, each as a separate process on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from measuring import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@dataclass(frozen=True)
class Server:
    """A running server: the root URL of its DICOMweb service, and its process id."""

    url: str
    pid: int


@contextmanager
def running(name: str, folder: Path, *, synced: bool = True, root: Path = ROOT) -> Iterator[Server]:
    """Start "alnnode" or "Orthanc" on the data in a folder, and stop it at the end.

    Args:
        name: "alnnode" or "Orthanc".
        folder: of the data.
        synced: whether Orthanc syncs its storage; the node always does.
        root: the source code of the node.
    """
    port = free_port()
    command, environment = _alnnode(folder, port, root) if name == "alnnode" else _orthanc(folder, port, synced=synced)
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(command, env={**os.environ, **environment}, cwd=folder, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}/dicom-web"
    try:
        deadline = time.monotonic() + 120
        while not _answers(f"{url}/studies?limit=1"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} did not start: {(folder / 'server.log').read_text()[-500:]}")
            time.sleep(0.05)
        yield Server(url, process.pid)
    finally:
        process.terminate()
        process.wait(60)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=60):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _alnnode(folder: Path, port: int, root: Path) -> tuple[list[str], dict[str, str]]:
    """Return the command and environment of the HTTP process of the node, with default settings."""
    from alnnode.db.schema import migrate

    config = folder / "config.toml"
    config.write_text(
        f'[node]\ndata_dir = "{folder}"\n[retention]\nmin_free_mb = 0\n[web]\nport = {port}\n[logging]\nlevel = "warning"\n',
        encoding="utf-8",
    )
    migrate(f"sqlite:///{folder / 'alnnode.db'}")
    return [sys.executable, "-m", "alnnode.web"], {
        "ALNNODE_CONFIG": str(config),
        "PYTHONPATH": str(root),
        "OMP_NUM_THREADS": "1",
    }


def _orthanc(folder: Path, port: int, *, synced: bool) -> tuple[list[str], dict[str, str]]:
    """Return the command and environment of Orthanc with its DICOMweb plugin and default settings but for synced storage."""
    config = folder / "orthanc.json"
    settings = {
        "HttpPort": port, "DicomServerEnabled": False, "RemoteAccessAllowed": False, "AuthenticationEnabled": False,
        "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"), "SyncStorageArea": synced,
        "Plugins": [str(PLUGIN)], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }  # fmt: skip
    config.write_text(json.dumps(settings), encoding="utf-8")
    return ["Orthanc", str(config)], {"TCP_NODELAY": "1"}


def body(files: list[bytes]) -> tuple[bytes, str]:
    """Return the body of a STOW-RS request and its Content-Type."""
    boundary = "benchmark-boundary"
    parts = [b"--%s\r\nContent-Type: application/dicom\r\n\r\n%s\r\n" % (boundary.encode(), data) for data in files]
    return b"".join(
        parts
    ) + b"--%s--\r\n" % boundary.encode(), f'multipart/related; type="application/dicom"; boundary={boundary}'
