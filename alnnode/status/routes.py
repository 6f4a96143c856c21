"""The routes of the status page, the health checks and the metrics."""

from __future__ import annotations

from alnnode.http.openapi_operation import Operation, failures, response
from alnnode.http.route_table import ApiRoute, PageRoute, Role, StaticFolder
from alnnode.status import health, job_page, login_page, overview_page
from alnnode.status.metrics import metrics
from alnnode.status.rendering import FOLDER

_LIVE = Operation(
    summary="Whether the service responds", responses={200: response("Whether the service responds", "application/json")}
)
_READY = Operation(
    summary="Whether the node can receive and analyse images",
    responses={200: response("Whether the node can receive and analyse images", "application/json"), **failures(503)},
)
_METRICS = Operation(
    summary="Metrics for Prometheus", responses={200: response("Metrics for Prometheus", "text/plain"), **failures(503)}
)

ROUTES = (
    ApiRoute(method="GET", path="/health/live", endpoint=health.live, role=Role.PUBLIC, operation=_LIVE),
    ApiRoute(method="GET", path="/health/ready", endpoint=health.ready, role=Role.PUBLIC, operation=_READY),
    ApiRoute(method="GET", path="/metrics", endpoint=metrics, role=Role.READ, operation=_METRICS),
    PageRoute(
        methods=("GET",),
        path="/",
        endpoint=overview_page.overview,
        role=Role.READ,
        summary="Show the state of the node and its jobs",
    ),
    PageRoute(methods=("POST",), path="/search", endpoint=overview_page.search, role=Role.READ, summary="Search for jobs"),
    PageRoute(methods=("GET",), path="/jobs/{job}", endpoint=job_page.job, role=Role.READ, summary="Show one job"),
    PageRoute(
        methods=("GET",),
        path="/jobs/{job}/captures/{position:int}",
        endpoint=job_page.capture,
        role=Role.READ,
        summary="Show a small image of a capture",
    ),
    PageRoute(
        methods=("POST",),
        path="/jobs/{job}/{action}",
        endpoint=job_page.act,
        role=Role.ADMIN,
        summary="Retry or cancel a job",
    ),
    PageRoute(methods=("GET", "POST"), path="/login", endpoint=login_page.login, role=Role.PUBLIC, summary="Begin a session"),
    PageRoute(methods=("POST",), path="/logout", endpoint=login_page.logout, role=Role.KNOWN, summary="End a session"),
    StaticFolder(path="/static", folder=FOLDER / "static", summary="Style sheet and icon"),
)
