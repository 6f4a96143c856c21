"""The routes of the worklist: UPS-RS (PS3.18 chapter 11)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alnnode.http.openapi_operation import DICOM_JSON, Operation, failures, query_parameter, response
from alnnode.http.paths import DICOMWEB
from alnnode.http.route_table import ApiRoute, Endpoint, Role, WebSocketChannel
from alnnode.worklist import event_channel, subscription_resource, workitem_resource

if TYPE_CHECKING:
    from collections.abc import Mapping

WORKITEMS = f"{DICOMWEB}/workitems"
WORKITEM = f"{WORKITEMS}/{{workitem}}"
SUBSCRIBER = f"{WORKITEM}/subscribers/{{aetitle}}"
_CONTENT = {DICOM_JSON: {"schema": {"type": ["object", "array"]}}}
_BODY, _OPTIONAL_BODY = {"required": True, "content": _CONTENT}, {"required": False, "content": _CONTENT}
_BODY_FAILURES = (413, 415)


def _change(
    summary: str,
    status: int,
    statuses: tuple[int, ...],
    body: Mapping[str, Any] | None = None,
    *parameters: Mapping[str, Any],
) -> Operation:
    """Describe an operation that changes something: its success and failure statuses, its body, and its query parameters."""
    failed = (*statuses, *(_BODY_FAILURES if body is not None else ()))
    return Operation(
        summary=summary,
        responses={status: response(summary), **failures(*failed)},
        parameters=parameters,
        request_body=body,
    )


def _route(method: str, path: str, endpoint: Endpoint, role: Role, operation: Operation) -> ApiRoute:
    return ApiRoute(method=method, path=path, endpoint=endpoint, role=role, operation=operation)


_CREATE = _change(
    "Create a workitem",
    201,
    (400, 409, 503),
    _BODY,
    query_parameter("workitem", "string", "UID of the workitem; by default that of the data set, or a generated one"),
)
_SEARCH = Operation(
    summary="Search for workitems",
    responses={200: response("Search for workitems", DICOM_JSON), **failures(400, 406)},
    parameters=(
        query_parameter("limit", "integer", "Maximum number of results"),
        query_parameter("offset", "integer", "Number of results to skip"),
        query_parameter("ProcedureStepState", "string", "Any attribute by keyword or tag"),
    ),
)
_RETRIEVE = Operation(
    summary="Retrieve a workitem",
    responses={200: response("Retrieve a workitem", DICOM_JSON), **failures(400, 404, 406, 410)},
)
_UPDATE = _change(
    "Update a workitem",
    200,
    (400, 404, 409, 410),
    _BODY,
    query_parameter("transaction-uid", "string", "Transaction UID under which the workitem was claimed"),
)
_CHANGE_STATE = _change("Claim, complete or cancel a workitem", 200, (400, 404, 409, 410), _BODY)
_REQUEST_CANCEL = _change("Request the cancellation of a workitem", 202, (400, 404, 409, 410), _OPTIONAL_BODY)
_SUBSCRIBE = _change(
    "Subscribe to a workitem, or to all workitems",
    201,
    (400, 404, 410),
    None,
    query_parameter("deletionlock", "boolean", "Whether workitems are kept until the subscription ends"),
    query_parameter("filter", "string", "Conditions of a filtered subscription: attribute=value,…"),
)
_UNSUBSCRIBE = _change("End a subscription", 200, (400, 404))
_SUSPEND = _change("Suspend a global subscription", 200, (400, 404))

ROUTES = (
    _route("POST", WORKITEMS, workitem_resource.create, Role.SEND, _CREATE),
    _route("GET", WORKITEMS, workitem_resource.search, Role.READ, _SEARCH),
    _route("GET", WORKITEM, workitem_resource.retrieve, Role.READ, _RETRIEVE),
    _route("POST", WORKITEM, workitem_resource.update, Role.SEND, _UPDATE),
    _route("PUT", f"{WORKITEM}/state", workitem_resource.change_state, Role.SEND, _CHANGE_STATE),
    _route("POST", f"{WORKITEM}/cancelrequest", workitem_resource.request_cancel, Role.SEND, _REQUEST_CANCEL),
    _route("POST", SUBSCRIBER, subscription_resource.subscribe, Role.READ, _SUBSCRIBE),
    _route("DELETE", SUBSCRIBER, subscription_resource.unsubscribe, Role.READ, _UNSUBSCRIBE),
    _route("POST", f"{SUBSCRIBER}/suspend", subscription_resource.suspend, Role.READ, _SUSPEND),
    WebSocketChannel(
        path=f"{DICOMWEB}/subscribers/{{aetitle}}",
        endpoint=event_channel.channel,
        role=Role.READ,
        summary="Receive the event reports of the workitems to which an AE subscribes",
    ),
)
