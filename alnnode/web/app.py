"""Create the HTTP application from the route table."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse

from alnnode.dicomweb.indexer import Indexer
from alnnode.http.address_share import AddressShare
from alnnode.http.forwarded_address import ForwardedAddress
from alnnode.http.guard import Guard
from alnnode.http.route_table import public_paths
from alnnode.web.auditing import HttpAuditor
from alnnode.web.response_middleware import ResponseMiddleware
from alnnode.web.routes import ROUTES
from alnnode.worklist.performer import Performer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.responses import Response

    from alnnode.settings import Web
    from alnnode.web.services import WebServices

log = structlog.get_logger()


def create(services: WebServices) -> Starlette:
    """Return the application; the caller closes the services after it has ended."""
    app = Starlette(
        routes=[entry.starlette_route() for entry in ROUTES],
        middleware=_middleware(services),
        exception_handlers={SQLAlchemyError: _answer_database_error, ClientDisconnect: _answer_incomplete_body},
        lifespan=_lifespan,
    )
    app.state.services = services
    app.state.http = services.http
    app.state.dicomweb = services.dicomweb
    app.state.worklist = services.worklist
    app.state.status = services.status
    return app


def _answer_incomplete_body(_request: Request, _error: Exception) -> Response:
    """Answer a request whose client ended the connection within the body: it is no error of this program, and needs no traceback."""
    return PlainTextResponse("the connection ended before the body was complete", 400)


def _middleware(services: WebServices) -> list[Middleware]:
    """Return the middleware, the outermost first."""
    settings = services.settings.web
    return [
        Middleware(ResponseMiddleware, seconds=services.status.metrics.request_seconds),
        Middleware(ForwardedAddress, proxies=settings.trusted_proxies),
        *_cors(settings),
        Middleware(AddressShare, proxies=settings.trusted_proxies),
        Middleware(HttpAuditor, trail=services.trail, catalogue=services.dicomweb.catalogue, spool=services.dicomweb.spool),
        Middleware(Guard, access=services.http.access, public_paths=public_paths(ROUTES)),
    ]


def _cors(settings: Web) -> list[Middleware]:
    if not settings.cors_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "PUT", "DELETE", "OPTIONS"],
            allow_headers=["authorization", "accept", "content-type"],
        )
    ]


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    """Run the indexer, and the performer of workitems if the settings enable it, while the application runs."""
    services: WebServices = app.state.services
    indexer = Indexer(services.dicomweb.catalogue, services.dicomweb.attributes)
    performer = Performer(services.worklist)
    indexer.start()
    if services.settings.worklist.perform:
        performer.start()
    yield
    await run_in_threadpool(performer.close)
    await run_in_threadpool(indexer.close)


def _answer_database_error(_request: Request, error: Exception) -> Response:
    """Answer 503 without the message of the database, which may contain UIDs; for the same reason it is not logged."""
    log.error("database_failed", error=type(error).__name__)
    text = "the database does not respond or is damaged; the administrator can run `alnnode check` for the reason"
    return PlainTextResponse(text, 503, {"Retry-After": "30"})
