"""The actions of an administrator on destinations, on the analysis, and on several jobs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from alnnode.db.pauses import ANALYSIS, destination_target
from alnnode.deliver.destination_choice import connect
from alnnode.errors import DeliveryError, JobConflict, JobNotFound
from alnnode.http.request_context import http_services, principal
from alnnode.status.destination_views import DestinationView, destination_views
from alnnode.status.forms import checked_fields, checked_pairs, refuse_form
from alnnode.status.rendering import render_page
from alnnode.status.services import status_services

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.requests import Request

    from alnnode.status.services import StatusServices

MAX_JOBS = 500  # that one request retries
UNKNOWN = "there is no such destination"


async def destination(request: Request) -> Response:
    """Show one destination."""
    found = await run_in_threadpool(_view, status_services(request), request.path_params["name"])
    if found is None:
        return PlainTextResponse(UNKNOWN, 404)
    return await render_page(request, "destination.html", {"one": found, "answer": None})


async def act_on_destination(request: Request) -> Response:
    """Test a destination, pause or resume it, or retry its failed deliveries."""
    if await checked_fields(request) is None:
        return refuse_form()
    services, name, action = status_services(request), request.path_params["name"], request.path_params["action"]
    found = await run_in_threadpool(_view, services, name)
    if found is None:
        return PlainTextResponse(UNKNOWN, 404)
    target = destination_target(name)
    if action == "test":
        answer = await run_in_threadpool(_test, services, found)
        request.state.acted = (f"test of {target}",)  # for the audit trail
        return await render_page(request, "destination.html", {"one": found, "answer": answer})
    if action == "retry":
        jobs = await run_in_threadpool(services.overview.failed_jobs, name, MAX_JOBS)
        return await _retry(request, jobs, f"/destinations/{name}")
    if action not in {"pause", "resume"}:
        return PlainTextResponse("the action must be test, pause, resume or retry", 404)
    await _pause_or_resume(request, target, action)
    return RedirectResponse(f"/destinations/{name}", 303)


async def act_on_analysis(request: Request) -> Response:
    """Pause or resume the analysis."""
    if await checked_fields(request) is None:
        return refuse_form()
    action = request.path_params["action"]
    if action not in {"pause", "resume"}:
        return PlainTextResponse("the action must be pause or resume", 404)
    await _pause_or_resume(request, ANALYSIS, action)
    return RedirectResponse("/", 303)


async def retry_jobs(request: Request) -> Response:
    """Retry the selected jobs."""
    fields = await checked_pairs(request)
    if fields is None:
        return refuse_form()
    jobs = [value for name, value in fields if name == "job"][:MAX_JOBS]
    return await _retry(request, jobs, "/")


async def _pause_or_resume(request: Request, target: str, action: str) -> None:
    pauses = status_services(request).pauses
    if action == "pause":
        who = "a person" if http_services(request).access.open else principal(request).name
        await run_in_threadpool(pauses.pause, target, who)
    else:
        await run_in_threadpool(pauses.resume, target)
    request.state.acted = (f"{action} of the {target}",)  # for the audit trail


async def _retry(request: Request, jobs: Iterable[str], back: str) -> Response:
    """Retry jobs, and show what became of each."""
    services = status_services(request)

    def retry() -> list[tuple[str, str, str]]:
        """Return id, new state and study of each; the reason and no study if it cannot be retried."""
        outcome = []
        for job_id in jobs:
            try:
                state = services.operator.retry(job_id)
                outcome.append((job_id, state.value.lower(), services.jobs.get(job_id).study_uid))
            except JobNotFound:
                outcome.append((job_id, "there is no such job", ""))
            except JobConflict as error:
                outcome.append((job_id, str(error), ""))
        return outcome

    outcome = await run_in_threadpool(retry)
    request.state.acted = tuple(
        f"retry of job {job}, study {study}" for job, _, study in outcome if study
    )  # for the audit trail
    return await render_page(request, "retried.html", {"outcome": outcome, "back": back})


def _view(services: StatusServices, name: str) -> DestinationView | None:
    return next((one for one in destination_views(services) if one.name == name), None)


def _test(services: StatusServices, found: DestinationView) -> tuple[bool, str]:
    """Ask a destination whether it responds; return whether it does, and a sentence."""
    if found.settings is None:
        return False, "The configuration no longer names this destination."
    kind, begun = "a DICOMweb search" if found.settings.kind == "stow" else "C-ECHO", time.monotonic()
    try:
        connect(found.settings, services.settings.node.ae_title).echo()
    except DeliveryError as error:
        return False, str(error)
    return True, f"{found.name} answers {kind} after {1000 * (time.monotonic() - begun):.0f} ms."
