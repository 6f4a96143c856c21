"""Answer UPS-RS requests that begin, end or suspend subscriptions (PS3.18 sections 11.10 to 11.12)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response

from alnnode.dicomweb import matching
from alnnode.http.request_context import service_url
from alnnode.worklist.services import worklist_services
from alnnode.worklist.subscriptions import Filter
from alnnode.worklist.ups import FILTERED, GLOBAL
from alnnode.worklist.ups_responses import answers_refusals

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from alnnode.worklist.services import WorklistServices
    from alnnode.worklist.ups import Json

_AE_TITLE = re.compile(r"(?=.*[^ ])[ -\[\]-~]{1,16}")  # PS3.5 section 6.2, AE


@answers_refusals
async def subscribe(request: Request) -> Response:
    """Answer ``POST …/workitems/{workitem}/subscribers/{aetitle}``."""
    services, uid, title = worklist_services(request), request.path_params["workitem"], request.path_params["aetitle"].strip()
    lock = request.query_params.get("deletionlock", "false")
    if not _AE_TITLE.fullmatch(title):
        return PlainTextResponse("the AE title in the URL must have 1 to 16 characters", 400)
    if lock not in {"true", "false"}:
        return PlainTextResponse("deletionlock must be true or false", 400)
    if uid in {GLOBAL, FILTERED}:
        try:
            conditions = _conditions(request) if uid == FILTERED else None
        except matching.InvalidQueryError as error:
            return PlainTextResponse(str(error), 400)
        await run_in_threadpool(_subscribe_globally, services, title, conditions, lock=lock == "true")
    else:
        item = await run_in_threadpool(services.worklist.get, uid)
        await run_in_threadpool(services.subscriptions.subscribe, uid, title, lock=lock == "true", state=item.state)
    channel = re.sub(r"^http", "ws", service_url(request)) + f"/subscribers/{quote(title)}"
    return Response(status_code=201, headers={"Content-Location": channel})


def _conditions(request: Request) -> Json:
    """Read ``filter=attribute=value,…``.

    Raises:
        InvalidQueryError: there is no condition, or an attribute is inside a sequence.
    """
    given = [part.partition("=")[::2] for part in request.query_params.get("filter", "").split(",") if part]
    filters = matching.parse(given).filters
    if not filters or any(len(one.path) > 1 for one in filters):
        raise matching.InvalidQueryError("filter must have the form attribute=value,… with attributes outside sequences")
    return {one.path[0]: {"vr": one.vr, "Value": [one.value]} for one in filters}


def _subscribe_globally(services: WorklistServices, title: str, conditions: Json | None, *, lock: bool) -> None:
    documents = services.worklist.documents
    only = None if conditions is None else Filter(conditions, documents.write(conditions))
    earlier = services.subscriptions.subscribe_globally(title, lock=lock, only=only, read=documents.read)
    if earlier is not None:
        documents.delete(earlier)


@answers_refusals
async def unsubscribe(request: Request) -> Response:
    """Answer ``DELETE …/workitems/{workitem}/subscribers/{aetitle}``."""
    return await _end(request, worklist_services(request).subscriptions.unsubscribe)


@answers_refusals
async def suspend(request: Request) -> Response:
    """Answer ``POST …/workitems/{workitem}/subscribers/{aetitle}/suspend``, for the two global subscriptions."""
    if request.path_params["workitem"] not in {GLOBAL, FILTERED}:
        return PlainTextResponse("only a global subscription can be suspended", 400)
    return await _end(request, worklist_services(request).subscriptions.suspend)


async def _end(request: Request, end: Callable[[str, str], tuple[str, ...] | None]) -> Response:
    paths = await run_in_threadpool(end, request.path_params["workitem"], request.path_params["aetitle"].strip())
    if paths is None:
        return PlainTextResponse("there is no such subscription", 404)
    for path in paths:
        await run_in_threadpool(worklist_services(request).worklist.documents.delete, path)
    return Response(status_code=200)
