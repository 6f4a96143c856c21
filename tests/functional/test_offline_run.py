"""The node connects only to its peers: an analysis without network, and the connections of its processes."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import watched

from alnnode import phantom

ROOT = Path(__file__).parents[2]


def no_network() -> list[str]:
    """Return the command that starts a program without network, where the kernel allows it."""
    command = ["unshare", "--map-root-user", "--net"]
    allowed = shutil.which("unshare") and subprocess.run([*command, "true"], check=False, capture_output=True).returncode == 0
    return command if allowed else []


def test_the_watch_sees_what_leaves(tmp_path) -> None:
    log = tmp_path / "log"
    program = (
        "import socket\nfor kind, address in ((socket.AF_INET, ('192.0.2.1', 9)), (socket.AF_INET, ('127.0.0.1', 9))):\n"
        "    s = socket.socket(kind, socket.SOCK_DGRAM); s.connect(address)\n"
        "try:\n    socket.getaddrinfo('host.invalid', 80)\nexcept OSError:\n    pass\n"
    )
    environment = {**os.environ, **watched.environment(log)}
    subprocess.run([sys.executable, "-c", program], check=False, env=environment, stderr=subprocess.DEVNULL)
    assert ("socket.connect", "127.0.0.1") in watched.connections(log) or not no_network()
    assert ("socket.connect", "192.0.2.1") in watched.elsewhere(log)
    assert not watched._here("example.org")
    assert watched._here(socket.gethostname())


def test_an_analysis_needs_and_asks_for_no_network(tmp_path) -> None:
    pytest.importorskip("torch")
    small = phantom.PhantomSettings(size=96, slices=(20, 20), thickness_mm=(5, 5), spacing_mm=(3.7, 3.7))
    phantom.write_series(phantom.make_patient(7, 0, small), tmp_path / "study")
    log = tmp_path / "log"
    command = [
        *no_network(),
        sys.executable,
        "-m",
        "alnnode",
        "analyse",
        str(tmp_path / "study"),
        "--out",
        str(tmp_path / "out"),
    ]
    environment = {**os.environ, **watched.environment(log, ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "sr.dcm").exists()
    assert watched.connections(log) == []
