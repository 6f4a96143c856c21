"""Answer health checks: ``/health/live`` (the process responds) and ``/health/ready`` (the node can receive and analyse images).

A worker that starts counts as present: the node receives, and a series waits until the worker claims it. The response names such workers.
No token is needed, so the responses contain only names, and true or false for each check; ``alnnode check`` and the status page give the reasons.
"""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from alnnode.db.schema import schema_state
from alnnode.errors import BundleError, ServiceError
from alnnode.model import bundle
from alnnode.process import heartbeat
from alnnode.task_queue import ANALYSE, DELIVER, ping

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from alnnode.settings import Settings

CACHE_SECONDS = 2.0  # clients without a token must not cause checks more often


async def live(_request: Request) -> Response:
    """Answer ``GET /health/live``."""
    return JSONResponse({"live": True})


async def ready(request: Request) -> Response:
    """Answer ``GET /health/ready``: 200 if all checks pass, otherwise 503."""
    readiness: Readiness = request.app.state.status.readiness
    checks = await run_in_threadpool(readiness.checks)
    good = all(checks.values())
    return JSONResponse({"ready": good, "checks": checks, "starting": list(readiness.starting)}, 200 if good else 503)


class Readiness:
    """Checks what the node needs, at most once in `CACHE_SECONDS` seconds.

    Attributes:
        starting: the workers that start, at the time of the last check; their checks are true.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.starting: tuple[str, ...] = ()
        self._checked_at, self._checks = 0.0, dict[str, bool]()
        self._bundle = False  # the bundle is immutable and takes a second to read, so it is not read again after a success

    def checks(self) -> dict[str, bool]:
        """Return the result of each check, by name."""
        settings = self._settings
        if time.monotonic() - self._checked_at > CACHE_SECONDS or not self._checks:
            workers, self.starting = _workers(settings)
            self._checks = {
                "database": _succeeds(lambda: schema_state(settings.database_url)),
                "broker": _succeeds(lambda: ping(settings.broker_url)),
                "disk": _disk(settings),
                "bundle": self._is_bundle_readable(),
                **workers,
            }
            self._checked_at = time.monotonic()
        return self._checks

    def _is_bundle_readable(self) -> bool:
        if not self._bundle:
            self._bundle = _succeeds(lambda: bundle.load(bundle.resolve(self._settings.analysis.bundle)))
        return self._bundle


def _succeeds(check: Callable[[], object]) -> bool:
    try:
        check()
    except (ServiceError, BundleError, SQLAlchemyError, OSError):
        return False
    return True


def _disk(settings: Settings) -> bool:
    try:
        free = shutil.disk_usage(settings.node.data_dir).free >> 20
    except OSError:
        return False
    return free >= settings.retention.min_free_mb


def _workers(settings: Settings) -> tuple[dict[str, bool], tuple[str, ...]]:
    """Return for each queue whether a worker on any host is alive or starts, and which start; nothing when the hosts share no folder of heartbeats."""
    if settings.spool.bucket:
        return {}, ()
    try:
        ages, starting = heartbeat.ages(settings.node.data_dir), heartbeat.starting(settings.node.data_dir)
    except OSError:
        ages, starting = {}, set()
    alive = {f"worker-{name.partition('@')[0]}" for name, age in ages.items() if age < heartbeat.LATE}
    names = [f"worker-{queue}" for queue in (ANALYSE, DELIVER)]
    return {name: name in alive | starting for name in names}, tuple(name for name in names if name in starting - alive)
