"""Measure how fast CT images are received by C-STORE, and compare it with other receivers in the same run.

    python benchmarks/receive.py [--images 300] [--repetitions 5] [--previous FOLDER] [--markdown FILE]

Sender: DCMTK storescu with 128 KiB PDUs. Receivers: the listener of alnnode (two processes, SQLite), Orthanc (SQLite, synced
storage), DCMTK storescp, and pynetdicom as in its documentation, with an fsync. All run with TCP_NODELAY=1, because without it
DCMTK and Orthanc wait for delayed acknowledgements and are ten times slower. Every run starts an empty receiver, the
receivers take turns within each repetition in alternating order, and a run counts only if every image is stored afterwards. The table
names receivers that are not installed. ``--previous`` also measures the node with the source code in another folder.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from measuring import cpu_seconds, free_port, make_images, peak_mb, split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[1]
# pynetdicom installs programs with the names of DCMTK's beside Python; an active virtual environment would find them first.
PROGRAMS = os.pathsep.join(
    place for place in os.get_exec_path() if Path(place).resolve() != Path(sys.executable).parent.resolve()
)
ENVIRONMENT = {**os.environ, "PATH": PROGRAMS, "TCP_NODELAY": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
AE = "RECEIVER"
PLAIN = """
import os, sys
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage, Verification
def store(event):
    path = os.path.join(sys.argv[1], event.request.AffectedSOPInstanceUID)
    with open(path, "wb") as file:
        file.write(event.encoded_dataset())
        file.flush()
        os.fsync(file.fileno())
    return 0x0000
