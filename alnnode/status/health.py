"""``/health/live``: this process answers. ``/health/ready``: the node can take images and analyse them; each thing it needs, by name.

Neither needs a token, so neither says more than yes or no; ``alnnode check`` and the status page say why.
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
from alnnode.web.services import services

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from alnnode.settings import Settings

KEPT = 2.0  # seconds that an answer is good for: a check without a token must not be a way to keep the node busy


async def live(_request: Request) -> Response:
    """Answer."""
    return JSONResponse({"live": True})


async def ready(request: Request) -> Response:
    """Answer 200 when everything is there, else 503."""
    checks: Readiness = request.app.state.readiness
    found = await run_in_threadpool(checks.now, services(request).settings)
    return JSONResponse({"ready": all(found.values()), "checks": found}, 200 if all(found.values()) else 503)


class Readiness:
    """Looks at each thing, at most once in `KEPT` seconds."""

    def __init__(self) -> None:
        self._at, self._found = 0.0, dict[str, bool]()
        self._bundle: bool | None = None  # it is immutable, and reading it takes a second: looked at once

    def now(self, settings: Settings) -> dict[str, bool]:
        """Return which things are there."""
        if time.monotonic() - self._at > KEPT or not self._found:
            self._found = {
                "database": _does(lambda: schema_state(settings.database_url)),
                "broker": _does(lambda: ping(settings.broker_url)),
                "disk": _disk(settings),
                "bundle": self._bundle_there(settings),
                **_workers(settings),
            }
            self._at = time.monotonic()
        return self._found

    def _bundle_there(self, settings: Settings) -> bool:
        if not self._bundle:
            self._bundle = _does(lambda: bundle.load(bundle.resolve(settings.analysis.bundle)))
        return self._bundle


def _does(look: Callable[[], object]) -> bool:
    try:
        look()
    except (ServiceError, BundleError, SQLAlchemyError, OSError):
        return False
    return True


def _disk(settings: Settings) -> bool:
    try:
        free = shutil.disk_usage(settings.node.data_dir).free >> 20
    except OSError:
        return False
    return free >= settings.retention.min_free_mb


def _workers(settings: Settings) -> dict[str, bool]:
    """Whether some host works on each queue."""
    try:
        ages = heartbeat.ages(settings.node.data_dir)
    except OSError:
        ages = {}
    alive = {name.partition("@")[0] for name, age in ages.items() if age < heartbeat.LATE}
    return {f"worker-{queue}": queue in alive for queue in (ANALYSE, DELIVER)}
