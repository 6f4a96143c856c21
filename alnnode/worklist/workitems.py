"""UPS-RS (PS3.18 chapter 11): create, retrieve, search, update, claim, complete and cancel workitems."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING
from uuid import uuid4

from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response

from alnnode.dicomweb import matching
from alnnode.errors import WorkitemRefused
from alnnode.receive.header import valid_uid
from alnnode.web.content_negotiation import wants_json
from alnnode.web.services import root, services
from alnnode.worklist import ups
from alnnode.worklist.bodies import JSON, BadBodyError, body, refusal, warning
from alnnode.worklist.ups import State, Status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from alnnode.worklist.ups import Json

    Endpoint = Callable[[Request], Awaitable[Response]]

# What a requester may say of its wish to cancel (PS3.4 Table CC.2.2-1); it becomes part of the progress information.
_REASONS = frozenset(map(ups.tag, ("ReasonForCancellation", "ProcedureStepDiscontinuationReasonCodeSequence")))


def refusing(endpoint: Endpoint) -> Endpoint:
    """Answer refusals and bodies that cannot be used with their status."""

    @wraps(endpoint)
    async def answer(request: Request) -> Response:
        uid = request.path_params.get("workitem")
        if uid is not None and not valid_uid(uid):
            return PlainTextResponse("the workitem in the URL is no UID", 400)
        try:
            return await endpoint(request)
        except WorkitemRefused as error:
            return refusal(error)
        except BadBodyError as error:
            return PlainTextResponse(str(error), error.status, {"Warning": warning(str(error))})

    return answer


@refusing
async def create(request: Request) -> Response:
    """Answer ``POST …/workitems``, with the UID in the URL, in the data set, or none."""
    document = await body(request)
    uid = _named(request, "workitem") or ups.value(document, ups.SOP_INSTANCE) or f"2.25.{uuid4().int}"
    if not valid_uid(uid) or uid in {ups.GLOBAL, ups.FILTERED}:
        return PlainTextResponse("the workitem's UID is none", 400)
    url = root(request)
    modified = await run_in_threadpool(services(request).worklist.create, uid, document, url)
    headers = {"Location": f"{url}/workitems/{uid}", "Content-Location": f"{url}/workitems/{uid}"}
    if modified:
        headers["Warning"] = warning("The Workitem was created with modifications")
    return Response(status_code=201, headers=headers)


@refusing
async def retrieve(request: Request) -> Response:
    """Answer ``GET …/workitems/{workitem}``."""
    if not wants_json(request):
        return PlainTextResponse(f"only {JSON} is answered", 406)
    item = await run_in_threadpool(services(request).worklist.get, request.path_params["workitem"])
    return Response(to_json([item.document]), media_type=JSON, headers={"Content-Location": str(request.url.path)})


async def search(request: Request) -> Response:
    """Answer ``GET …/workitems``; the newest first."""
    if not wants_json(request):
        return PlainTextResponse(f"only {JSON} is answered", 406)
    try:
        query = matching.parse(pair for pair in request.query_params.multi_items() if pair[0] != "requester")
    except matching.BadQueryError as error:
        return PlainTextResponse(str(error), 400)
    found = await run_in_threadpool(_found, request, query)
    answer = Response(to_json(found[query.offset : query.offset + query.limit]), media_type=JSON)
    if query.fuzzy:
        words = "The fuzzymatching parameter is not supported. Only literal matching has been performed."
        answer.headers.append("warning", f"299 alnnode: {words}")
    if len(found) > query.offset + query.limit:
        answer.headers.append("warning", warning("There are additional results that can be requested"))
    return answer


def _found(request: Request, query: matching.Query) -> list[Json]:
    items = services(request).worklist.list()
    return [item.document for item in items if matching.matches(item.document, query.filters)]


@refusing
async def update(request: Request) -> Response:
    """Answer ``POST …/workitems/{workitem}``."""
    changes = await body(request)
    transaction = _named(request, "transaction-uid") or ups.value(changes, ups.TRANSACTION) or None
    uid = request.path_params["workitem"]
    try:
        await run_in_threadpool(services(request).worklist.update, uid, transaction, changes)
    except WorkitemRefused as error:
        return refusal(error, {Status.NO_LONGER_UPDATED: 400})  # PS3.18 Table 11.6.3-1
    return Response(status_code=200, headers={"Content-Location": f"{root(request)}/workitems/{uid}"})


@refusing
async def change_state(request: Request) -> Response:
    """Answer ``PUT …/workitems/{workitem}/state``."""
    action = await body(request)
    wanted = ups.value(action, ups.STATE)
    if wanted not in set(State):
        return PlainTextResponse("ProcedureStepState is one of IN PROGRESS, COMPLETED, CANCELED", 400)
    transaction = ups.value(action, ups.TRANSACTION) or None
    if transaction is not None and not valid_uid(transaction):
        return PlainTextResponse("the Transaction UID is none", 400)
    uid = request.path_params["workitem"]
    already = await run_in_threadpool(services(request).worklist.change_state, uid, State(wanted), transaction)
    return _done(200, already)


@refusing
async def request_cancel(request: Request) -> Response:
    """Answer ``POST …/workitems/{workitem}/cancelrequest``; whether the performer cancels shows in the workitem."""
    action = await body(request, optional=True)
    reasons = {key: item for key, item in action.items() if key in _REASONS}
    own = f"2.25.{uuid4().int}"
    already = await run_in_threadpool(services(request).worklist.request_cancel, request.path_params["workitem"], own, reasons)
    return _done(202, already)


def _done(status: int, already: Status | None) -> Response:
    if already is None:
        return Response(status_code=status)
    state = State.CANCELED if already is Status.ALREADY_CANCELED else State.COMPLETED
    return Response(status_code=status, headers={"Warning": warning(f"The UPS is already in the requested state of {state}")})


def _named(request: Request, name: str) -> str:
    """Return a UID of the query: by its name, or as all of it (``?1.2.3``), as PS3.18 wrote it before 2019."""
    given = request.query_params.get(name)
    if given is not None:
        return given
    alone = request.url.query
    return alone if alone and valid_uid(alone) else ""
