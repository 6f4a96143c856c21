"""Measure the processor time of each stage of receiving a CT image of 512 x 512 (0.5 MB) by STOW-RS.

    python benchmarks/stages.py [--images 300]

One thread runs one stage after the other. What a server adds is not measured: reading from connections, and the changes between threads.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from dicomweb import body
from measuring import make_images
from pydicom.uid import ExplicitVRLittleEndian

from alnnode import multipart
from alnnode.db import engine
from alnnode.db.schema import migrate
from alnnode.receive import file_meta, header, recorder
from alnnode.receive.received_series import ReceivedSeries
from alnnode.spool.spool import Spool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

CHUNK = 256 << 10  # bytes that asyncio reads at once
BOUNDARY = "benchmark-boundary"  # as `body` writes it
BATCH = 100  # rows in one transaction


class Stages:
    """Runs the stages in their order; each one uses what those before it made."""

    def __init__(self, folder: Path, count: int) -> None:
        (folder / "images").mkdir()
        make_images(folder / "images", count)
        self.files = [path.read_bytes() for path in sorted((folder / "images").iterdir())]
        content, _ = body(self.files)
        self.chunks = [content[start : start + CHUNK] for start in range(0, len(content), CHUNK)]
        url = f"sqlite:///{folder / 'node.db'}"
        migrate(url)
        self.received, self.spool, self.folder = ReceivedSeries(engine.create(url)), Spool(folder / "spool"), folder

    def separate(self) -> None:
        """Separate the parts of the body."""

        async def chunks() -> AsyncIterator[bytes]:
            for chunk in self.chunks:
                yield chunk

        async def read() -> int:
            size = 0
            async for part in multipart.read_parts(chunks(), BOUNDARY, self.folder, 1 << 30):
                size += part.size
            return size

        assert asyncio.run(read()) == sum(map(len, self.files))

    def read_meta(self) -> None:
        """Read File Meta Information."""
        views = [memoryview(data) for data in self.files]
        self.offsets = [file_meta.data_set_offset(view) for view in views]
        self.metas = [file_meta.values(view[:offset]) for view, offset in zip(views, self.offsets, strict=True)]
        self.data_sets = [view[offset:] for view, offset in zip(views, self.offsets, strict=True)]

    def read_header(self) -> None:
        """Read the header of the data set."""
        facts: dict[tuple[str, str], object] = {}
        self.heads = [header.read(data, ExplicitVRLittleEndian, "A", facts) for data in self.data_sets]  # type: ignore[arg-type]

    def digest(self) -> None:
        """Compute the SHA-256 digest."""
        now, syntax = datetime.now(UTC), ExplicitVRLittleEndian
        self.rows = [recorder.instance(head, syntax, data, now) for head, data in zip(self.heads, self.data_sets, strict=True)]

    def write(self) -> None:
        """Write and sync the file in the journal."""
        self.paths = []
        for row, data in zip(self.rows, self.data_sets, strict=True):
            meta = file_meta.head(row.sop_class_uid, row.sop_instance_uid, row.transfer_syntax_uid, "A", row.sha256)
            path = self.spool.put_pending(row.sop_instance_uid, [meta, data])
            assert path is not None
            self.paths.append(path)

    def record(self) -> None:
        """Commit the rows, and name the files."""
        entries = [recorder.Pending(path, row) for path, row in zip(self.paths, self.rows, strict=True)]
        for start in range(0, len(entries), BATCH):
            recorder.record(self.received, self.spool, entries[start : start + BATCH])


def measure(stage: Callable[[], None], images: int) -> tuple[float, float]:
    """Return the processor time and the elapsed time of a stage, in ms for each image."""
    cpu, elapsed = time.thread_time(), time.perf_counter()
    stage()
    return 1000 * (time.thread_time() - cpu) / images, 1000 * (time.perf_counter() - elapsed) / images


def main() -> int:
    """Measure the stages and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Stages(Path(folder), options.images)
        print("| stage | processor time, ms an image | elapsed, ms an image |\n|---|---|---|")
        for stage in (run.separate, run.read_meta, run.read_header, run.digest, run.write, run.record):
            cpu, elapsed = measure(stage, options.images)
            print(f"| {(stage.__doc__ or '').rstrip('.')} | {cpu:.3f} | {elapsed:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
