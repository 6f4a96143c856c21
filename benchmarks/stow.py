"""Measure how fast CT images are received by STOW-RS, and compare it with Orthanc's DICOMweb plugin in the same run.

    python benchmarks/stow.py [--images 300] [--repetitions 5] [--per-request 10] [--previous FOLDER] [--markdown FILE]

300 CT images of 512 x 512 (0.5 MB), ten in a request, over one connection and over four. Every run starts an empty server, the servers
take turns in alternating order, and a run counts only if a search finds every image afterwards. ``--previous`` also measures the node with
the source code in another folder.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shutil
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

from dicomweb import PLUGIN, ROOT, body, running
from measuring import cpu_seconds, make_images, peak_mb

PREVIOUS = "alnnode, previous"
NAMES = {
    "alnnode": "bytes synced, row within 0.2 s",
    PREVIOUS: "bytes synced, row within 0.2 s",
    "Orthanc": "bytes synced, SQLite index",
}


class Run(NamedTuple):
    """One run: images per second, processor time of the server in ms for each image, its peak memory in MB."""

    rate: float
    cpu: float
    memory: float


def send(url: str, requests: list[tuple[bytes, str]], connections: int) -> float:
    """Send the requests over ``connections`` connections; return the seconds until the last one is answered."""
    host = url.removeprefix("http://").partition("/")[0]
    waiting = iter(requests)
    lock = threading.Lock()
    failures: list[str] = []

    def one() -> None:
        connection = http.client.HTTPConnection(host, timeout=300)
        while True:
            with lock:
                request = next(waiting, None)
            if request is None:
                break
            connection.request(
                "POST", "/dicom-web/studies", request[0], {"Content-Type": request[1], "Accept": "application/dicom+json"}
            )
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                failures.append(f"HTTP {answer.status}")
        connection.close()

    threads = [threading.Thread(target=one) for _ in range(connections)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError(failures[0])
    return time.perf_counter() - start


def held(url: str) -> int:
    """Return the number of instances that a search finds."""
    request = urllib.request.Request(f"{url}/instances?limit=100000", headers={"Accept": "application/dicom+json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return len(json.load(answer))


def measure(name: str, root: Path, requests: list[tuple[bytes, str]], images: int, connections: int) -> Run:
    """Start a server, send the requests, and stop it."""
    folder = Path(tempfile.mkdtemp())
    try:
        with running("Orthanc" if name == "Orthanc" else "alnnode", folder, root=root) as server:
            before = cpu_seconds(server.pid)
            seconds = send(server.url, requests, connections)
            cpu, memory = cpu_seconds(server.pid) - before, peak_mb(server.pid)
            deadline = time.monotonic() + 10
            while (found := held(server.url)) != images:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{name}: {found} of {images} images are there")
                time.sleep(0.1)
        return Run(images / seconds, 1000 * cpu / images, memory)
    finally:
        shutil.rmtree(folder)


def table(runs: dict[tuple[str, int], list[Run]], names: list[str], counts: list[int]) -> str:
    """Return the results as a Markdown table; ratios are between medians."""
    head = ["server", "what an answer promises"]
    for connections in counts:
        head += [f"{connections} conn.: images/s min / median / max", "ratio of medians", "CPU ms an image"]
    lines = ["| " + " | ".join([*head, "peak MB"]) + " |", "|" + "---|" * (len(head) + 1)]
    for name in names:
        cells = [name, NAMES[name]]
        for connections in counts:
            rates = [run.rate for run in runs[name, connections]]
            mine = statistics.median(run.rate for run in runs["alnnode", connections])
            median = statistics.median(rates)
            cells += [f"{min(rates):.0f} / **{median:.0f}** / {max(rates):.0f}", f"alnnode {mine / median:.2f} x"]
            cells.append(f"{statistics.median(run.cpu for run in runs[name, connections]):.2f}")
        peak = max(run.memory for connections in counts for run in runs[name, connections])
        lines.append("| " + " | ".join([*cells, f"{peak:.0f}"]) + " |")
    return "\n".join(lines)


def main() -> int:
    """Measure both servers and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--per-request", type=int, default=10)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--previous", type=Path, help="folder of other source code of the node, to compare with")
    parser.add_argument("--markdown", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    absent = {
        PREVIOUS: options.previous is None,
        "Orthanc": not (shutil.which("Orthanc") and PLUGIN.exists()),
    }
    names = [name for name in NAMES if not absent.get(name, False)]
    runs: dict[tuple[str, int], list[Run]] = {}
    with tempfile.TemporaryDirectory() as images:
        make_images(Path(images), options.images)
        files = [path.read_bytes() for path in sorted(Path(images).iterdir())]
    requests = [body(files[start : start + options.per_request]) for start in range(0, len(files), options.per_request)]
    for repetition in range(options.repetitions):
        for connections in options.connections:
            for name in names if repetition % 2 == 0 else reversed(names):
                root = options.previous if name == PREVIOUS else ROOT
                run = measure(name, root, requests, options.images, connections)
                runs.setdefault((name, connections), []).append(run)
                print(
                    f"{repetition + 1}: {name}, {connections} connection(s): {run.rate:.0f} images/s, {run.cpu:.2f} ms",
                    file=sys.stderr,
                )
    text = table(runs, names, options.connections)
    print(text)
    if options.markdown:
        options.markdown.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
