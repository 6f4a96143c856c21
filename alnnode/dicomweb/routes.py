"""The routes of DICOMweb: STOW-RS, QIDO-RS and WADO-RS (PS3.18 chapter 10)."""

from __future__ import annotations

from alnnode.dicomweb import qido, stow, wado, wado_frames, wado_metadata, wado_rendered
from alnnode.http.openapi_operation import (
    DICOM,
    DICOM_JSON,
    MULTIPART_RELATED,
    OCTETS,
    Operation,
    failures,
    query_parameter,
    response,
)
from alnnode.http.paths import DICOMWEB, STUDIES, STUDY
from alnnode.http.route_table import ApiRoute, Endpoint, Role

SERIES = f"{STUDY}/series/{{series}}"
INSTANCE = f"{SERIES}/instances/{{instance}}"
FRAME = f"{INSTANCE}/frames/{{frames}}"


def _get(path: str, endpoint: Endpoint, operation: Operation) -> ApiRoute:
    return ApiRoute(method="GET", path=path, endpoint=endpoint, role=Role.READ, operation=operation)


def _search(level: str) -> Operation:
    """Describe a search (PS3.18 section 10.6)."""
    text = f"Search for {level} (QIDO-RS)"
    return Operation(
        summary=text,
        responses={200: response(text, DICOM_JSON), **failures(400, 406)},
        parameters=(
            query_parameter("limit", "integer", "Maximum number of results"),
            query_parameter("offset", "integer", "Number of results to skip"),
            query_parameter("includefield", "string", "Keywords or tags, separated by commas, or all"),
            query_parameter("fuzzymatching", "boolean", "Not supported: the response has a Warning header"),
            query_parameter("PatientName", "string", "Any attribute by keyword or tag; * and ? are wildcards"),
            query_parameter("StudyDate", "string", "A date, or a range such as 20260101-20260131"),
        ),
    )


def _retrieve(what: str) -> Operation:
    """Describe the retrieval of objects (PS3.18 section 10.4)."""
    text = f"Retrieve {what} (WADO-RS)"
    return Operation(summary=text, responses={200: response(text, MULTIPART_RELATED, DICOM), **failures(404, 406)})


def _picture(text: str) -> Operation:
    """Describe a rendered image (PS3.18 section 8.3.5)."""
    return Operation(
        summary=text,
        responses={200: response(text, "image/jpeg", "image/png"), **failures(400, 404, 406)},
        parameters=(
            query_parameter("window", "string", "Window centre, width and function, for example 40,400,linear"),
            query_parameter(
                "viewport", "string", "Width and height; optionally left, top, width and height of the region to show"
            ),
            query_parameter("quality", "integer", "JPEG quality, 1 to 100"),
        ),
    )


_STORED = response("Store Instances Response", DICOM_JSON)
_STORE = Operation(
    summary="Store instances (STOW-RS)",
    responses={
        200: _STORED,
        202: _STORED,
        400: response("The body does not match its Content-Type"),
        406: response("The response is available only as DICOM JSON"),
        409: _STORED,
        413: response("The body is too large"),
        415: response("The body must be multipart/related with application/dicom or application/dicom+json"),
        503: response("The node has too little disk space"),
    },
    request_body={"required": True, "content": {MULTIPART_RELATED: {"schema": {"type": "string", "format": "binary"}}}},
)
_METADATA = Operation(
    summary="All attributes except bulk data",
    responses={200: response("All attributes except bulk data", DICOM_JSON), **failures(404, 406)},
)
_BULK_DATA = Operation(
    summary="A binary value",
    responses={200: response("A binary value", MULTIPART_RELATED, OCTETS), **failures(404, 406)},
)
_FRAMES = Operation(
    summary="Frames, numbered from 1",
    responses={200: response("Frames, numbered from 1", MULTIPART_RELATED, OCTETS), **failures(400, 404, 406)},
)
_THUMBNAIL, _RENDERED = _picture("A thumbnail"), _picture("A rendered image")

ROUTES = (
    *(ApiRoute(method="POST", path=path, endpoint=stow.store, role=Role.SEND, operation=_STORE) for path in (STUDIES, STUDY)),
    _get(STUDIES, qido.studies, _search("studies")),
    *(_get(f"{base}/series", qido.series, _search("series")) for base in (DICOMWEB, STUDY)),
    *(_get(f"{base}/instances", qido.instances, _search("instances")) for base in (DICOMWEB, STUDY, SERIES)),
    _get(STUDY, wado.retrieve, _retrieve("all instances of a study")),
    _get(SERIES, wado.retrieve, _retrieve("all instances of a series")),
    _get(INSTANCE, wado.retrieve, _retrieve("an instance")),
    *(_get(f"{base}/metadata", wado_metadata.metadata, _METADATA) for base in (STUDY, SERIES, INSTANCE)),
    *(_get(f"{base}/thumbnail", wado_rendered.thumbnail, _THUMBNAIL) for base in (STUDY, SERIES, INSTANCE, FRAME)),
    *(_get(f"{base}/rendered", wado_rendered.rendered, _RENDERED) for base in (INSTANCE, FRAME)),
    _get(f"{INSTANCE}/bulkdata/{{path:path}}", wado_metadata.bulkdata, _BULK_DATA),
    _get(FRAME, wado_frames.frames, _FRAMES),
)
