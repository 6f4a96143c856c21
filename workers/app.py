"""The Celery application of a worker, and the checks before its start."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from celery import Celery, signals

from alnnode import logs
from alnnode.db.schema import schema_state
from alnnode.process import heartbeat
from alnnode.process.child import end_with_parent
from alnnode.process.job_logs import JobLogs
from alnnode.process.supervised import report_ready
from alnnode.spool import copies
from alnnode.task_queue import ANALYSE, DELIVER, celery_options
from workers import devices, tasks

if TYPE_CHECKING:
    from alnnode.settings import Settings
    from workers.runtime import Runtime

SPARE_THREADS = 2


def create(runtime: Runtime) -> Celery:
    """Return the application with both tasks."""
    app = Celery("alnnode", set_as_current=False)
    app.conf.update(celery_options(runtime.settings))
    tasks.register(app, runtime)
    signals.worker_shutting_down.connect(lambda **_: runtime.stopping.set(), weak=False)
    return app


def refuse_at_start(settings: Settings, queue: str) -> None:
    """Check the database and the model bundle, so that the worker fails now instead of in every job.

    Raises:
        ServiceError: the database has another schema than this version needs, or cannot be reached.
        BundleError: the model bundle differs from its manifest (analysing worker only).
    """
    schema_state(settings.database_url)
    if queue == ANALYSE:
        from alnnode.model import bundle  # noqa: PLC0415 - the delivering worker starts without it

        bundle.load(bundle.resolve(settings.analysis.bundle))


def run(app: Celery, queue: str, settings: Settings) -> None:
    """Run the tasks of one queue until the worker is told to stop.

    The analysing worker runs tasks in forked processes, one for each GPU, so that a kill or a time limit ends a job and not the worker. The delivering
    worker runs tasks in threads, because it waits for the network most of the time.
    """
    job_logs = JobLogs(settings.node.data_dir)
    signals.setup_logging.connect(lambda **_: logs.configure(settings.logging, job_logs.write), weak=False)
    signals.worker_ready.connect(lambda **_: report_ready(), weak=False)
    signals.worker_ready.connect(lambda sender, **_: _beat(sender, settings, queue), weak=False)
    if settings.spool.bucket:
        signals.worker_ready.connect(lambda sender, **_: _end_copies(sender, settings), weak=False)
    signals.worker_process_init.connect(_end_with_worker, weak=False)
    gpus = [] if settings.analysis.device == "cpu" else devices.visible()
    signals.worker_process_init.connect(lambda **_: devices.use(gpus), weak=False)
    pool = ["--pool", "prefork", "--concurrency", str(max(1, len(gpus)))]
    if queue == DELIVER:
        pool = ["--pool", "threads", "--concurrency", str(len(settings.destinations) + SPARE_THREADS)]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    app.worker_main(["--quiet", "worker", "--queues", queue, "--hostname", f"{queue}@%h", *pool, *quiet])


def _beat(consumer: Any, settings: Settings, queue: str) -> None:
    """Write heartbeats from the event loop of the worker: a thread of its own would go on when the loop hangs."""
    beaten = [0]

    def once() -> None:
        with suppress(OSError):  # a full disk does not stop the worker; /health/ready reports it
            beaten[0] = heartbeat.beat(settings.node.data_dir, queue)

    def end(**_: object) -> None:
        with suppress(OSError):
            heartbeat.end(settings.node.data_dir, queue, beaten[0])

    once()
    signals.worker_shutdown.connect(end, weak=False)
    consumer.timer.call_repeatedly(heartbeat.INTERVAL, once)


def _end_copies(consumer: Any, settings: Settings) -> None:
    """Delete the copies of a bucket that nobody uses, also while no task comes: a process of the pool opens the spool with its first task."""
    consumer.timer.call_repeatedly(copies.INTERVAL, copies.Copies(settings.node.data_dir.resolve() / "spool").delete_unused)


def _end_with_worker(**_: object) -> None:
    """Kill the child process when the worker is killed; Celery's child would finish its task first."""
    end_with_parent(signal.SIGKILL, os.getppid())
