"""The routes of the status page, the health checks and the metrics."""

from __future__ import annotations

from alnnode.http.openapi_operation import Operation, failures, response
from alnnode.http.route_table import ApiRoute, PageRoute, Role, StaticFolder
from alnnode.status import configuration_page, control_page, health, job_page, login_page, overview_page
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
    PageRoute(
        methods=("GET", "POST"), path="/search", endpoint=overview_page.search, role=Role.READ, summary="Search for jobs"
    ),
    PageRoute(methods=("POST",), path="/jobs", endpoint=control_page.retry_jobs, role=Role.ADMIN, summary="Retry several jobs"),
    PageRoute(
        methods=("GET",),
        path="/destinations/{name}",
        endpoint=control_page.destination,
        role=Role.READ,
        summary="Show one destination",
    ),
    PageRoute(
        methods=("POST",),
        path="/destinations/{name}/{action}",
        endpoint=control_page.act_on_destination,
        role=Role.ADMIN,
        summary="Test, pause or resume a destination, or retry its failed deliveries",
    ),
    PageRoute(
        methods=("POST",),
        path="/analysis/{action}",
        endpoint=control_page.act_on_analysis,
        role=Role.ADMIN,
        summary="Pause or resume the analysis",
    ),
    PageRoute(
        methods=("GET",),
        path="/associations",
        endpoint=configuration_page.associations,
        role=Role.READ,
        summary="Show rejected associations",
    ),
    PageRoute(
        methods=("GET",),
        path="/routes",
        endpoint=configuration_page.routes,
        role=Role.READ,
        summary="Show which of the last series the routes take",
    ),
    PageRoute(
        methods=("POST",), path="/routes", endpoint=configuration_page.routes, role=Role.ADMIN, summary="Try other routes"
    ),
    PageRoute(
        methods=("GET",),
        path="/configuration",
        endpoint=configuration_page.configuration,
        role=Role.ADMIN,
        summary="Show the configuration without secrets",
    ),
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
