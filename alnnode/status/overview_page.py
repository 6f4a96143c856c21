"""The overview of the status page, and the search for jobs."""

from __future__ import annotations

import shutil
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool

from alnnode.db.pauses import ANALYSIS
from alnnode.errors import JobNotFound
from alnnode.process import heartbeat
from alnnode.records import JobState
from alnnode.status import plots
from alnnode.status.destination_views import destination_views
from alnnode.status.forms import checked_fields, refuse_form
from alnnode.status.rendering import render_page
from alnnode.status.services import status_services

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from alnnode.status.services import StatusServices

LATEST, LATEST_OF_STATE = 15, 500  # jobs on the page
MAX_QUERY = 128  # characters
REJECTIONS = 5  # on the overview; the page of the associations has all
RECENT = timedelta(days=1)  # of a rejection that the overview reports
RETRYABLE = (JobState.FAILED, JobState.NOT_ANALYSED, JobState.DELIVERED, JobState.SKIPPED)
ACCESSION_NUMBER = "00080050"


async def overview(request: Request) -> Response:
    """Show the state of the node and the most recent jobs; with ``?state=``, the jobs of one state."""
    wanted = request.query_params.get("state", "")
    state = JobState(wanted) if wanted in set(JobState) else None
    values = await run_in_threadpool(_overview, status_services(request), state)
    # A list in which an administrator selects jobs must not lose the selection.
    return await render_page(request, "overview.html", values, refreshes=state is None)


def _overview(services: StatusServices, state: JobState | None) -> dict[str, Any]:
    jobs, data_dir = services.overview, services.settings.node.data_dir
    now = jobs.now()
    counts, oldest = jobs.states(), jobs.oldest(now)
    disk = shutil.disk_usage(data_dir)
    return {
        **_job_table(services, services.jobs.list(state, LATEST_OF_STATE if state else LATEST)),
        "state": state,
        "states": [(one, counts.get(one, 0), oldest.get(one)) for one in JobState],
        "throughput": plots.throughput(jobs.hours(now=now)),
        "latency": plots.latency(jobs.ended(now=now), now),
        **_destinations(services),
        "rejections": services.rejections.recent(REJECTIONS),
        "recently": now - RECENT,
        "retryable": state in RETRYABLE,
        "checks": services.readiness.checks(),
        "starting": services.readiness.starting,
        "workers": heartbeat.ages(data_dir),
        "late": heartbeat.LATE,
        "model": services.model.read(),
        "disk": disk,
        "disk_low": disk.free >> 20 < services.settings.retention.min_free_mb,
        "held": jobs.held(),
    }


def _destinations(services: StatusServices) -> dict[str, Any]:
    found, pauses = destination_views(services), services.pauses.all()
    return {
        "destinations": found,
        "failing": [one for one in found if one.failing],
        "paused": [one for one in found if one.pause is not None],
        "analysis_pause": pauses.get(ANALYSIS),
    }


async def search(request: Request) -> Response:
    """Find jobs. The form uses POST because queries are often accession numbers, and URLs are written to logs and histories."""
    if request.method == "GET":
        return await render_page(request, "search.html", {"jobs": (), "series": {}, "words": ""})
    fields = await checked_fields(request)
    if fields is None:
        return refuse_form()
    query = fields.get("words", "").strip()[:MAX_QUERY]
    found = await run_in_threadpool(_search, status_services(request), query) if query else {"jobs": (), "series": {}}
    return await render_page(request, "search.html", {**found, "words": query})


def _search(services: StatusServices, query: str) -> dict[str, Any]:
    stored = services.catalogue.series()
    attributes = services.attributes.series_attributes(stored)
    studies = {
        series.study_uid
        for series, found in zip(stored, attributes, strict=True)
        if found is not None and query in found.get(ACCESSION_NUMBER, {}).get("Value", [])
    }
    jobs = []
    for job_id in services.overview.find(query, studies):
        with suppress(JobNotFound):  # its rows were deleted since
            jobs.append(services.jobs.get(job_id))
    return _job_table(services, jobs)


def _job_table(services: StatusServices, jobs: Any) -> dict[str, Any]:
    """Return the values for a table of jobs in a template."""
    return {"jobs": jobs, "series": services.overview.series({job.series_uid for job in jobs})}
