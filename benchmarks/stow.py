"""Measure how fast CT images are received by STOW-RS, and compare it with Orthanc's DICOMweb plugin in the same run.

    python benchmarks/stow.py [--images 300] [--repetitions 5] [--per-request 10] [--markdown FILE]

300 CT images of 512 x 512 (0.5 MB), ten in a request, over one connection and over four. Every run starts an empty server, the servers
take turns, and a run counts only if a search finds every image afterwards.
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

from dicomweb import PLUGIN, body, running
from measuring import make_images, peak_mb

NAMES = {"alnnode": "bytes synced, row within 0.2 s", "Orthanc": "bytes synced, SQLite index"}


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


def measure(name: str, requests: list[tuple[bytes, str]], images: int, connections: int, scratch: Path) -> tuple[float, float]:
    """Return the images per second and the peak memory of the server in MB."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    try:
        with running(name, folder) as server:
            seconds = send(server.url, requests, connections)
            memory = peak_mb(server.pid)
            deadline = time.monotonic() + 10
            while (found := held(server.url)) != images:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{name}: {found} of {images} images are there")
                time.sleep(0.1)
        return images / seconds, memory
    finally:
        shutil.rmtree(folder)


def main() -> int:
    """Measure both servers and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--per-request", type=int, default=10)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--markdown", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    names = [name for name in NAMES if name != "Orthanc" or (shutil.which("Orthanc") and PLUGIN.exists())]
    rates: dict[tuple[str, int], list[float]] = {}
    memory = dict.fromkeys(names, 0.0)
    with tempfile.TemporaryDirectory() as scratch_name:
        scratch = Path(scratch_name)
        (scratch / "images").mkdir()
        make_images(scratch / "images", options.images)
        files = [path.read_bytes() for path in sorted((scratch / "images").iterdir())]
        requests = [body(files[start : start + options.per_request]) for start in range(0, len(files), options.per_request)]
        for repetition in range(options.repetitions):
            for connections in options.connections:
                for name in names:
                    rate, peak = measure(name, requests, options.images, connections, scratch)
                    rates.setdefault((name, connections), []).append(rate)
                    memory[name] = max(memory[name], peak)
                    print(f"{repetition + 1}: {name}, {connections} connection(s): {rate:.0f} images/s", file=sys.stderr)
    head = ["server", "what an answer promises"]
    for connections in options.connections:
        head += [f"{connections} conn.: images/s min / median / max", "ratio of medians"]
    lines = ["| " + " | ".join([*head, "peak MB"]) + " |", "|" + "---|" * (len(head) + 1)]
    for name in names:
        cells = [name, NAMES[name]]
        for connections in options.connections:
            own, mine = rates[name, connections], statistics.median(rates["alnnode", connections])
            median = statistics.median(own)
            cells += [f"{min(own):.0f} / **{median:.0f}** / {max(own):.0f}", f"alnnode {mine / median:.2f} x"]
        lines.append("| " + " | ".join([*cells, f"{memory[name]:.0f}"]) + " |")
    text = "\n".join(lines)
    print(text)
    if options.markdown:
        options.markdown.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
