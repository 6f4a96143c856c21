"""``python -m chaos.guided``: fuzz the readers of external data with coverage-guided damage (atheris), from `chaos.seeds`.

Each target runs in its own process, because libFuzzer ends its process. An unexpected exception, a crash, a hang or too much memory is a
finding, whose input is stored.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import subprocess
import sys
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

TARGETS = ("header", "file_head", "marks", "json")
GUIDING = [
    "alnnode.receive",
    "alnnode.locate.marks",
    "alnnode.dicomweb",
    "alnnode.worklist",
    "alnnode.web",
    "pydicom.filereader",
    "pydicom.values",
    "pydicom.jsonrep",
]
LIMIT, MEMORY = 20, 4096  # seconds and MiB of one try


def run(target: str, seconds: float, seed: int) -> None:
    """Fuzz one target in this process, which libFuzzer ends."""
    import atheris
    import structlog

    with atheris.instrument_imports(include=GUIDING):
        from chaos.readers import REFUSALS
        from chaos.seeds import Seeds

    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    folder = Path(tempfile.mkdtemp(prefix="alnnode-guided-"))
    begin, read = reader(target, Seeds(folder))
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, data in enumerate(begin):
        (corpus / str(number)).write_bytes(data)

    def once(data: bytes) -> None:
        with suppress(REFUSALS):
            read(data)

    limits = [
        f"-max_total_time={seconds:.0f}",
        f"-timeout={LIMIT}",
        f"-rss_limit_mb={MEMORY}",
        f"-seed={seed}",
        "-max_len=65536",
    ]
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={folder}/finding-", str(corpus)], once)
    atheris.Fuzz()


def reader(target: str, seeds: Any) -> tuple[list[bytes], Callable[[bytes], object]]:
    """Return the first inputs of a target, and the function that reads an input."""
    from alnnode.dicomweb import part_storage
    from alnnode.locate.marks.nodes import nodes_from_marks
    from alnnode.locate.marks.reading import read_marks as read_mark_file
    from alnnode.receive import header
    from alnnode.receive.file_meta import data_set_offset
    from chaos.readers import Tries

    tries, file, image = Tries(seeds, random.Random(1)), seeds.folder / "guided.dcm", seeds.images[0]

    def read_marks(data: bytes) -> None:
        file.write_bytes(data)
        nodes_from_marks(seeds.marks.anatomy, [read_mark_file(file)])

    def read_json(data: bytes) -> None:
        tries._store(tries._json_body(data, image.PixelData), as_json=True)

    whole = seeds.objects
    targets: dict[str, tuple[list[bytes], Callable[[bytes], object]]] = {
        "header": (
            [data[data_set_offset(memoryview(data)) :] for data in whole],
            lambda data: header.read(data, "1.2.840.10008.1.2.1", "FUZZ"),
        ),
        "file_head": (whole, lambda data: part_storage._head(memoryview(data))),
        "marks": (seeds.marks.objects, read_marks),
        "json": ([tries._document(image)], read_json),
    }
    return targets[target]


def main() -> int:
    """Fuzz all targets one after the other, and print tries and findings."""
    parser = argparse.ArgumentParser(prog="python -m chaos.guided")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", choices=TARGETS)
    options = parser.parse_args()
    if options.target:
        run(options.target, options.minutes * 60, options.seed)
    findings = 0
    for target in TARGETS:
        command = [sys.executable, "-m", "chaos.guided", "--target", target, "--seed", str(options.seed)]
        command += ["--minutes", str(options.minutes / len(TARGETS))]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
        lines = (ended.stdout + ended.stderr).splitlines()
        done = next((line for line in reversed(lines) if line.startswith(("Done", "#"))), "")
        print(f"{target}: {f'ENDED WITH {ended.returncode}' if ended.returncode else 'nothing found'}; {done}", flush=True)
        if ended.returncode:  # negative: a signal
            findings += 1
            print("\n".join([line for line in lines if not line.startswith(("#", "INFO"))][-40:]))
    return bool(findings)


if __name__ == "__main__":
    sys.exit(main())
