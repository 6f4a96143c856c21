"""The page of one job: its events and results, its captures, and the actions of an administrator."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from alnnode.analyse.operator_actions import CANCELLABLE
from alnnode.errors import JobConflict, JobNotFound
from alnnode.http.request_context import http_services, principal
from alnnode.imaging.rendering import Picture, render
from alnnode.imaging.stored_image import DamagedImageError, NoSuchFrameError, open_image
from alnnode.records import ObjectRole
from alnnode.status import report_text
from alnnode.status.forms import checked_fields, refuse_form
from alnnode.status.rendering import render_page
from alnnode.status.services import status_services

if TYPE_CHECKING:
    from datetime import datetime

    from starlette.requests import Request

    from alnnode.db.rows import JobStatus
    from alnnode.imaging.stored_image import StoredImage
    from alnnode.status.overview import SeriesSummary
    from alnnode.status.services import StatusServices

THUMBNAIL = (360, 360)  # pixels


async def job(request: Request) -> Response:
    """Show one job."""
    try:
        values = await run_in_threadpool(_job, status_services(request), request.path_params["job"])
    except JobNotFound:
        return PlainTextResponse("there is no such job", 404)
    return await render_page(request, "job.html", values, refreshes=values["job"].finished_at is None)


def _job(services: StatusServices, job_id: str) -> dict[str, Any]:
    found = services.jobs.get(job_id)
    line = services.overview.series({found.series_uid}).get(found.series_uid)
    results = () if found.purged_at else services.jobs.results(job_id)
    reports = (row for row in results if row.role is ObjectRole.SR)
    return {
        "job": found,
        "line": line,
        "results": results,
        "statements": next((report_text.read_statements(services.spool.path(row.path)) for row in reports), []),
        "captures": [row for row in results if row.role is ObjectRole.CAPTURE],
        "events": _events(found, line),
        "cancellable": found.state in CANCELLABLE,
        "log": services.job_logs.read(job_id),
    }


def _events(found: JobStatus, line: SeriesSummary | None) -> list[tuple[str, datetime]]:
    """Return what happened to a job, in order of time."""
    events = [
        ("first image received", found.created_at),
        ("last image received", line.last_received_at if line else None),
        (f"analysis started (attempt {found.attempts})", found.claimed_at),
        *((f"delivered to {delivery.destination}", delivery.sent_at) for delivery in found.deliveries),
        *((f"committed by {delivery.destination}", delivery.committed_at) for delivery in found.deliveries),
        (f"ended {found.state.value}", found.finished_at),
        ("images and results deleted", found.purged_at),
    ]
    return sorted(((text, at) for text, at in events if at is not None), key=lambda event: event[1])


async def capture(request: Request) -> Response:
    """Show a small image of a capture."""
    services = status_services(request)

    def find() -> StoredImage:
        position = request.path_params["position"]
        request.state.study = services.jobs.get(request.path_params["job"]).study_uid  # for the audit trail
        rows = [row for row in services.jobs.results(request.path_params["job"]) if row.position == position]
        if not rows:
            raise NoSuchFrameError
        return open_image(services.spool.path(rows[0].path))

    try:
        draw = partial(render, await run_in_threadpool(find), 1, "image/jpeg", Picture(viewport=THUMBNAIL))
        data = await services.renderings.run(request, draw)
    except (JobNotFound, NoSuchFrameError, DamagedImageError, OSError):
        return PlainTextResponse("there is no such capture", 404)
    return Response(data, media_type="image/jpeg")


async def act(request: Request) -> Response:
    """Retry or cancel a job."""
    if await checked_fields(request) is None:
        return refuse_form()
    job_id, action, services = request.path_params["job"], request.path_params["action"], status_services(request)
    try:
        if action == "retry":
            await run_in_threadpool(services.operator.retry, job_id)
        elif action == "cancel":
            who = "a person" if http_services(request).access.open else principal(request).name
            await run_in_threadpool(services.operator.cancel, job_id, who)
        else:
            return PlainTextResponse("the action must be retry or cancel", 404)
        study = (await run_in_threadpool(services.jobs.get, job_id)).study_uid
    except JobNotFound:
        return PlainTextResponse("there is no such job", 404)
    except JobConflict as error:
        return PlainTextResponse(str(error), 409)
    request.state.acted = (f"{action} of job {job_id}, study {study}",)  # for the audit trail
    return RedirectResponse(f"/jobs/{job_id}", 303)
