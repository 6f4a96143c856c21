"""Answer requests to the worklist that are refused (PS3.18 chapter 11): status and ``Warning`` header."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse

from alnnode.errors import WorkitemRefused
from alnnode.receive.header import valid_uid
from alnnode.worklist.request_body import InvalidBodyError
from alnnode.worklist.ups import UpsStatus

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from alnnode.http.route_table import Endpoint

SERVICE = "alnnode"
# PS3.18 sections 11.4 to 11.8; the other statuses are conflicts with the state of the workitem (409).
_HTTP_STATUS = {
    UpsStatus.MISSING_ATTRIBUTE: 400,
    UpsStatus.INVALID_VALUE: 400,
    UpsStatus.NOT_SCHEDULED: 400,
    UpsStatus.WRONG_TRANSACTION: 400,
    UpsStatus.NO_SUCH_WORKITEM: 404,
    UpsStatus.DELETED: 410,
    UpsStatus.RESOURCES: 503,
}


def answers_refusals(endpoint: Endpoint) -> Endpoint:
    """Return an endpoint that answers refused workitems, invalid bodies and invalid UIDs with their status."""

    @wraps(endpoint)
    async def answer(request: Request) -> Response:
        uid = request.path_params.get("workitem")
        if uid is not None and not valid_uid(uid):
            return PlainTextResponse("the workitem UID in the URL is invalid", 400)
        try:
            return await endpoint(request)
        except WorkitemRefused as error:
            return refusal(error)
        except InvalidBodyError as error:
            return PlainTextResponse(str(error), error.status, {"Warning": warning(str(error))})

    return answer


def refusal(error: WorkitemRefused, overrides: dict[UpsStatus, int] | None = None) -> Response:
    """Return the response to a refused request; ``overrides`` are the HTTP statuses of one operation that differ from the others."""
    statuses = {**_HTTP_STATUS, **(overrides or {})}
    status = statuses.get(UpsStatus(error.status), 409)
    return PlainTextResponse(str(error), status, {"Warning": warning(str(error))})


def warning(text: str) -> str:
    """Return the value of a ``Warning`` header (PS3.18 chapter 11)."""
    return f"299 {SERVICE}: {text.rstrip('.')}."
