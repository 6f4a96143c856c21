"""Describe HTTP operations for OpenAPI 3.1 (Operation Object)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

DICOM_JSON, DICOM, OCTETS = "application/dicom+json", "application/dicom", "application/octet-stream"
MULTIPART_RELATED = "multipart/related"
_FAILURES = {
    400: "The request is not valid",
    404: "The node does not hold the object",
    406: "The object is not available in an accepted media type",
    409: "The state of the workitem does not allow the request",
    410: "The workitem was deleted",
    413: "The body is too large",
    415: "The body must be application/dicom+json",
    503: "The service is not available at present",
}
_UNAUTHORISED = {401: {"description": "A token is needed"}, 403: {"description": "The token does not have the role"}}


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """One method of one path.

    Attributes:
        summary: what the operation does.
        responses: a Response Object for each status; those of the access rules (401, 403) are added by `document`.
        parameters: Parameter Objects of the query.
        request_body: a Request Body Object; None if the request has no body.
    """

    summary: str
    responses: Mapping[int, Mapping[str, Any]]
    parameters: tuple[Mapping[str, Any], ...] = ()
    request_body: Mapping[str, Any] | None = None

    def document(self, *, public: bool) -> dict[str, Any]:
        """Return the Operation Object; ``public`` says that no token is needed."""
        responses = self.responses if public else {**self.responses, **_UNAUTHORISED}
        found: dict[str, Any] = {
            "summary": self.summary,
            "responses": {str(status): dict(response) for status, response in responses.items()},
        }
        if public:
            found["security"] = []
        if self.parameters:
            found["parameters"] = [dict(parameter) for parameter in self.parameters]
        if self.request_body is not None:
            found["requestBody"] = dict(self.request_body)
        return found


def response(description: str, *media_types: str) -> dict[str, Any]:
    """Return a Response Object; without media types the response has no body."""
    if not media_types:
        return {"description": description}
    return {"description": description, "content": {media_type: {} for media_type in media_types}}


def failures(*statuses: int) -> dict[int, dict[str, Any]]:
    """Return the Response Objects of these HTTP statuses."""
    return {status: {"description": _FAILURES[status]} for status in statuses}


def query_parameter(name: str, kind: str, description: str) -> dict[str, Any]:
    """Return the Parameter Object of an optional query parameter."""
    return {"name": name, "in": "query", "required": False, "schema": {"type": kind}, "description": description}
