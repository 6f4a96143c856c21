"""The route table of the HTTP service. The Starlette routes, the access rules and the OpenAPI description are made from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

from alnnode.dicomweb.routes import ROUTES as DICOMWEB_ROUTES
from alnnode.http.openapi_operation import Operation, response
from alnnode.http.route_table import ApiRoute, Role, RouteEntry
from alnnode.status.routes import ROUTES as STATUS_ROUTES
from alnnode.web.openapi import describe
from alnnode.worklist.routes import ROUTES as WORKLIST_ROUTES

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


async def _openapi(_request: Request) -> Response:
    """Answer ``GET /openapi.json``."""
    return JSONResponse(describe(ROUTES))


_OPENAPI = ApiRoute(
    method="GET",
    path="/openapi.json",
    endpoint=_openapi,
    role=Role.READ,
    operation=Operation(summary="This description", responses={200: response("This description", "application/json")}),
)
ROUTES: tuple[RouteEntry, ...] = (*STATUS_ROUTES, _OPENAPI, *DICOMWEB_ROUTES, *WORKLIST_ROUTES)