entity = AE("RECEIVER")
entity.maximum_pdu_size = 131072
entity.add_supported_context(CTImageStorage)
entity.add_supported_context(Verification)
entity.start_server(("127.0.0.1", int(sys.argv[2])), evt_handlers=[(evt.EVT_C_STORE, store)])
"""


@dataclass
class Receiver:
    """One receiver: how to start it, how to count its images, and what was measured.

    Attributes:
        promise: what is stored when it answers.
        needs: the program that must be installed; None: nothing.
        rates: images per second of each run, by number of associations.
        cpu: processor time in ms for each image, by number of associations; only of processes that run all the time.
        starts: seconds from its start to its first answer to C-ECHO.
        memory: MB, the largest peak of its processes.
    """

    name: str
    promise: str
    command: Callable[[Path, int], list[list[str]]]
    count: Callable[[Path], int]
    needs: str | None = None
    rates: dict[int, list[float]] = field(default_factory=dict)
    cpu: dict[int, list[float]] = field(default_factory=dict)
    starts: list[float] = field(default_factory=list)
    memory: float = 0.0
    problem: str = ""

    @property
    def missing(self) -> bool:
        """Whether its program is not installed."""
        return self.needs is not None and shutil.which(self.needs, path=PROGRAMS) is None


def alnnode(folder: Path, port: int) -> list[list[str]]:
    """Return the commands of two listener processes that share the port; the database is created here."""
    from alnnode.db.schema import migrate

    config = folder / "config.toml"
    config.write_text(
        f'[node]\nae_title = "{AE}"\ndata_dir = "{folder}"\n[listener]\nport = {port}\n[retention]\nmin_free_mb = 0\n',
        encoding="utf-8",
    )
    migrate(f"sqlite:///{folder / 'alnnode.db'}")
    start = "import sys; from pathlib import Path; from alnnode.settings import load; from alnnode.receive.scp import run_listener; "
    start += "run_listener(load(Path(sys.argv[1])), lambda port: None)"
    return [[sys.executable, "-c", start, str(config)]] * 2


def with_code(root: Path) -> Callable[[Path, int], list[list[str]]]:
    """Return the commands of `alnnode` with the source code in another folder."""
    return lambda folder, port: [["env", f"PYTHONPATH={root}", *command] for command in alnnode(folder, port)]


def orthanc(folder: Path, port: int) -> list[list[str]]:
    """Return the command of Orthanc with the settings that the comparison needs."""
    config = folder / "orthanc.json"
    settings = {
        "Name": AE, "DicomAet": AE, "DicomPort": port, "HttpServerEnabled": False,
        "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"),
        "SyncStorageArea": True, "DicomAlwaysAllowStore": True, "DicomAlwaysAllowEcho": True, "DicomCheckCalledAet": False,
        "ConcurrentJobs": 2, "Plugins": [],
    }  # fmt: skip
    config.write_text(json.dumps(settings), encoding="utf-8")
    return [["Orthanc", str(config)]]


def storescp(folder: Path, port: int) -> list[list[str]]:
    """Return the command of DCMTK storescp: one process for each association, without sync or index."""
    return [["storescp", "--fork", "-pdu", "131072", "-aet", AE, "-od", str(folder), str(port)]]


def plain(folder: Path, port: int) -> list[list[str]]:
    """Return the command of a receiver with pynetdicom in ten lines of code."""
    target = folder / "images"
    target.mkdir()
    return [[sys.executable, "-c", PLAIN, str(target), str(port)]]


def files(pattern: str) -> Callable[[Path], int]:
    """Return a function that counts the files of a pattern."""
    return lambda folder: sum(1 for path in folder.glob(pattern) if path.is_file())


def recorded(folder: Path) -> int:
    """Return the number of rows in the database that have a file."""
    from alnnode.analyse.jobs import Jobs
    from alnnode.db import engine

    rows = sum(job.instances for job in Jobs(engine.create(f"sqlite:///{folder / 'alnnode.db'}")).list())
    return min(rows, files("spool/objects/*/*/*.dcm")(folder))


RECEIVERS = [
    Receiver("alnnode", "bytes synced, row within 0.2 s", alnnode, recorded),
    Receiver("Orthanc", "bytes synced, SQLite index", orthanc, files("db/*/*/*"), needs="Orthanc"),
    Receiver("DCMTK storescp", "nothing synced, no index", storescp, files("CT.*"), needs="storescp"),
    Receiver("pynetdicom, plain", "bytes synced, no index", plain, files("images/*")),
]


@contextmanager
def running(receiver: Receiver, folder: Path, port: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start an empty receiver, and stop it at the end."""
    commands = receiver.command(folder, port)
    start = time.monotonic()
    with (folder / "receiver.log").open("wb") as log:
        processes = [subprocess.Popen(command, env=ENVIRONMENT, cwd=folder, stdout=log, stderr=log) for command in commands]
    try:
        echo = ["echoscu", "-aec", AE, "127.0.0.1", str(port)]
        deadline = time.monotonic() + 60
        # Several answers in a row are needed, so that each process that shares the port has answered.
        answers = 0
        while answers < 8:
            done = subprocess.run(echo, env=ENVIRONMENT, capture_output=True, check=False).returncode == 0
            if done and not answers:
                first = time.monotonic() - start
            answers = answers + 1 if done else 0
            if time.monotonic() > deadline or any(process.poll() is not None for process in processes):
                raise RuntimeError(f"{receiver.name} did not start: {(folder / 'receiver.log').read_text()[-500:]}")
            time.sleep(0.02)
        receiver.starts.append(first)
        yield processes
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def send(folders: list[Path], port: int) -> float:
    """Send the folders in parallel, each over its own association; return the seconds until the last one ends."""
    codes: list[int] = []

    def one(folder: Path) -> None:
        command = ["storescu", "-pdu", "131072", "-aec", AE, "+sd", "127.0.0.1", str(port), str(folder)]
        codes.append(subprocess.run(command, env=ENVIRONMENT, capture_output=True, check=False).returncode)

    threads = [threading.Thread(target=one, args=(folder,)) for folder in folders]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - start
    if any(codes):
        raise RuntimeError(f"storescu failed with {codes}")
    return elapsed


