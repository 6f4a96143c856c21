"""The HTTP application: every route with the role that it asks for."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute

from alnnode.dicomweb import frames, qido, stow, wado
from alnnode.dicomweb.indexer import Indexer
from alnnode.status import health, pages
from alnnode.status.health import Readiness
from alnnode.status.metrics import Metrics, metrics
from alnnode.status.overview import Overview
from alnnode.status.progress import WorkProgress
from alnnode.web import openapi
from alnnode.web.access import Guard
from alnnode.web.auditing import Audited
from alnnode.web.forwarded_address import Forwarded
from alnnode.web.services import principal
from alnnode.worklist import event_channel, workitems
from alnnode.worklist.performer import Performer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from starlette.requests import HTTPConnection, Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
    from starlette.websockets import WebSocket

    from alnnode.settings import Web
    from alnnode.web.services import Services

    Endpoint = Callable[[Request], Awaitable[Response]]

log = structlog.get_logger()

HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
}


def create(opened: Services) -> Starlette:
    """Return the application; the caller closes the services after it ended."""
    settings = opened.settings.web
    cors = Middleware(
        CORSMiddleware,
        allow_origins=list(settings.cors_origins),
        allow_methods=["GET", "POST", "PUT", "DELETE", "OPTIONS"],
        allow_headers=["authorization", "accept", "content-type"],
    )
    app = Starlette(
        routes=_routes(),
        middleware=[
            Middleware(_Answers),
            Middleware(Forwarded, proxies=settings.trusted_proxies),
            *([cors] if settings.cors_origins else []),
            Middleware(Audited, opened=opened),
            Middleware(Guard, access=opened.access),
        ],
        exception_handlers={SQLAlchemyError: _no_database},
        lifespan=_lifespan,
    )
    app.state.services = opened
    app.state.readiness = Readiness()
    app.state.metrics = Metrics(opened.settings, Overview(opened.engine), WorkProgress(opened.engine), opened.worklist)
    return app


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    opened: Services = app.state.services
    indexer = Indexer(opened.catalogue, opened.attributes)
    performer = Performer(opened)
    indexer.start()
    if opened.settings.worklist.perform:
        performer.start()
    yield
    await run_in_threadpool(performer.close)
    await run_in_threadpool(indexer.close)


def _no_database(_request: Request, error: Exception) -> Response:
    """Say that the database is away or damaged; what it said may hold UIDs, and is neither answered nor logged."""
    log.error("database_failed", error=type(error).__name__)
    words = "the database does not answer or is damaged; the administrator finds more with `alnnode check`"
    return PlainTextResponse(words, 503, {"Retry-After": "30"})


def _routes() -> list[BaseRoute]:
    study = "/dicom-web/studies/{study}"
    series = f"{study}/series/{{series}}"
    instance = f"{series}/instances/{{instance}}"
    frame = f"{instance}/frames/{{frames}}"
    return [
        Route("/health/live", health.live),
        Route("/health/ready", health.ready),
        _route("/metrics", metrics, "read"),
        _route("/openapi.json", openapi.description, "read"),
        _route("/dicom-web/studies", stow.store, "send", ["POST"]),
        _route(study, stow.store, "send", ["POST"]),
        _route("/dicom-web/studies", qido.studies, "read"),
        *(_route(f"{base}/series", qido.series, "read") for base in ("/dicom-web", study)),
        *(_route(f"{base}/instances", qido.instances, "read") for base in ("/dicom-web", study, series)),
        *(_route(base, wado.retrieve, "read") for base in (study, series, instance)),
        *(_route(f"{base}/metadata", wado.metadata, "read") for base in (study, series, instance)),
        *(_route(f"{base}/thumbnail", frames.thumbnail, "read") for base in (study, series, instance, frame)),
        *(_route(f"{base}/rendered", frames.rendered, "read") for base in (instance, frame)),
        *pages.routes(),
        _route(f"{instance}/bulkdata/{{path:path}}", wado.bulkdata, "read"),
        _route(frame, frames.frames, "read"),
        *_worklist(),
    ]


def _worklist() -> list[BaseRoute]:
    workitem = "/dicom-web/workitems/{workitem}"
    subscriber = f"{workitem}/subscribers/{{aetitle}}"
    return [
        _route("/dicom-web/workitems", workitems.create, "send", ["POST"]),
        _route("/dicom-web/workitems", workitems.search, "read"),
        _route(workitem, workitems.retrieve, "read"),
        _route(workitem, workitems.update, "send", ["POST"]),
        _route(f"{workitem}/state", workitems.change_state, "send", ["PUT"]),
        _route(f"{workitem}/cancelrequest", workitems.request_cancel, "send", ["POST"]),
        _route(subscriber, event_channel.subscribe, "read", ["POST"]),
        _route(subscriber, event_channel.unsubscribe, "read", ["DELETE"]),
        _route(f"{subscriber}/suspend", event_channel.suspend, "read", ["POST"]),
        WebSocketRoute("/dicom-web/subscribers/{aetitle}", _channel),
    ]


async def _channel(socket: WebSocket) -> None:
    """Refuse before the handshake whom `_route` would refuse."""
    if (
        principal(socket).by_cookie
        or _is_foreign(socket, socket.app.state.services.settings.web)
        or not principal(socket).may("read")
    ):
        await socket.close(1008)
        return
    await event_channel.channel(socket)


def _is_foreign(connection: HTTPConnection, web: Web) -> bool:
    """Whether a page of another site makes this request: without tokens, its user's browser is all that it needs (CSRF)."""
    origin = connection.headers.get("origin")
    if origin is None or origin in web.cors_origins:
        return False
    return origin.partition("://")[2].lower() != connection.headers.get("host", "").lower()


def _route(path: str, endpoint: Endpoint, role: str, methods: Sequence[str] = ("GET",)) -> Route:
    """Return a route for those who have the role; a browser's session alone never sends or changes anything here."""

    async def answer(request: Request) -> Response:
        if request.method not in {"GET", "HEAD"} and principal(request).by_cookie:
            return PlainTextResponse("a token is needed in the request itself", 403)
        if request.method not in {"GET", "HEAD"} and _is_foreign(request, request.app.state.services.settings.web):
            return PlainTextResponse("pages of other sites change nothing here", 403)
        if not principal(request).may(role):
            return PlainTextResponse(f"your token does not have the role {role}", 403)
        return await endpoint(request)

    return Route(path, answer, methods=list(methods), name=f"{role}:{'+'.join(methods)}:{path}")


class _Answers:
    """Adds the security headers to every answer, and measures it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.monotonic(), 500

        async def with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                present = {name.lower() for name, _ in message.get("headers", [])}
                message["headers"] = [
                    *message.get("headers", []),
                    *((name, value) for name, value in HEADERS.items() if name not in present),
                ]
            await send(message)

        try:
            await self._app(scope, receive, with_headers)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            measured = scope["app"].state.metrics.seconds if "app" in scope else None
            if measured is not None:
                measured.labels(route, scope["method"], str(status)).observe(time.monotonic() - begun)
