"""Tries of the fuzzer for the HTTP service: request heads without end, and damaged requests, to a real service at the default settings."""

from __future__ import annotations

import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from hostile import damage, draw
from listening import free_port, wait_for

from alnnode.db import schema
from alnnode.settings import load
from chaos import planted

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
GROWTH = 30.0  # MB of memory that one try may cost
MEGABYTES = 10  # of one connection
TOGETHER = 4  # connections of one flood
LIMIT = 20  # seconds without an answer
SETTLING = 10.0  # seconds in which the service reads what was sent
HEAD = b"GET /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1\r\n"
POST = b"POST /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/related; type=application/dicom; boundary=b\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
LOGIN = b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 9\r\n\r\ntoken=abc"
WHOLE = (HEAD + b"Connection: close\r\n\r\n", HEAD + b"\r\n" + HEAD + b"\r\n", CHUNKED + b"3\r\n--b\r\n0\r\n\r\n", LOGIN)
ENDLESS = {  # the first bytes, and what is repeated
    "one header field": (HEAD + b"X: ", b"a" * 65536),
    "many header fields": (HEAD, b"X: a\r\n" * 10_000),
    "large header fields": (HEAD, b"X: " + b"a" * 4000 + b"\r\n"),
    "URL": (b"GET /", b"a" * 65536),
    "chunk extension": (CHUNKED + b"5;", b"a" * 65536),
    "trailers": (CHUNKED + b"0\r\n", b"X: a\r\n" * 10_000),
    "pipelined requests": (b"", (HEAD + b"\r\n") * 500),
}


@contextmanager
def service(folder: Path, bug: str = "") -> Iterator[tuple[int, int]]:
    """Run the service, with a bug of `chaos.planted` if one is named; yield its process id and its port."""
    config, port = folder / "config.toml", free_port()
    config.write_text(f'[node]\ndata_dir = "{folder}"\n[web]\nport = {port}\n[retention]\nmin_free_mb = 0\n', encoding="utf-8")
    schema.migrate(load(config).database_url)
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    words = ["chaos.planted", bug, "alnnode.web"] if bug else ["alnnode.web"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            env={**os.environ, "ALNNODE_CONFIG": str(config), "PYTHONPATH": path},
            stdout=log,
            stderr=log,
        )
    try:
        wait_for(lambda: lives(port), 120)
        yield process.pid, port
    finally:
        process.kill()
        process.wait()


def lives(port: int) -> bool:
    """Return whether the service answers."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/live", timeout=LIMIT).status_code == 200
    except httpx.TransportError:
        return False


def memory(pid: int) -> float:
    """Return the anonymous memory of a process, MB; 0 if it has ended."""
    with suppress(OSError):
        found = re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(encoding="ascii"))
        return int(found[1]) / 1024 if found else 0.0
    return 0.0


def flood(port: int, pid: int, kind: str) -> str:
    """Send megabytes over some connections at once; return what is wrong, or nothing."""
    first, piece = ENDLESS[kind]
    before, highest = memory(pid), 0.0
    with ExitStack() as stack:
        held = [
            stack.enter_context(closing(socket.create_connection(("127.0.0.1", port), timeout=LIMIT))) for _ in range(TOGETHER)
        ]
        going = list(held)
        for number in range((MEGABYTES << 20) // len(piece) + 1):
            for connection in list(going):
                try:
                    connection.sendall(first + piece if number == 0 else piece)
                except OSError:
                    going.remove(connection)
            highest = max(highest, memory(pid))
            if not going:
                break
        until = time.monotonic() + SETTLING
        while going and highest - before <= GROWTH and time.monotonic() < until:
            time.sleep(0.1)  # what was sent can still be in the buffers of the kernel, on a busy machine
            highest = max(highest, memory(pid))
    return f"{highest - before:.0f} MB more memory" if highest - before > GROWTH else ""


def talk(port: int, data: bytes) -> str:
    """Send bytes, and hang up; return what is wrong with the answer, or nothing."""
    said = b""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=LIMIT)) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                said += piece
        except TimeoutError:
            return "no answer, and the connection stays open"
        except OSError:
            return ""
    if said and not said.startswith(b"HTTP/1.1 "):
        return "the answer is no HTTP"
    return "HTTP 500" if said[9:12] == b"500" else ""


def web(seconds: float, seed: int) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Flood the service, and send damaged requests; afterwards it must answer."""
    chance, outcomes, findings = random.Random(seed), Counter(), []
    with (
        tempfile.TemporaryDirectory(prefix="alnnode-fuzz-") as name,
        service(Path(name), os.environ.get(planted.VARIABLE, "")) as (
            pid,
            port,
        ),
    ):
        until = time.monotonic() + seconds
        while time.monotonic() < until and memory(pid):
            if chance.random() < 0.1:
                kind = chance.choice(list(ENDLESS))
                wrong = flood(port, pid, kind)
            else:
                kind = "damaged request"
                wrong = talk(port, damage(chance.choice(WHOLE), draw(chance)))
            outcomes["HTTP service", f"sent, {kind}"] += 1
            if wrong:
                findings.append(f"HTTP service, {kind}: {wrong}")
        if not memory(pid) or not lives(port):
            findings.append("the HTTP service ended, or answers no more")
        log = (Path(name) / "log").read_text(encoding="utf-8", errors="replace")
        findings += [f"the log of the HTTP service says {word}" for word in ("Traceback", "uncaught") if word in log]
    return outcomes, findings
