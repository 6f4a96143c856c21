"""Subscriptions to workitems, and the WebSocket over which their events go (PS3.18 sections 8.10.4 and 11.10 to 11.12)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response
from starlette.websockets import WebSocketDisconnect

from alnnode.dicomweb import matching
from alnnode.errors import WorkitemRefused
from alnnode.web.services import root, services
from alnnode.worklist import ups
from alnnode.worklist.subscriptions import EventType
from alnnode.worklist.ups import FILTERED, GLOBAL, Json
from alnnode.worklist.workitems import refusing

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.websockets import WebSocket

    from alnnode.db.worklist_tables import EventRow
    from alnnode.web.services import Services

LOOK = 0.25  # seconds between two looks for events
_TITLE = re.compile(r"(?=.*[^ ])[ -\[\]-~]{1,16}")  # PS3.5 section 6.2, AE


@refusing
async def subscribe(request: Request) -> Response:
    """Answer ``POST …/workitems/{workitem}/subscribers/{aetitle}``."""
    opened, uid, title = services(request), request.path_params["workitem"], request.path_params["aetitle"].strip()
    lock = request.query_params.get("deletionlock", "false")
    if not _TITLE.fullmatch(title) or lock not in {"true", "false"}:
        return PlainTextResponse("an AE title of 1 to 16 characters, and deletionlock true or false, are needed", 400)
    if uid in {GLOBAL, FILTERED}:
        try:
            conditions = _conditions(request) if uid == FILTERED else None
        except matching.BadQueryError as error:
            return PlainTextResponse(str(error), 400)
        await run_in_threadpool(_subscribe_all, opened, title, conditions, lock=lock == "true")
    else:
        item = await run_in_threadpool(opened.worklist.get, uid)
        await run_in_threadpool(opened.subscriptions.subscribe, uid, title, lock=lock == "true", state=item.state)
    channel = re.sub(r"^http", "ws", root(request)) + f"/subscribers/{quote(title)}"
    return Response(status_code=201, headers={"Content-Location": channel})


def _conditions(request: Request) -> Json:
    """Read ``filter=attribute=value,…``; each attribute must be of the top level."""
    given = [part.partition("=")[::2] for part in request.query_params.get("filter", "").split(",") if part]
    filters = matching.parse(given).filters
    if not filters or any(len(one.path) > 1 for one in filters):
        raise matching.BadQueryError("filter names attributes of the top level with their values")
    return {one.path[0]: {"vr": one.vr, "Value": [one.value]} for one in filters}


def _subscribe_all(opened: Services, title: str, conditions: Json | None, *, lock: bool) -> None:
    documents = opened.worklist.documents
    path = None if conditions is None else documents.write(conditions)
    old = opened.subscriptions.subscribe_all(title, lock=lock, conditions=conditions, filters=path, read=documents.read)
    if old is not None:
        documents.forget(old)


@refusing
async def unsubscribe(request: Request) -> Response:
    """Answer ``DELETE …/workitems/{workitem}/subscribers/{aetitle}``."""
    return await _end(request, services(request).subscriptions.unsubscribe)


@refusing
async def suspend(request: Request) -> Response:
    """Answer ``POST …/workitems/{workitem}/subscribers/{aetitle}/suspend``, for the two subscriptions to what is to come."""
    if request.path_params["workitem"] not in {GLOBAL, FILTERED}:
        return PlainTextResponse("only a subscription to the worklist can be suspended", 400)
    return await _end(request, services(request).subscriptions.suspend)


async def _end(request: Request, end: Any) -> Response:
    paths = await run_in_threadpool(end, request.path_params["workitem"], request.path_params["aetitle"].strip())
    if paths is None:
        return PlainTextResponse("there is no such subscription", 404)
    for path in paths:
        await run_in_threadpool(services(request).worklist.documents.forget, path)
    return Response(status_code=200)


async def channel(socket: WebSocket) -> None:
    """Serve ``/subscribers/{aetitle}``: what waits for this AE, then what comes, each event as one text message."""
    opened, title = services(socket), socket.path_params["aetitle"].strip()
    await socket.accept()
    async with anyio.create_task_group() as group:
        group.start_soon(_send_events, socket, opened, title)
        while (await socket.receive())["type"] != "websocket.disconnect":
            pass  # what a subscriber says means nothing here
        group.cancel_scope.cancel()


async def _send_events(socket: WebSocket, opened: Services, title: str) -> None:
    last = await run_in_threadpool(opened.subscriptions.first_unsent, title)
    number = 0
    while True:
        for event in await run_in_threadpool(opened.subscriptions.after, title, last):
            number += 1
            try:
                await socket.send_json(await run_in_threadpool(_report, opened, event, number))
            except WebSocketDisconnect:
                return
            last = max(last, event.event_id)
            await run_in_threadpool(opened.subscriptions.sent, event.event_id)
        await anyio.sleep(LOOK)


def _report(opened: Services, event: EventRow, number: int) -> Json:
    """Return an event report (PS3.4 Table CC.2.4-1)."""
    report: Json = {
        "00000002": ups.text("UI", ups.EVENT_SOP_CLASS),
        "00000110": ups.text("US", number),
        "00001000": ups.text("UI", event.workitem_uid),
        "00001002": ups.text("US", event.event_type),
    }
    try:
        document = opened.worklist.get(event.workitem_uid).document
    except (WorkitemRefused, FileNotFoundError):
        document = {}
    progress = next(iter(ups.items(document, ups.PROGRESS)), {})
    if event.event_type == EventType.STATE:
        report[ups.STATE] = ups.text("CS", event.state)
        report[ups.READINESS] = document.get(ups.READINESS, {"vr": "CS"})
    if event.event_type == EventType.PROGRESS:
        report[ups.PROGRESS] = ups.sequence(progress)
    reasons = map(ups.tag, ("ReasonForCancellation", "ProcedureStepDiscontinuationReasonCodeSequence"))
    if event.event_type == EventType.CANCEL_REQUESTED or event.state == ups.State.CANCELED:
        report |= {key: progress[key] for key in reasons if key in progress}
    return dict(sorted(report.items()))
