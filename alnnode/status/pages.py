"""The status page: what the node is doing, for people. Rendered here, without scripts, fonts or pictures from elsewhere."""

from __future__ import annotations

import hmac
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from jinja2 import Environment, FileSystemLoader
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from alnnode import __version__
from alnnode.analyse.operator_actions import CANCELLABLE
from alnnode.errors import BundleError, JobConflict, JobNotFound
from alnnode.imaging.rendering import Picture, render
from alnnode.imaging.stored_image import DamagedImageError, NoSuchFrameError, open_image
from alnnode.model import bundle
from alnnode.process import heartbeat
from alnnode.records import JobState, ObjectRole
from alnnode.status import plots
from alnnode.status import report_text as answer
from alnnode.status.overview import Overview
from alnnode.web.access import COOKIE
from alnnode.web.services import principal, services

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from alnnode.web.services import Services

    Endpoint = Callable[[Request], Awaitable[Response]]

HERE = Path(__file__).parent
SHOWN, SHOWN_OF_STATE = 15, 500  # jobs
THUMBNAIL = (360, 360)
MAX_FORM = 64 << 10  # bytes
MAX_FIELDS = 20
ACCESSION = "00080050"


def routes() -> list[BaseRoute]:
    """Return the routes of the page; those that change something want the token of a form, or no cookie."""
    return [
        Route("/", _reader(overview), name="read:GET:/"),
        Route("/search", _reader(search), methods=["POST"], name="read:POST:/search"),
        Route("/jobs/{job}", _reader(job), name="read:GET:/jobs/{job}"),
        Route("/jobs/{job}/captures/{position:int}", _reader(capture), name="read:GET:/jobs/{job}/captures/{position}"),
        Route("/jobs/{job}/{action}", act, methods=["POST"], name="admin:POST:/jobs/{job}/{action}"),
        Route("/login", login, methods=["GET", "POST"]),
        Route("/logout", logout, methods=["POST"]),
        Mount("/static", StaticFiles(directory=HERE / "static")),
    ]


def _reader(endpoint: Endpoint) -> Endpoint:
    async def answer(request: Request) -> Response:
        if not principal(request).may("read"):
            return PlainTextResponse("your token does not have the role read", 403)
        return await endpoint(request)

    return answer


async def overview(request: Request) -> Response:
    """Show everything at a glance."""
    wanted = request.query_params.get("state", "")
    state = JobState(wanted) if wanted in set(JobState) else None
    return await _page(request, "overview.html", await run_in_threadpool(_overview, request, state))


def _overview(request: Request, state: JobState | None) -> dict[str, Any]:
    opened, now = services(request), datetime.now(UTC)
    figures = Overview(opened.engine)
    counts, oldest = figures.states(), figures.oldest(now)
    disk = shutil.disk_usage(opened.settings.node.data_dir)
    return {
        **_listed(opened, opened.jobs.list(state, SHOWN_OF_STATE if state else SHOWN)),
        "state": state,
        "states": [(one, counts.get(one, 0), oldest.get(one)) for one in JobState],
        "throughput": plots.throughput(figures.hours(now=now)),
        "latency": plots.latency(figures.ended(now=now), now),
        "destinations": figures.destinations(),
        "checks": request.app.state.readiness.now(opened.settings),
        "workers": heartbeat.ages(opened.settings.node.data_dir),
        "late": heartbeat.LATE,
        "model": _model(request),
        "disk": disk,
        "disk_low": disk.free >> 20 < opened.settings.retention.min_free_mb,
        "held": figures.held(),
    }


def _listed(opened: Services, jobs: Any) -> dict[str, Any]:
    return {"jobs": jobs, "series": Overview(opened.engine).series({job.series_uid for job in jobs})}


def _model(request: Request) -> Any:
    """Return the identity of the bundle, read once: it is immutable."""
    state = request.app.state
    if getattr(state, "model", None) is None:
        try:
            state.model = bundle.load(bundle.resolve(services(request).settings.analysis.bundle)).identity
        except BundleError:
            return None
    return state.model


async def search(request: Request) -> Response:
    """Find jobs. By POST: what is typed is often an accession number, and URLs end in logs and histories."""
    form = await _form(request)
    if form is None:
        return _stale()
    words = form.get("words", "").strip()[:128]
    found = await run_in_threadpool(_search, services(request), words) if words else {"jobs": (), "series": {}}
    return await _page(request, "found.html", {**found, "words": words})


def _search(opened: Services, words: str) -> dict[str, Any]:
    held = opened.catalogue.series()
    attributes = opened.attributes.of_series(held)
    studies = {
        one.study_uid
        for one, known in zip(held, attributes, strict=True)
        if known is not None and words in known.get(ACCESSION, {}).get("Value", [])
    }
    return _listed(opened, [opened.jobs.get(job_id) for job_id in Overview(opened.engine).find(words, studies)])


async def job(request: Request) -> Response:
    """Show one job."""
    try:
        found = await run_in_threadpool(_job, services(request), request.path_params["job"])
    except JobNotFound:
        return PlainTextResponse("no such job", 404)
    return await _page(request, "job.html", found)


