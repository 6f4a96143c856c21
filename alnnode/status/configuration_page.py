"""The pages about the configuration: its values without secrets, routes with a dry run, and rejected associations."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool

from alnnode.errors import SettingsError
from alnnode.receive import routes as routing
from alnnode.receive.rejections import REMEDIES
from alnnode.settings import load_routes
from alnnode.status.effective_settings import sections
from alnnode.status.forms import checked_fields, refuse_form
from alnnode.status.rendering import render_page
from alnnode.status.services import status_services

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from alnnode.settings import Route
    from alnnode.status.services import StatusServices

SERIES = 100  # of a dry run
MAX_TEXT = 8000  # characters of routes to try


async def configuration(request: Request) -> Response:
    """Show the effective configuration."""
    services = status_services(request)
    values = {"sections": sections(services.settings), "read_at": services.read_at}
    return await render_page(request, "configuration.html", values)


async def associations(request: Request) -> Response:
    """Show the associations that the listener rejected."""
    rejections = status_services(request).rejections
    values = {"rejections": await run_in_threadpool(rejections.recent), "totals": await run_in_threadpool(rejections.totals)}
    return await render_page(request, "associations.html", {**values, "remedies": REMEDIES})


async def routes(request: Request) -> Response:
    """Show which of the last series the routes take, and why; with POST, routes that an administrator tries."""
    services, text, error = status_services(request), "", ""
    tried = services.settings.routes
    if request.method == "POST":
        fields = await checked_fields(request)
        if fields is None:
            return refuse_form()
        text = fields.get("routes", "").replace("\r\n", "\n")[:MAX_TEXT]
        try:
            tried = load_routes(text)
        except SettingsError as refused:
            error = str(refused)
    values = {
        "series": await run_in_threadpool(_dry_run, services, tried),
        "routes": tried,
        "trying": request.method == "POST" and not error,
        "error": error,
        "text": text or "\n".join(map(_toml, services.settings.routes)),
    }
    return await render_page(request, "routes.html", values)


def _dry_run(services: StatusServices, tried: Sequence[Route]) -> list[dict[str, Any]]:
    """Return the last series with what becomes of each, and what each route says."""
    return [
        {
            "one": one,
            "unwanted": routing.unwanted(tried, one.facts),
            "takers": [route.name for route in tried if routing.mismatch(route, one.facts) is None],
            "reasons": [(route.name, routing.mismatch(route, one.facts)) for route in tried],
        }
        for one in services.overview.recent_series(SERIES)
    ]


def _toml(route: Route) -> str:
    """Return the table of a route with the keys that are not the default."""
    values = route.model_dump(mode="json", exclude_defaults=True)
    return "\n".join(["[[routes]]", *(f"{key} = {json.dumps(value)}" for key, value in values.items()), ""])
