"""Answer QIDO-RS requests (PS3.18 section 10.6): search for studies, series and instances, received ones and results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response

from alnnode.dicomweb import matching
from alnnode.dicomweb.dicom_json import dumps
from alnnode.dicomweb.qido_search import QidoSearch
from alnnode.dicomweb.services import dicomweb_services
from alnnode.http.content_negotiation import accepts_dicom_json
from alnnode.http.openapi_operation import DICOM_JSON
from alnnode.http.request_context import service_url
from alnnode.receive.header import valid_uid

if TYPE_CHECKING:
    from starlette.requests import Request


async def studies(request: Request) -> Response:
    """Answer ``GET …/studies``."""
    return await _search(request, "studies")


async def series(request: Request) -> Response:
    """Answer ``GET …/series``, also below a study."""
    return await _search(request, "series")


async def instances(request: Request) -> Response:
    """Answer ``GET …/instances``, also below a study or a series."""
    return await _search(request, "instances")


async def _search(request: Request, level: str) -> Response:
    if not accepts_dicom_json(request):
        return PlainTextResponse(f"the response is available only as {DICOM_JSON}", 406)
    if not all(valid_uid(value) for value in request.path_params.values()):
        return PlainTextResponse("the URL contains an invalid UID", 400)
    try:
        query = matching.parse(request.query_params.multi_items())
    except matching.InvalidQueryError as error:
        return PlainTextResponse(str(error), 400)
    search = QidoSearch(dicomweb_services(request), service_url(request), query, request.path_params)
    found = await run_in_threadpool(getattr(search, level))
    response = Response(await run_in_threadpool(dumps, found), media_type=DICOM_JSON)
    for text in search.warnings(level, len(found)):
        response.headers.append("warning", f'299 alnnode "{text}"')
    return response
