"""The OpenAPI 3.1 description of what programs may ask (docs/openapi.json is what this makes)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse

from alnnode import __version__

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

JSON, DICOM, OCTETS = "application/dicom+json", "application/dicom", "application/octet-stream"
UID = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)*$", "maxLength": 64}
RELATED = "multipart/related"
_WORDS = {
    400: "not understood",
    404: "not held",
    406: "not to be had in this form",
    409: "the workitem's state does not allow it",
    410: "deleted",
    413: "too large",
    415: "another body than application/dicom+json",
    503: "not now",
}


async def description(_request: Request) -> Response:
    """Answer ``/openapi.json``."""
    return JSONResponse(describe())


def describe() -> dict[str, Any]:
    """Return the description."""
    study = "/dicom-web/studies/{study}"
    series = f"{study}/series/{{series}}"
    instance = f"{series}/instances/{{instance}}"
    frame = f"{instance}/frames/{{frames}}"
    paths: dict[str, Any] = {
        "/health/live": {"get": _get("Whether the service answers", {"application/json": {}}, (), public=True)},
        "/health/ready": {
            "get": _get("Whether the node can take and analyse images", {"application/json": {}}, (503,), public=True)
        },
        "/metrics": {"get": _get("Figures for Prometheus", {"text/plain": {}}, (503,))},
        "/openapi.json": {"get": _get("This description", {"application/json": {}}, ())},
        "/dicom-web/studies": {"get": _search("studies"), "post": _store()},
        study: {"get": _retrieve("all instances of a study"), "post": _store()},
        series: {"get": _retrieve("all instances of a series")},
        instance: {"get": _retrieve("an instance")},
        frame: {"get": _get("Frames, numbered from 1", {RELATED: {}, OCTETS: {}}, (400, 404, 406))},
        f"{instance}/bulkdata/{{path}}": {"get": _get("A binary value", {RELATED: {}, OCTETS: {}}, (404, 406))},
    }
    for base in ("/dicom-web", study):
        paths[f"{base}/series"] = {"get": _search("series")}
    for base in ("/dicom-web", study, series):
        paths[f"{base}/instances"] = {"get": _search("instances")}
    for base in (study, series, instance):
        paths[f"{base}/metadata"] = {"get": _get("Everything but bulk data", {JSON: {}}, (404, 406))}
    for base in (study, series, instance, frame):
        paths[f"{base}/thumbnail"] = {"get": _picture("A small picture")}
    for base in (instance, frame):
        paths[f"{base}/rendered"] = {"get": _picture("A picture for people")}
    paths |= _worklist()
    names = ("study", "series", "instance", "frames", "path", "workitem", "aetitle")
    for path, operations in paths.items():
        parameters = [_in_path(name) for name in names if f"{{{name}}}" in path]
        if parameters:
            operations["parameters"] = parameters
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "alnnode",
            "version": __version__,
            "description": "DICOMweb (PS3.18), health and metrics of an AI node for axillary lymph nodes. Research use only.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"token": []}],
        "paths": dict(sorted(paths.items())),
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def _in_path(name: str) -> dict[str, Any]:
    schemas: dict[str, dict[str, Any]] = {
        "frames": {"type": "string", "pattern": "^[1-9][0-9]*(,[1-9][0-9]*)*$"},
        "path": {"type": "string"},
        "aetitle": {"type": "string", "minLength": 1, "maxLength": 16},
    }
    return {"name": name, "in": "path", "required": True, "schema": schemas.get(name, UID)}


def _query(name: str, kind: str, text: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": {"type": kind}, "description": text}


def _get(text: str, content: dict[str, Any], failures: tuple[int, ...], *, public: bool = False) -> dict[str, Any]:
    answers: dict[str, Any] = {"200": {"description": text, "content": content}}
    words = _WORDS
    answers |= {str(code): {"description": words[code]} for code in failures}
    if public:
        return {"summary": text, "responses": answers, "security": []}
    answers |= {"401": {"description": "a token is needed"}, "403": {"description": "the token's roles do not allow it"}}
    return {"summary": text, "responses": answers}


def _search(level: str) -> dict[str, Any]:
    found = _get(f"Search for {level} (QIDO-RS)", {JSON: {}}, (400, 406))
    found["parameters"] = [
        _query("limit", "integer", "at most so many"),
        _query("offset", "integer", "leave out so many"),
        _query("includefield", "string", "keywords or tags, divided by commas, or all"),
        _query("fuzzymatching", "boolean", "not supported: a Warning is answered"),
        _query("PatientName", "string", "any attribute by keyword or tag; * and ? are wildcards"),
        _query("StudyDate", "string", "a date, or a range as 20260101-20260131"),
    ]
    return found


def _retrieve(what: str) -> dict[str, Any]:
    return _get(f"Retrieve {what} (WADO-RS)", {RELATED: {}, DICOM: {}}, (404, 406))


def _picture(text: str) -> dict[str, Any]:
    found = _get(text, {"image/jpeg": {}, "image/png": {}}, (400, 404, 406))
    found["parameters"] = [
        _query("window", "string", "centre, width and function: 40,400,linear"),
        _query("viewport", "string", "width, height; and left, top, width, height of the part to show"),
        _query("quality", "integer", "of JPEG, 1 to 100"),
    ]
    return found


def _store() -> dict[str, Any]:
    answer = {"description": "Store Instances Response", "content": {JSON: {}}}
    return {
        "summary": "Store instances (STOW-RS)",
        "requestBody": {"required": True, "content": {RELATED: {"schema": {"type": "string", "format": "binary"}}}},
        "responses": {
            "200": answer,
            "202": answer,
            "409": answer,
            **{
                str(code): {"description": text}
                for code, text in {
                    400: "the body is not what its Content-Type says",
                    401: "a token is needed",
                    403: "the token's roles do not allow it",
                    406: "only DICOM JSON is answered",
                    413: "too large",
                    415: "another body than multipart/related with application/dicom or application/dicom+json",
                    503: "too little disk space",
                }.items()
            },
        },
    }


def _worklist() -> dict[str, Any]:
    """Return the paths of UPS-RS (PS3.18 chapter 11)."""
    workitem = "/dicom-web/workitems/{workitem}"
    subscriber = f"{workitem}/subscribers/{{aetitle}}"
    search = _get("Search for workitems", {JSON: {}}, (400, 406))
    search["parameters"] = [
        _query("limit", "integer", "at most so many"),
        _query("offset", "integer", "leave out so many"),
        _query("ProcedureStepState", "string", "any attribute by keyword or tag"),
    ]
    create = _change("Create a workitem", 201, (400, 409, 413, 415))
    create["parameters"] = [_query("workitem", "string", "its UID; without, the data set's or a new one")]
    update = _change("Update a workitem", 200, (400, 404, 409, 410, 413, 415))
    update["parameters"] = [_query("transaction-uid", "string", "of who claimed it")]
    subscribe = _change("Subscribe to a workitem, or to the worklist", 201, (400, 404, 410), body=None)
    subscribe["parameters"] = [
        _query("deletionlock", "boolean", "keep the workitem until the subscription ends"),
        _query("filter", "string", "attribute=value,…: of a filtered subscription to the worklist"),
    ]
    return {
        "/dicom-web/workitems": {"get": search, "post": create},
        workitem: {"get": _get("Retrieve a workitem", {JSON: {}}, (400, 404, 406, 410)), "post": update},
        f"{workitem}/state": {"put": _change("Claim, complete or cancel", 200, (400, 404, 409, 410, 413, 415))},
        f"{workitem}/cancelrequest": {
            "post": _change("Ask for cancellation", 202, (400, 404, 409, 410, 413, 415), body=False),
        },
        subscriber: {
            "post": subscribe,
            "delete": _change("End a subscription", 200, (400, 404), body=None),
        },
        f"{subscriber}/suspend": {"post": _change("Follow nothing that is to come", 200, (400, 404), body=None)},
    }


def _change(text: str, done: int, failures: tuple[int, ...], *, body: bool | None = True) -> dict[str, Any]:
    """Return an operation whose body is a data set: needed, possible (False) or none (None)."""
    found = _get(text, {}, failures)
    failed = {code: words for code, words in found["responses"].items() if code != "200"}
    found["responses"] = {str(done): {"description": text}, **failed}
    if body is not None:
        content = {JSON: {"schema": {"type": ["object", "array"]}}}
        found["requestBody"] = {"required": body, "content": content}
    return found
