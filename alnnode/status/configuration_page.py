"""The pages about the configuration: its values without secrets, routes with a dry run, and rejected associations."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool

from alnnode.errors import SettingsError
from alnnode.receive.rejections import REMEDIES
from alnnode.status.effective_settings import sections
from alnnode.status.forms import checked_fields, refuse_form
from alnnode.status.rendering import render_page
from alnnode.status.services import status_services

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from alnnode.db.rows import SeriesFacts
    from alnnode.settings import Route
    from alnnode.status.route_trials import TrialOutcome
    from alnnode.status.services import StatusServices

SERIES = 100  # of a dry run


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
    services, text = status_services(request), None
    if request.method == "POST":
        fields = await checked_fields(request)
        if fields is None:
            return refuse_form()
        text = fields.get("routes", "").replace("\r\n", "\n")
    recent = await run_in_threadpool(services.overview.recent_series, SERIES)
    outcomes, error = await run_in_threadpool(_tried, services, text, [one.facts for one in recent])
    values = {
        "series": list(zip(recent, outcomes, strict=True)),
        "trying": text is not None and not error,
        "error": error,
        "text": text or "\n".join(map(_toml, services.settings.routes)),
    }
    return await render_page(request, "routes.html", values)


def _tried(
    services: StatusServices, text: str | None, series: Sequence[SeriesFacts]
) -> tuple[Sequence[TrialOutcome | None], str]:
    """Return what becomes of each series, and an error; the routes of the configuration are tried where those of the text cannot be."""
    error = ""
    if text is not None:
        try:
            return services.trials.of_text(text, series), ""
        except SettingsError as refused:
            error = str(refused)
    try:
        return services.trials.of_routes(services.settings.routes, series), error
    except SettingsError as refused:
        return [None] * len(series), error or str(refused)


def _toml(route: Route) -> str:
    """Return the table of a route with the keys that are not the default."""
    values = route.model_dump(mode="json", exclude_defaults=True)
    # TOML has no surrogate pairs, as JSON escapes some characters.
    return "\n".join(["[[routes]]", *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()), ""])
