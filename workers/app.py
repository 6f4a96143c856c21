"""The Celery application, and what a worker refuses to start with."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from celery import Celery, signals

from alnnode import logs
from alnnode.db.schema import schema_state
from alnnode.model import bundle
from alnnode.process import heartbeat
from alnnode.process.child import end_with_parent
from alnnode.process.supervised import report_ready
from alnnode.task_queue import ANALYSE, DELIVER, celery_options
from workers import tasks

if TYPE_CHECKING:
    from alnnode.settings import Settings
    from workers.analyst import Runtime

SPARE_THREADS = 2


def create(runtime: Runtime) -> Celery:
    """Return the application with both tasks."""
    app = Celery("alnnode", set_as_current=False)
    app.conf.update(celery_options(runtime.settings))
    tasks.register(app, runtime)
    signals.worker_shutting_down.connect(lambda **_: runtime.stopping.set(), weak=False)
    return app


def refuse_at_start(settings: Settings, queue: str) -> None:
    """Fail now rather than in every job.

    Raises:
        ServiceError: the database is not at this version's schema, or cannot be reached.
        BundleError: the model bundle is not what its manifest says (analysing worker only).
    """
    schema_state(settings.database_url)
    if queue == ANALYSE:
        bundle.load(bundle.resolve(settings.analysis.bundle))


def run(app: Celery, queue: str, settings: Settings) -> None:
    """Take tasks from one queue until told to stop.

    The analysing worker has one process, forked, so that a kill or a time limit ends a job and not the worker. The delivering
    worker has threads: it waits for networks, whose time limits are its own.
    """
    signals.setup_logging.connect(lambda **_: logs.configure(settings.logging), weak=False)
    signals.worker_ready.connect(lambda **_: report_ready(), weak=False)
    signals.worker_ready.connect(lambda sender, **_: _beat(sender, settings, queue), weak=False)
    signals.worker_process_init.connect(_end_with_worker, weak=False)
    pool = ["--pool", "prefork", "--concurrency", "1"]
    if queue == DELIVER:
        pool = ["--pool", "threads", "--concurrency", str(len(settings.destinations) + SPARE_THREADS)]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    app.worker_main(["--quiet", "worker", "--queues", queue, "--hostname", f"{queue}@%h", *pool, *quiet])


def _beat(consumer: Any, settings: Settings, queue: str) -> None:
    """Give signs of life from the loop that takes tasks: a thread of its own would go on when that hangs."""

    def once() -> None:
        with suppress(OSError):  # a full disk is no reason to stop: /health/ready says so anyway
            heartbeat.beat(settings.node.data_dir, queue)

    once()
    consumer.timer.call_repeatedly(heartbeat.INTERVAL, once)


def _end_with_worker(**_: object) -> None:
    """Celery's own child would finish its task first when the worker is killed."""
    end_with_parent(signal.SIGKILL, os.getppid())