def measure(receiver: Receiver, folders: list[Path], images: int, scratch: Path) -> None:
    """Measure one run of a receiver."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    port = free_port()
    try:
        with running(receiver, folder, port) as processes:
            before = sum(cpu_seconds(process.pid) for process in processes)
            elapsed = send(folders, port)
            cpu = sum(cpu_seconds(process.pid) for process in processes) - before
            receiver.memory = max(receiver.memory, *(peak_mb(process.pid) for process in processes))
        held = receiver.count(folder)
        if held == images:
            receiver.rates.setdefault(len(folders), []).append(images / elapsed)
            receiver.cpu.setdefault(len(folders), []).append(1000 * cpu / images)
        else:
            receiver.problem = f"{held} of {images} images are stored"
    except RuntimeError as error:
        receiver.problem = str(error)
    finally:
        shutil.rmtree(folder)


def table(receivers: list[Receiver], associations: list[int]) -> str:
    """Return the results as a Markdown table; ratios are between medians."""
    head = ["receiver", "what an answer promises"]
    for number in associations:
        head += [f"{number} assoc.: images/s min / median / max", "ratio of medians", "CPU ms an image"]
    lines = ["| " + " | ".join([*head, "s to first answer", "peak MB per process"]) + " |", "|" + "---|" * (len(head) + 2)]
    own = next(receiver for receiver in receivers if receiver.name == "alnnode")
    for receiver in receivers:
        cells = [receiver.name, receiver.promise]
        for number in associations:
            rates, mine = receiver.rates.get(number), own.rates.get(number)
            if not rates:
                cells += ["not installed" if receiver.missing else f"failed: {receiver.problem}", "", ""]
                continue
            median = statistics.median(rates)
            cells.append(f"{min(rates):.0f} / **{median:.0f}** / {max(rates):.0f}")
            cells.append(f"alnnode {statistics.median(mine) / median:.2f} x" if mine else "")
            cells.append("" if receiver.needs == "storescp" else f"{statistics.median(receiver.cpu[number]):.2f}")
        cells.append(f"{statistics.median(receiver.starts):.2f}" if receiver.starts else "")
        cells.append(f"{receiver.memory:.0f}" if receiver.memory else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """Measure all receivers and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--associations", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--only", nargs="+", choices=[receiver.name for receiver in RECEIVERS])
    parser.add_argument("--previous", type=Path, help="folder of other source code of the node, to compare with")
    parser.add_argument("--scratch", type=Path, help="folder on the disk to measure; default: the temporary folder")
    parser.add_argument("--markdown", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    if shutil.which("storescu", path=PROGRAMS) is None:
        print("storescu of DCMTK is missing: apt-get install dcmtk", file=sys.stderr)
        return 2
    receivers = [
        receiver for receiver in RECEIVERS if not options.only or receiver.name in options.only or receiver.name == "alnnode"
    ]
    if options.previous:
        receivers.insert(1, Receiver("alnnode, previous", receivers[0].promise, with_code(options.previous), recorded))
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        scratch = Path(name)
        (scratch / "images").mkdir()
        make_images(scratch / "images", options.images)
        folders = {number: split(scratch / "images", number, scratch) for number in options.associations}
        for repetition in range(options.repetitions):
            for number in options.associations:
                for receiver in receivers if repetition % 2 == 0 else reversed(receivers):
                    if not receiver.missing:
                        measure(receiver, folders[number], options.images, scratch)
                        last = receiver.rates.get(number, [0.0])[-1]
                        print(
                            f"{repetition + 1}/{options.repetitions} {receiver.name}, {number} assoc.: {last:.0f} images/s",
                            file=sys.stderr,
                        )
    text = table(receivers, options.associations)
    print(text)
    if options.markdown:
        options.markdown.write_text(text + "\n", encoding="utf-8")
    return 0 if all(receiver.rates or receiver.missing for receiver in receivers) else 1


if __name__ == "__main__":
    sys.exit(main())
