"""ASGI middleware that identifies the client of every request, and refuses requests of unknown clients.

The guard lets a request pass without a token only if its path is public in the route table. If the settings have no token, the service listens
on loopback only (`alnnode.settings.Web` checks this). The guard then accepts only requests whose Host header is a loopback name: this stops DNS
rebinding, in which a page of another site makes its own host name resolve to this machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from alnnode.http.access import AccessControl, Principal

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Guard:
    """Puts the `Principal` into the state of each request, or answers 400, 401, 421 or 429.

    Args:
        app: the application behind the guard.
        access: the tokens, the sessions and the limits.
        public_paths: the beginnings of the paths that need no token.
    """

    def __init__(self, app: ASGIApp, access: AccessControl, public_paths: tuple[str, ...]) -> None:
        self._app, self._access, self._public_paths = app, access, public_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        address = (scope.get("client") or ("",))[0]
        refusal = self._refuse_host(headers)
        if refusal is None:
            # The OpenID Connect verifier may have to fetch the keys of the issuer, and so must not run in the event loop.
            identify = self._access.identify
            principal = await run_in_threadpool(identify, headers) if self._access.oidc else identify(headers)
            refusal = self._refuse_rate(principal, address)
            scope.setdefault("state", {}).update(principal=principal, too_fast=refusal is not None)
            refusal = refusal or self._refuse_unknown(scope, headers, address, principal) or _refuse_nul(scope)
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await refusal(scope, receive, send)

    def _refuse_host(self, headers: Headers) -> ASGIApp | None:
        """Refuse a request to a name that is not loopback while the settings have no token."""
        if self._access.open and _host_name(headers.get("host", "")) not in LOOPBACK_NAMES:
            return PlainTextResponse(
                "this service answers only to localhost; set [[web.tokens]] or [web.oidc] to use another host name", 421
            )
        return None

    def _refuse_rate(self, principal: Principal | None, address: str) -> ASGIApp | None:
        """Refuse a client that sends too many requests per second. A client is a token; without a valid token it is an address."""
        client = address if principal is None or self._access.open else f"token {principal.name}"
        if self._access.request_rate.allows(client):
            return None
        return PlainTextResponse("too many requests per second from this client", 429, {"Retry-After": "1"})

    def _refuse_unknown(self, scope: Scope, headers: Headers, address: str, principal: Principal | None) -> ASGIApp | None:
        """Refuse an unknown client. A valid token passes even if its address is blocked: other clients share the address."""
        if principal is not None or scope["path"].startswith(self._public_paths):
            return None
        if self._access.wrong_tokens.is_blocked(address):
            return PlainTextResponse("too many wrong tokens; wait a minute", 429, {"Retry-After": "60"})
        if "authorization" in headers:
            self._access.wrong_tokens.count(address)
        elif scope["type"] == "http" and scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            return RedirectResponse(f"/login?next={quote(scope['path'], safe='/')}", 303)
        return PlainTextResponse("a token is needed", 401, {"WWW-Authenticate": 'Bearer realm="alnnode"'})


def _refuse_nul(scope: Scope) -> ASGIApp | None:
    """Refuse a NUL character in the path or the query. No UID, name or text contains one, and PostgreSQL accepts none in a value."""
    if "\0" in scope["path"] or b"%00" in scope["query_string"] or b"\0" in scope["query_string"]:
        return PlainTextResponse("the URL contains a NUL character (%00)", 400)
    return None


def _host_name(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()
