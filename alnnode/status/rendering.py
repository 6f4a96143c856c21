"""Render the HTML pages of the status page. They use no scripts, and no fonts or images of other servers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, Response

from alnnode import __version__
from alnnode.http.access import SESSION_COOKIE
from alnnode.http.request_context import http_services, principal
from alnnode.status import plots
from alnnode.status.services import status_services

if TYPE_CHECKING:
    from datetime import datetime

    from starlette.requests import Request

FOLDER = Path(__file__).parent
REFRESH = 30  # seconds


async def render_page(request: Request, template: str, values: dict[str, Any], *, refreshes: bool = False) -> Response:
    """Render a page for the client of a request.

    With ``refreshes``, the browser loads the page again every `REFRESH` seconds, unless the user stopped that (``?refresh=off``). It does
    so by a header, without a script, and keeps the place in the page.
    If the settings have no token, the first page begins a session, so that forms can contain its CSRF token.
    """
    access, client = http_services(request).access, principal(request)
    refreshing = refreshes and request.query_params.get("refresh") != "off"
    session = client.session or (access.begin_session(client.name) if access.open else "")
    common = {
        "client": client,
        "open": access.open,
        "csrf": access.csrf_token(session),
        "now": await run_in_threadpool(status_services(request).overview.now),
        "node": status_services(request).settings.node.ae_title,
        "version": __version__,
        "path": request.url.path,
        "refresh": REFRESH if refreshes else 0,
        "refreshing": refreshing,
    }
    page = await run_in_threadpool(render_template, template, {**common, **values}, 200)
    if refreshing:
        page.headers["refresh"] = str(REFRESH)
    if session != client.session:
        set_session_cookie(page, request, session)
    return page


def set_session_cookie(response: Response, request: Request, session: str) -> None:
    """Add the cookie of a session to a response."""
    services = http_services(request)
    seconds = int(services.settings.session_hours * 3600)
    response.set_cookie(
        SESSION_COOKIE, session, max_age=seconds, httponly=True, samesite="strict", secure=services.access.secure
    )


def render_template(template: str, values: dict[str, Any], status: int) -> Response:
    """Render a template with these values only."""
    return HTMLResponse(_TEMPLATES.get_template(template).render(values), status)


def _age(at: datetime, now: datetime) -> str:
    return plots.duration_text(max(0.0, (now - at).total_seconds()))


_TEMPLATES = Environment(loader=FileSystemLoader(FOLDER / "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
_TEMPLATES.filters["state_name"] = lambda state: state.value.lower().replace("_", " ")
_TEMPLATES.globals.update(age=_age, duration=plots.duration_text)
