"""Measure the time of one analysis, from job start to results on disk: of a phantom of 300 slices, or of the files of a series.

    python benchmarks/analyse.py [--against ../previous] [--series FOLDER] [--repeat 3] [--jobs 1]

It needs the [worker] extra. Each run is a process of its own. With ``--against``, the runs of this checkout and of another one alternate, so
that both have the same load of other programs. Times are medians. CPU time counts all threads, and depends less on other programs. Because
machines differ, the ratio to decoding the same files with pydicom in the same run is given, too. Peak memory is that of the process; the
memory that it keeps is measured after all ``--jobs``, of which only the first is timed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

SLICES, THICKNESS_MM = 300, 1.0
THIS = Path(__file__).resolve().parents[1]
TOTAL = "**job start to results**"


def make(folder: Path) -> None:
    """Write the series; this runs in another process, so that its memory is not counted."""
    from alnnode.phantom import PhantomSettings, make_patient, write_series

    settings = PhantomSettings(slices=(SLICES, SLICES), thickness_mm=(THICKNESS_MM, THICKNESS_MM))
    write_series(make_patient(seed=77, index=0, settings=settings), folder)


class Clock:
    """Notes the times at which steps begin: name, elapsed time, CPU time."""

    def __init__(self) -> None:
        self.marks: list[tuple[str, float, float]] = []

    def __call__(self, step: str) -> None:
        """Note the beginning of a step."""
        self.marks.append((step, time.perf_counter(), time.process_time()))

    def steps(self) -> dict[str, tuple[float, float]]:
        """Return elapsed time and CPU time of each step; the last one only ends the one before."""
        return {
            step: (after[1] - wall, after[2] - cpu)
            for (step, wall, cpu), after in zip(self.marks, self.marks[1:], strict=False)
        }


def measure(folder: Path, jobs: int) -> None:
    """Load the model, measure the first job, repeat it in the same process, and print the figures as JSON."""
    from pydicom import dcmread

    import alnnode
    from alnnode import pipeline, report
    from alnnode.cli.offline import offline_context
    from alnnode.model import bundle as bundles
    from alnnode.settings import Settings

    paths = sorted(folder.rglob("*.dcm"))
    clock, settings = Clock(), Settings()
    clock("model load, once per worker process")
    models = pipeline.Models.load(bundles.load(bundles.resolve("demo")), "auto")
    if find_spec("alnnode.report.standard_tables"):  # an earlier version reads them in its first job
        import_module("alnnode.report.standard_tables").load()
    clock("plain decoding of the files with pydicom")
    for path in paths:
        _ = dcmread(path).pixel_array
    analysis = pipeline.analyse(pipeline.SeriesInput(paths), models, settings.analysis, clock)
    clock("report")
    objects = report.build(analysis, offline_context(paths, settings))
    with tempfile.TemporaryDirectory() as results:
        for number, item in enumerate(objects):
            (Path(results) / str(number)).write_bytes(item.data)
    clock("end")
    what = f"{len(paths)} slices, {len(analysis.findings)} nodes, {len(objects)} objects"
    digest = hashlib.sha256(b"".join(item.data for item in objects)).hexdigest()
    for _ in range(jobs - 1):
        analysis = pipeline.analyse(pipeline.SeriesInput(paths), models, settings.analysis, lambda _: None)
        objects = report.build(analysis, offline_context(paths, settings))
    del analysis, objects
    if find_spec("alnnode.process.memory"):  # as a worker does after each job; an earlier version keeps what is free
        import_module("alnnode.process.memory").return_free_memory()
    figures = {
        "code": alnnode.__file__,
        "steps": clock.steps(),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "kept": int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 2**20,
        "what": what,
        "objects": digest,
    }
    print(json.dumps(figures))


def run(checkout: Path, *options: str) -> str:
    """Run this program with the code of a checkout, and return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    return subprocess.run(
        [sys.executable, __file__, *options], check=True, env=environment, stdout=subprocess.PIPE, text=True
    ).stdout


def measured(checkout: Path, folder: Path, jobs: int) -> dict[str, Any]:
    """Return the figures of one run.

    Raises:
        SystemExit: the code that ran is not that of the checkout.
    """
    figures: dict[str, Any] = json.loads(run(checkout, "--measure", str(folder), "--jobs", str(jobs)).splitlines()[-1])
    if checkout not in Path(figures["code"]).resolve().parents:
        raise SystemExit(f"the measured code is {figures['code']}, not that of {checkout}")
    plain, _ = (steps := figures["steps"]).pop("plain decoding of the files with pydicom")
    load = steps.pop("model load, once per worker process")
    total = [sum(step[n] for step in steps.values()) for n in range(2)]
    figures["rows"] = {
        **{f"{name}, s": wall for name, (wall, _) in steps.items()},
        f"{TOTAL}, s": total[0],
        "ratio to plain pydicom decoding": total[0] / plain,
        **{f"{name}, CPU s": cpu for name, (_, cpu) in steps.items()},
        f"{TOTAL}, CPU s": total[1],
        "model load, once per worker process, s": load[0],
        "peak memory of the process, MiB": figures["peak"],
        f"memory kept after the last of {jobs} analyses, MiB": figures["kept"],
    }
    return figures


def table(runs: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return a Markdown table: the medians of each version, and the ratio of the first to the second."""
    names = list(runs)
    lines = [
        "| " + " | ".join(["figure", *names, *(["ratio"] if len(names) > 1 else [])]) + " |",
        "|---" * (len(names) + 1 + (len(names) > 1)) + "|",
    ]
    for row in runs[names[0]][0]["rows"]:
        values = [median(figures["rows"][row] for figures in runs[name]) for name in names]
        cells = [f"{value:.0f}" if row.endswith("MiB") else f"{value:.2f}" for value in values]
        lines.append("| " + " | ".join([row, *cells, *([f"{values[0] / values[1]:.2f}"] if len(values) > 1 else [])]) + " |")
    results = {figures["objects"] for of_version in runs.values() for figures in of_version}
    equal = "byte-identical in all runs" if len(results) == 1 else "DIFFERENT between runs"
    return [*lines, "", f"{runs[names[0]][0]['what']}; the result objects are {equal}."]


def main() -> None:
    """Make the series once, then measure ``--repeat`` times, each time in a new process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="analyses in each process")
    parser.add_argument("--against", type=Path, help="another checkout, whose code is measured alternately")
    parser.add_argument("--series", type=Path, help="folder with the files of a series, instead of the phantom")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make(options.make)
        return
    if options.measure:
        measure(options.measure, options.jobs)
        return
    versions = {"this version": THIS}
    if options.against:
        versions["other version"] = options.against.resolve()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.series or Path(scratch)
        if not options.series:
            run(THIS, "--make", scratch)
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in versions}
        for _ in range(options.repeat):
            for name, checkout in versions.items():
                runs[name].append(measured(checkout, folder, options.jobs))
    print("\n".join(table(runs)))


if __name__ == "__main__":
    main()
