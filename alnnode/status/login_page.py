"""Begin and end browser sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse, RedirectResponse

from alnnode.http.access import SESSION_COOKIE
from alnnode.http.request_context import http_services, principal
from alnnode.status.forms import checked_fields, read_fields, refuse_form
from alnnode.status.rendering import render_template, set_session_cookie

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


async def login(request: Request) -> Response:
    """Show the login form; begin a session if it is sent with the secret of a token."""
    access = http_services(request).access
    destination = request.query_params.get("next", "/")
    if not destination.startswith("/") or destination.startswith(("//", "/\\")):
        destination = "/"  # otherwise a link could lead the user to another site after the login
    if request.method != "POST":  # HEAD too, which a monitoring system sends
        return render_template("login.html", {"wrong": False, "client": None}, 200)
    address = request.client.host if request.client else ""
    client = access.by_secret((await read_fields(request)).get("token", "").strip())
    if client is None and access.wrong_tokens.is_blocked(address):
        return PlainTextResponse("too many wrong tokens; wait a minute", 429, {"Retry-After": "60"})
    if client is None:
        access.wrong_tokens.count(address)
        return render_template("login.html", {"wrong": True, "client": None}, 403)
    request.state.entered = client.name  # for the audit trail
    response = RedirectResponse(destination, 303)
    set_session_cookie(response, request, access.begin_session(client.name))
    return response


async def logout(request: Request) -> Response:
    """End the session."""
    if await checked_fields(request) is None:
        return refuse_form()
    http_services(request).access.end_session(principal(request).session)
    response = RedirectResponse("/login", 303)
    response.delete_cookie(SESSION_COOKIE)
    return response
