"""Play a newcomer: a clean clone, the commands of README word for word, and an Orthanc as the PACS: ``python tests/newcomer.py``.

The packages are those of the Python that runs this; the code is that of the clone. The ports of README are replaced by free ones.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from listening import free_port
from viewers import orthanc

ROOT = Path(__file__).parents[1]
HEADING = "**Five commands lead to the first report in your PACS.**"
LIMIT = 3600.0  # seconds until the report is in the PACS; an idle machine of two cores needs two minutes


def commands(readme: Path) -> list[str]:
    """Return the commands of README that lead to the first report."""
    block = readme.read_text(encoding="utf-8").split(HEADING)[1].split("```console\n")[1].split("```")[0]
    return [line.removeprefix("$ ") for line in block.splitlines()]


def with_ports(command: str, pacs: int, listener: int, web: int) -> str:
    """Return a command with free ports, and with the AE title of this Orthanc."""
    command = command.replace("4242", str(pacs)).replace("ORTHANC", "PACS").replace("11112", str(listener))
    return command.replace("alnnode init", f"alnnode init --port {listener} --web-port {web}")


def clone(folder: Path) -> dict[str, str]:
    """Clone the repository; return an environment in which its ``alnnode`` and this Python are found first."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder / "alnnode")], check=True)
    programs = folder / "bin"
    programs.mkdir()
    for name, words in (("alnnode", f"{sys.executable} -m alnnode"), ("python", sys.executable)):
        (programs / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n', encoding="utf-8")
        (programs / name).chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ALNNODE_")}
    return kept | {"PATH": f"{programs}{os.pathsep}{kept['PATH']}", "PYTHONPATH": str(folder / "alnnode")}


def run(command: str, folder: Path, environment: dict[str, str], started: list[subprocess.Popen[bytes]]) -> None:
    """Run a command of README as a shell does; wait until a node that runs in the background is ready."""
    say(f"$ {command}")
    if not command.endswith("&"):
        subprocess.run(["sh", "-c", command], cwd=folder, env=environment, stdin=subprocess.DEVNULL, check=True)
        return
    log, began = folder / "serve.log", time.monotonic()
    with log.open("wb") as sink:
        words = f"exec {command.removesuffix('&')}"
        started.append(subprocess.Popen(["sh", "-c", words], cwd=folder, env=environment, stdout=sink, stderr=sink))
    while b"node_ready" not in log.read_bytes():
        if started[-1].poll() is not None or time.monotonic() - began > LIMIT:
            raise SystemExit(f"the node did not start:\n{log.read_text()}")
        time.sleep(0.05)
    say(f"  ready after {time.monotonic() - began:.1f} s")


def reports(root: str) -> list[dict[str, str]]:
    """Return the structured reports in Orthanc whose series is of this node, without the test study."""

    def get(path: str):
        with urllib.request.urlopen(f"{root}{path}", timeout=30) as answer:
            return json.load(answer)

    found = [get(f"/series/{one}") for one in get("/series")]
    series = [one["MainDicomTags"] for one in found if one["MainDicomTags"].get("Modality") == "SR"]
    return [one for one in series if "test" not in one.get("SeriesDescription", "")]


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    """Play the commands; return 0 when one report is in the PACS."""
    if shutil.which("Orthanc") is None:
        say("make newcomer needs Orthanc (Debian: apt install orthanc)")
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the processes that it started end then too
    started: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="newcomer-") as name:
        folder = Path(name)
        environment = clone(folder)
        listed = commands(folder / "alnnode" / "README.md")
        with orthanc(folder) as (root, pacs):
            try:
                listener, web, began = free_port(), free_port(), time.monotonic()
                for command in listed:
                    run(with_ports(command, pacs, listener, web), folder, environment, started)
                while not (found := reports(root)):
                    if time.monotonic() - began > LIMIT:
                        raise SystemExit(f"no report after {LIMIT:.0f} s:\n{(folder / 'serve.log').read_text()}")
                    time.sleep(1)
                say(f"{len(found)} report in Orthanc after {len(listed)} commands and {time.monotonic() - began:.0f} s: ")
                say(re.sub(r"\s+", " ", found[0].get("SeriesDescription", "")))
            finally:
                for process in started:
                    process.terminate()
                    process.wait(60)
    return 0


if __name__ == "__main__":
    sys.exit(main())
