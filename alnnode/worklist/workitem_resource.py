"""Answer UPS-RS requests (PS3.18 chapter 11): create, retrieve, search, update, claim, complete and cancel workitems."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response

from alnnode.dicomweb import matching
from alnnode.errors import WorkitemRefused
from alnnode.http.content_negotiation import accepts_dicom_json
from alnnode.http.openapi_operation import DICOM_JSON
from alnnode.http.request_context import service_url
from alnnode.receive.header import valid_uid
from alnnode.worklist import ups
from alnnode.worklist.request_body import read_data_set
from alnnode.worklist.services import worklist_services
from alnnode.worklist.state_transitions import StateChange
from alnnode.worklist.ups import UpsState, UpsStatus
from alnnode.worklist.ups_responses import answers_refusals, refusal, warning

if TYPE_CHECKING:
    from starlette.requests import Request


MAX_ANSWER = 16 << 20  # bytes after which the response to a search contains no further workitem
# What a cancellation request may contain (PS3.4 Table CC.2.2-1); it becomes part of the progress information.
_REASONS = frozenset(map(ups.tag, ("ReasonForCancellation", "ProcedureStepDiscontinuationReasonCodeSequence")))


@answers_refusals
async def create(request: Request) -> Response:
    """Answer ``POST …/workitems``, with the UID in the URL or in the data set; without one, the node generates it."""
    document = await read_data_set(request)
    uid = _uid_in_query(request, "workitem") or ups.value(document, ups.SOP_INSTANCE) or f"2.25.{uuid4().int}"
    if not valid_uid(uid) or uid in {ups.GLOBAL, ups.FILTERED}:
        return PlainTextResponse("the UID of the workitem is invalid", 400)
    url = service_url(request)
    modified = await run_in_threadpool(worklist_services(request).worklist.create, uid, document, url)
    headers = {"Location": f"{url}/workitems/{uid}", "Content-Location": f"{url}/workitems/{uid}"}
    if modified:
        headers["Warning"] = warning("The Workitem was created with modifications")
    return Response(status_code=201, headers=headers)


@answers_refusals
async def retrieve(request: Request) -> Response:
    """Answer ``GET …/workitems/{workitem}``."""
    if not accepts_dicom_json(request):
        return PlainTextResponse(f"the response is available only as {DICOM_JSON}", 406)
    item = await run_in_threadpool(worklist_services(request).worklist.get, request.path_params["workitem"])
    return Response(to_json([item.document]), media_type=DICOM_JSON, headers={"Content-Location": str(request.url.path)})


async def search(request: Request) -> Response:
    """Answer ``GET …/workitems``; the most recent first."""
    if not accepts_dicom_json(request):
        return PlainTextResponse(f"the response is available only as {DICOM_JSON}", 406)
    try:
        query = matching.parse(pair for pair in request.query_params.multi_items() if pair[0] != "requester")
    except matching.InvalidQueryError as error:
        return PlainTextResponse(str(error), 400)
    found, more = await run_in_threadpool(_matching, request, query)
    answer = Response(b"[" + b",".join(found) + b"]", media_type=DICOM_JSON)
    if query.fuzzy:
        text = "The fuzzymatching parameter is not supported. Only literal matching has been performed."
        answer.headers.append("warning", f"299 alnnode: {text}")
    if more:
        answer.headers.append("warning", warning("There are additional results that can be requested"))
    return answer


def _matching(request: Request, query: matching.Query) -> tuple[list[bytes], bool]:
    """Return the requested page of the workitems that match, as JSON, and whether there are more."""
    found: list[bytes] = []
    is_match, skip, size = matching.matcher(query.filters), query.offset, 0
    for item in worklist_services(request).worklist.each():
        if not is_match(item.document):
            continue
        if skip:
            skip -= 1
            continue
        if len(found) >= query.limit or size > MAX_ANSWER:
            return found, True
        found.append(to_json(item.document))
        size += len(found[-1])
    return found, False


@answers_refusals
async def update(request: Request) -> Response:
    """Answer ``POST …/workitems/{workitem}``."""
    changes = await read_data_set(request)
    transaction = _uid_in_query(request, "transaction-uid") or ups.value(changes, ups.TRANSACTION) or None
    uid = request.path_params["workitem"]
    try:
        await run_in_threadpool(worklist_services(request).worklist.update, uid, transaction, changes)
    except WorkitemRefused as error:
        return refusal(error, {UpsStatus.NO_LONGER_UPDATED: 400})  # PS3.18 Table 11.6.3-1
    return Response(status_code=200, headers={"Content-Location": f"{service_url(request)}/workitems/{uid}"})


@answers_refusals
async def change_state(request: Request) -> Response:
    """Answer ``PUT …/workitems/{workitem}/state``."""
    action = await read_data_set(request)
    wanted = ups.value(action, ups.STATE)
    if wanted not in set(UpsState):
        return PlainTextResponse("ProcedureStepState must be one of IN PROGRESS, COMPLETED, CANCELED", 400)
    transaction = ups.value(action, ups.TRANSACTION) or None
    if transaction is not None and not valid_uid(transaction):
        return PlainTextResponse("the Transaction UID is invalid", 400)
    uid = request.path_params["workitem"]
    already = await run_in_threadpool(
        worklist_services(request).worklist.change_state, uid, StateChange(UpsState(wanted), transaction)
    )
    return _completed(200, already)


@answers_refusals
async def request_cancel(request: Request) -> Response:
    """Answer ``POST …/workitems/{workitem}/cancelrequest``; the workitem shows later whether the performer cancelled it."""
    action = await read_data_set(request, optional=True)
    reasons = {key: item for key, item in action.items() if key in _REASONS}
    transaction = f"2.25.{uuid4().int}"
    already = await run_in_threadpool(
        worklist_services(request).worklist.request_cancel, request.path_params["workitem"], transaction, reasons
    )
    return _completed(202, already)


def _completed(status: int, already: UpsStatus | None) -> Response:
    if already is None:
        return Response(status_code=status)
    state = UpsState.CANCELED if already is UpsStatus.ALREADY_CANCELED else UpsState.COMPLETED
    return Response(status_code=status, headers={"Warning": warning(f"The UPS is already in the requested state of {state}")})


def _uid_in_query(request: Request, name: str) -> str:
    """Return a UID of the query: of the named parameter, or the whole query (``?1.2.3``) as in PS3.18 before 2019; empty if there is none."""
    given = request.query_params.get(name)
    if given is not None:
        return given
    query = request.url.query
    return query if query and valid_uid(query) else ""