def _job(opened: Services, job_id: str) -> dict[str, Any]:
    found = opened.jobs.get(job_id)
    line = Overview(opened.engine).series({found.series_uid}).get(found.series_uid)
    results = () if found.purged_at else opened.jobs.results(job_id)
    steps = [("first image received", found.created_at), ("last image received", line.last_received_at if line else None)]
    steps += [(f"analysis begun (attempt {found.attempts})", found.claimed_at)]
    steps += [(f"delivered to {delivery.destination}", delivery.sent_at) for delivery in found.deliveries]
    steps += [(f"committed by {delivery.destination}", delivery.committed_at) for delivery in found.deliveries]
    steps += [(f"ended {found.state.value}", found.finished_at), ("images and results deleted", found.purged_at)]
    return {
        "job": found,
        "line": line,
        "results": results,
        "answer": next((answer.read(opened.spool.path(row.path)) for row in results if row.role is ObjectRole.SR), []),
        "captures": [row for row in results if row.role is ObjectRole.CAPTURE],
        "steps": sorted(((text, at) for text, at in steps if at is not None), key=lambda step: step[1]),
        "cancellable": found.state in CANCELLABLE,
    }


async def capture(request: Request) -> Response:
    """Show a small picture of a capture."""

    def draw() -> bytes:
        opened, position = services(request), request.path_params["position"]
        request.state.study = opened.jobs.get(request.path_params["job"]).study_uid  # for the audit trail
        rows = [row for row in opened.jobs.results(request.path_params["job"]) if row.position == position]
        if not rows:
            raise NoSuchFrameError
        return render(open_image(opened.spool.path(rows[0].path)), 1, "image/jpeg", Picture(viewport=THUMBNAIL))

    try:
        return Response(await run_in_threadpool(draw), media_type="image/jpeg")
    except (JobNotFound, NoSuchFrameError, DamagedImageError, OSError):
        return PlainTextResponse("no such picture", 404)


async def act(request: Request) -> Response:
    """Retry or cancel a job."""
    who = principal(request)
    if not who.may("admin"):
        return PlainTextResponse("your token does not have the role admin", 403)
    if await _form(request) is None:
        return _stale()
    job_id, action, opened = request.path_params["job"], request.path_params["action"], services(request)
    try:
        if action == "retry":
            await run_in_threadpool(opened.operator.retry, job_id)
        elif action == "cancel":
            await run_in_threadpool(opened.operator.cancel, job_id, who.name if not opened.access.open else "a person")
        else:
            return PlainTextResponse("no such action", 404)
        study = (await run_in_threadpool(opened.jobs.get, job_id)).study_uid
    except JobNotFound:
        return PlainTextResponse("no such job", 404)
    except JobConflict as error:
        return PlainTextResponse(str(error), 409)
    request.state.acted = f"{action} of job {job_id}, study {study}"
    return RedirectResponse(f"/jobs/{job_id}", 303)


async def login(request: Request) -> Response:
    """Begin a session with a token."""
    access = services(request).access
    after = request.query_params.get("next", "/")
    if not after.startswith("/") or after.startswith(("//", "/\\")):
        after = "/"
    if request.method == "GET":
        return _html("login.html", {"wrong": False, "who": None}, 200)
    address = request.client.host if request.client else ""
    who = access.by_secret((await _fields(request)).get("token", "").strip())
    if who is None and access.throttle.blocked(address):
        return PlainTextResponse("too many wrong tokens; wait a minute", 429, {"Retry-After": "60"})
    if who is None:
        access.throttle.wrong(address)
        return _html("login.html", {"wrong": True, "who": None}, 403)
    request.state.entered = who.name  # for the audit trail
    answer = RedirectResponse(after, 303)
    _set(answer, request, access.session(who.name))
    return answer


async def logout(request: Request) -> Response:
    """End the session."""
    if await _form(request) is None:
        return _stale()
    services(request).access.end(principal(request).session)
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE)
    return answer


async def _page(request: Request, template: str, values: dict[str, Any]) -> Response:
    """Fill a template; without tokens in the settings, a session begins with the first page, so that forms can have their own token."""
    access, who = services(request).access, principal(request)
    session = who.session or (access.session(who.name) if access.open else "")
    common = {
        "who": who,
        "open": access.open,
        "csrf": access.csrf(session),
        "now": datetime.now(UTC),
        "node": services(request).settings.node.ae_title,
        "version": __version__,
    }
    answer = await run_in_threadpool(_html, template, {**common, **values}, 200)
    if session != who.session:
        _set(answer, request, session)
    return answer


def _set(answer: Response, request: Request, session: str) -> None:
    access = services(request).access
    seconds = int(services(request).settings.web.session_hours * 3600)
    answer.set_cookie(COOKIE, session, max_age=seconds, httponly=True, samesite="strict", secure=access.secure)


async def _form(request: Request) -> dict[str, str] | None:
    """Return the fields of a form that this session was given; None when it was not. A token in the request's head needs no form."""
    fields, who, access = await _fields(request), principal(request), services(request).access
    if not who.by_cookie and not access.open:
        return fields
    given = fields.get("csrf", "")
    right = bool(who.session) and given.isascii() and hmac.compare_digest(access.csrf(who.session), given)
    return fields if right else None


async def _fields(request: Request) -> dict[str, str]:
    """Return the fields of a form; none when it is larger than any of this page: nobody needs a token to send one to the login."""
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return {}
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_FORM:
            return {}
    try:
        return dict(parse_qsl(content.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError:
        return {}


def _stale() -> Response:
    return PlainTextResponse("this form is too old, or came from elsewhere; go back, load the page again and repeat", 403)


def _html(template: str, values: dict[str, Any], status: int) -> Response:
    return HTMLResponse(_TEMPLATES.get_template(template).render(values), status)


def _age(at: datetime, now: datetime) -> str:
    return plots.words(max(0.0, (now - at).total_seconds()))


_TEMPLATES = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
_TEMPLATES.globals.update(age=_age, duration=plots.words)
