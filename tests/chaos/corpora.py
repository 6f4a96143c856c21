"""``python -m chaos.corpora FOLDER…``: give every file of collections of unusual files to the acceptor, the readers and the decoders.

Each try runs in its own process with limits of time and memory, so that a crash of a decoder is one finding and ends only its try. The
test files of pydicom are always included. The output names a file only when the node crashed on it.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pydicom.data
from pydicom.filereader import read_file_meta_info

from alnnode.db import engine as engines
from alnnode.db import schema
from alnnode.dicomweb.attribute_index import AttributeIndex
from alnnode.errors import NotAnalysable, RejectedObject
from alnnode.imaging import decode, part10
from alnnode.imaging.frames import Frame
from alnnode.imaging.series import read_header, read_volume
from alnnode.imaging.stored_image import DamagedImageError, NoSuchFrameError, open_image
from alnnode.receive.acceptor import Acceptor, StoreRequest
from alnnode.receive.library_logging import silence_libraries
from alnnode.receive.received_series import ReceivedSeries
from alnnode.settings import load
from alnnode.spool.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from alnnode.settings import Settings

LIMIT = 60  # seconds for one try
MEMORY = 4 << 30  # bytes of address space for one try, in addition to that of the parent
OWN = Path(pydicom.data.__file__).parent / "test_files"


@dataclass
class Tally:
    """The outcomes of all tries, by the function that was tried."""

    files: int = 0
    seconds: float = 0.0
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    crashes: list[str] = field(default_factory=list)

    def add(self, where: str, outcome: str, path: Path) -> None:
        """Count one try."""
        self.outcomes[where, outcome] += 1
        if outcome.startswith("CRASH"):
            self.crashes.append(f"{where}: {outcome}: {path}")

    def table(self) -> str:
        """Return the outcomes as a Markdown table."""
        lines = ["| where | outcome | tries |", "|---|---|---:|"]
        return "\n".join(
            [*lines, *(f"| {where} | {what} | {count} |" for (where, what), count in sorted(self.outcomes.items()))]
        )


def files(folders: Iterable[Path]) -> list[Path]:
    """Return every file of the collections, DICOM or not."""
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())


def split(path: Path) -> tuple[bytes, str]:
    """Return the data set of a file and its transfer syntax, as a sender would; all bytes when that fails."""
    data = path.read_bytes()
    try:
        meta = read_file_meta_info(path)
        start = 144 + int(meta.FileMetaInformationGroupLength)
        return data[start:], str(meta.TransferSyntaxUID)
    except Exception:  # noqa: BLE001 - a file of any kind is sent
        return data, "1.2.840.10008.1.2"


def receive(path: Path, settings: Settings) -> str:
    """Return the outcome of the acceptor of an empty node."""
    with tempfile.TemporaryDirectory() as folder:
        acceptor = Acceptor(settings, ReceivedSeries(engines.create(settings.database_url)), Spool(Path(folder)))
        try:
            data, syntax = split(path)
            acceptor.store(data, StoreRequest(syntax, "CORPUS"))
        except RejectedObject as error:
            return f"refused, 0x{error.status:04X}"
        else:
            return "taken"
        finally:
            acceptor.close()


def volume(paths: list[Path]) -> str:
    """Return the outcome of the reader of series."""
    try:
        read_volume(paths)
    except NotAnalysable:
        return "not analysable, with a reason"
    return "read"


def header(path: Path) -> str:
    """Return the outcome of the reader of one header, which also the report on a series that cannot be analysed needs."""
    try:
        read_header([path])
    except NotAnalysable:
        return "no DICOM"
    return "read"


def pixels(path: Path) -> str:
    """Return the outcome of the decoders, for an image of any kind."""
    try:
        dataset = part10.read(path, pixels=True)
        rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
        spot = (0.0, 0.0, 0.0)
        frame = Frame(
            path, "", "", None, None, spot, spot * 2, spot, rows, columns, 1.0, 0.0, None, "", lossy=False, acquisition=()
        )
        list(decode.hounsfield_of(dataset, [frame]))
    except NotAnalysable:
        return "refused"
    return "decoded"


def searched(path: Path) -> str:
    """Return the outcome of reading the attributes for searches."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "objects" / "one.dcm"
        spool = Spool(Path(folder))
        target.write_bytes(path.read_bytes())
        one = SimpleNamespace(path="objects/one.dcm", stored_at=datetime.now(UTC))
        found = AttributeIndex(spool)
        return (
            "read"
            if all(part[0] is not None for part in (found.series_attributes([one]), found.instance_attributes([one])))
            else "left out"
        )


def shown(path: Path) -> str:
    """Return the outcome of rendering an image, and of sending it uncompressed."""
    try:
        image = open_image(path)
        image.pixels(1)
        image.check()
    except (DamagedImageError, NoSuchFrameError):
        return "refused"
    return "drawn"


def isolated(work: Callable[[], str]) -> str:
    """Run ``work`` in a child process; return its outcome, or how it died."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)  # a test runner may have its own handler
            signal.alarm(LIMIT)
            # The memory of the parent counts too: a test runner that has imported everything would leave none for the child.
            held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
            outcome = work()
        except BaseException as error:  # noqa: BLE001 - it is the finding
            outcome = f"CRASH {type(error).__name__}"
        os.write(writing, outcome.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        outcome = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return outcome or f"CRASH signal {os.WTERMSIG(status)}"


def run(everything: list[Path], folder: Path) -> Tally:
    """Make all tries; the databases of the acceptors are below ``folder``."""
    silence_libraries()
    warnings.simplefilter("ignore")
    start, tally = time.monotonic(), Tally(len(everything))
    config = folder / "config.toml"
    config.write_text(f'[node]\ndata_dir = "{folder}"\n[retention]\nmin_free_mb = 0\n', encoding="utf-8")
    settings = load(config)
    schema.migrate(settings.database_url)
    for number, path in enumerate(everything):
        database = folder / f"{number}.db"
        database.write_bytes((folder / "alnnode.db").read_bytes())
        of_its_own = settings.model_copy(
            update={"database": settings.database.model_copy(update={"url": f"sqlite:///{database}"})}
        )
        tally.add("the door", isolated(partial(receive, path, of_its_own)), path)
        database.unlink()
        tally.add("header", isolated(partial(header, path)), path)
        tally.add("pixels", isolated(partial(pixels, path)), path)
        tally.add("searches", isolated(partial(searched, path)), path)
        tally.add("viewers", isolated(partial(shown, path)), path)
    for parent, group in groupby(everything, key=lambda path: path.parent):
        tally.add("folder as one series", isolated(partial(volume, list(group))), parent)
    for path in everything:
        tally.add("file as one series", isolated(partial(volume, [path])), path)
    tally.seconds = time.monotonic() - start
    return tally


def main() -> int:
    """Make all tries, and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        tally = run(files([OWN, *map(Path, sys.argv[1:])]), Path(folder))
    print(tally.table())
    print(
        f"\n{tally.files} files, {sum(tally.outcomes.values())} tries, {tally.seconds:.0f} s, {len(tally.crashes)} crashes or hangs"
    )
    for line in tally.crashes:
        print(line)
    return bool(tally.crashes)


if __name__ == "__main__":
    sys.exit(main())
