"""Entries of the route table: each route with its endpoint, the role that it requires, and its description.

Every package with routes has one table (`alnnode.dicomweb.routes`, `alnnode.worklist.routes`, `alnnode.status.routes`), and `alnnode.web.routes`
joins them. The Starlette routes, the access rules and the OpenAPI description are made from this one table.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

from alnnode.http.request_context import is_cross_site, principal

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.websockets import WebSocket

    from alnnode.http.openapi_operation import Operation

Endpoint = Callable[[Request], Awaitable[Response]]
READING = frozenset({"GET", "HEAD"})


class Role(StrEnum):
    """Who may use a route; an administrator may use every route."""

    PUBLIC = "public"  # everybody, without a token
    KNOWN = "known"  # every client with a valid token or session
    READ = "read"
    SEND = "send"
    ADMIN = "admin"


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiRoute:
    """A route for programs. A browser session alone is not enough for requests that change something."""

    method: str
    path: str
    endpoint: Endpoint
    role: Role
    operation: Operation

    def starlette_route(self) -> BaseRoute:
        """Return the route with its access rules."""
        endpoint = self.endpoint if self.role is Role.PUBLIC else self._answer
        return Route(self.path, endpoint, methods=[self.method])

    async def _answer(self, request: Request) -> Response:
        if request.method not in READING and principal(request).by_cookie:
            return PlainTextResponse("send a token in the Authorization header; a browser session is not enough", 403)
        if request.method not in READING and is_cross_site(request):
            return PlainTextResponse("requests from pages of other sites are refused", 403)
        return refuse_role(request, self.role) or await self.endpoint(request)


@dataclass(frozen=True, kw_only=True, slots=True)
class PageRoute:
    """A route of the status page. Its forms contain a token against cross-site request forgery, which the endpoint checks.

    OpenAPI describes routes for programs; ``summary`` describes this one for readers of the table.
    """

    methods: tuple[str, ...]
    path: str
    endpoint: Endpoint
    role: Role
    summary: str

    def starlette_route(self) -> BaseRoute:
        """Return the route with its access rule."""
        endpoint = self.endpoint if self.role in {Role.PUBLIC, Role.KNOWN} else self._answer
        return Route(self.path, endpoint, methods=list(self.methods))

    async def _answer(self, request: Request) -> Response:
        return refuse_role(request, self.role) or await self.endpoint(request)


@dataclass(frozen=True, kw_only=True, slots=True)
class WebSocketChannel:
    """A WebSocket for programs; OpenAPI has no way to describe one."""

    path: str
    endpoint: Callable[[WebSocket], Awaitable[None]]
    role: Role
    summary: str

    def starlette_route(self) -> BaseRoute:
        """Return the route with its access rules."""
        return WebSocketRoute(self.path, self._answer)

    async def _answer(self, socket: WebSocket) -> None:
        """Refuse before the handshake what an `ApiRoute` would refuse."""
        client = principal(socket)
        if client.by_cookie or is_cross_site(socket) or not client.has_role(self.role):
            await socket.close(1008)
            return
        await self.endpoint(socket)


@dataclass(frozen=True, kw_only=True, slots=True)
class StaticFolder:
    """A folder of files that everybody may read: the style sheet and the icon of the status page."""

    path: str
    folder: Path
    summary: str
    role: Role = Role.PUBLIC

    def starlette_route(self) -> BaseRoute:
        """Return the mounted folder."""
        return Mount(self.path, StaticFiles(directory=self.folder))


RouteEntry = ApiRoute | PageRoute | WebSocketChannel | StaticFolder


def refuse_role(request: Request, role: Role) -> Response | None:
    """Return the refusal if the client of a request does not have a role; None if it has it."""
    if principal(request).has_role(role):
        return None
    return PlainTextResponse(f"your token does not have the role {role}", 403)


def public_paths(table: tuple[RouteEntry, ...]) -> tuple[str, ...]:
    """Return the beginnings of the paths that need no token."""
    public = (entry for entry in table if entry.role is Role.PUBLIC)
    return tuple(f"{entry.path}/" if isinstance(entry, StaticFolder) else entry.path for entry in public)
