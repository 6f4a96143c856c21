"""Measure the time of one analysis of a 300-slice series, from job start to results on disk, in a separate process.

Run ``python benchmarks/analyse.py`` with the [worker] extra installed. Because machines differ, it also prints the ratio to decoding the same
files with pydicom in the same run. Peak memory is that of the process.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SLICES, THICKNESS_MM = 300, 1.0


def make(folder: Path) -> None:
    """Write the series; this runs in another process, so that its memory is not counted."""
    from alnnode.phantom import PhantomSettings, make_patient, write_series

    settings = PhantomSettings(slices=(SLICES, SLICES), thickness_mm=(THICKNESS_MM, THICKNESS_MM))
    write_series(make_patient(seed=77, index=0, settings=settings), folder)


def measure(folder: Path) -> None:
    """Load the model, measure the job, and print one Markdown row for each figure."""
    from pydicom import dcmread

    from alnnode import pipeline, report
    from alnnode.cli.offline import offline_context
    from alnnode.model import bundle as bundles
    from alnnode.settings import Settings

    paths = sorted(folder.rglob("*.dcm"))
    start = time.perf_counter()
    bundle = bundles.load(bundles.resolve("demo"))
    models = pipeline.Models.load(bundle, "auto")
    loaded = time.perf_counter() - start
    start = time.perf_counter()
    for path in paths:
        _ = dcmread(path).pixel_array
    plain = time.perf_counter() - start
    settings = Settings()
    marks: list[tuple[str, float]] = []
    start = time.perf_counter()
    analysis = pipeline.analyse(
        pipeline.SeriesInput(paths), models, settings.analysis, lambda step: marks.append((step, time.perf_counter()))
    )
    marks.append(("report", time.perf_counter()))
    objects = report.build(analysis, offline_context(paths, settings))
    for number, item in enumerate(objects):
        (folder / f"result-{number}").write_bytes(item.data)
    end = time.perf_counter()
    print("| step | s |\n|---|---|")
    for (step, began), (_, ended) in zip(marks, [*marks[1:], ("end", end)], strict=True):
        print(f"| {step} | {ended - began:.2f} |")
    print(
        f"| **job start to results** ({len(paths)} slices, {len(analysis.findings)} nodes, {len(objects)} objects) | **{end - start:.2f}** |"
    )
    print(f"| ratio to plain pydicom decoding of the same files ({plain:.2f} s) | {(end - start) / plain:.1f} |")
    print(f"| model load, once per worker process | {loaded:.2f} |")
    print(f"| peak memory of the process, MiB | {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} |")


def main() -> None:
    """Make the series once, then measure ``--repeat`` times, each time in a new process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make(options.make)
        return
    if options.measure:
        measure(options.measure)
        return
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, __file__, "--make", folder], check=True)
        for number in range(options.repeat):
            print(f"\nRun {number + 1}\n")
            sys.stdout.flush()
            subprocess.run([sys.executable, __file__, "--measure", folder], check=True)


if __name__ == "__main__":
    main()
