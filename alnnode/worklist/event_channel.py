"""Send the event reports of workitems to subscribers over a WebSocket (PS3.18 section 8.10.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.websockets import WebSocketDisconnect

from alnnode.errors import WorkitemRefused
from alnnode.worklist import ups
from alnnode.worklist.event_reports import EventType
from alnnode.worklist.services import worklist_services

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

    from alnnode.db.worklist_tables import EventRow
    from alnnode.worklist.services import WorklistServices
    from alnnode.worklist.ups import Json

INTERVAL = 0.25  # seconds between two queries for new reports


async def channel(socket: WebSocket) -> None:
    """Serve ``/subscribers/{aetitle}``: send the reports that wait for this AE, then each new report, as one text message each.

    A report that a subscriber received while it closed the connection can be sent again on its next connection, but is never lost.
    """
    services, title = worklist_services(socket), socket.path_params["aetitle"].strip()
    await socket.accept()
    async with anyio.create_task_group() as group:
        group.start_soon(_send_events, socket, services, title)
        while (await socket.receive())["type"] != "websocket.disconnect":
            pass  # messages of the subscriber have no meaning in the standard
        group.cancel_scope.cancel()


async def _send_events(socket: WebSocket, services: WorklistServices, title: str) -> None:
    last = await run_in_threadpool(services.event_reports.before_first_unsent, title)
    number = 0
    while True:
        for event in await run_in_threadpool(services.event_reports.after, title, last):
            number += 1
            try:
                await socket.send_json(await run_in_threadpool(_report, services, event, number))
            except WebSocketDisconnect:
                return
            last = max(last, event.event_id)
            with anyio.CancelScope(shield=True):  # a subscriber that disconnects now has received the report
                await run_in_threadpool(services.event_reports.mark_sent, event.event_id)
        await anyio.sleep(INTERVAL)


def _report(services: WorklistServices, event: EventRow, number: int) -> Json:
    """Return an event report (PS3.4 Table CC.2.4-1)."""
    report: Json = {
        "00000002": ups.text("UI", ups.EVENT_SOP_CLASS),
        "00000110": ups.text("US", number),
        "00001000": ups.text("UI", event.workitem_uid),
        "00001002": ups.text("US", event.event_type),
    }
    try:
        document = services.worklist.get(event.workitem_uid).document
    except (WorkitemRefused, FileNotFoundError):
        document = {}
    progress = ups.first_item(document, ups.PROGRESS)
    if event.event_type == EventType.STATE:
        report[ups.STATE] = ups.text("CS", event.state)
        report[ups.READINESS] = document.get(ups.READINESS, {"vr": "CS"})
    if event.event_type == EventType.PROGRESS:
        report[ups.PROGRESS] = ups.sequence(progress)
    reasons = map(ups.tag, ("ReasonForCancellation", "ProcedureStepDiscontinuationReasonCodeSequence"))
    if event.event_type == EventType.CANCEL_REQUESTED or event.state == ups.UpsState.CANCELED:
        report |= {key: progress[key] for key in reasons if key in progress}
    return dict(sorted(report.items()))
