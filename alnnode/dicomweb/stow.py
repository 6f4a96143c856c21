"""Answer STOW-RS requests (PS3.18 section 10.5): store instances with the acceptor that also serves C-STORE."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import structlog
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse, Response

from alnnode import multipart
from alnnode.dicomweb import stow_json
from alnnode.dicomweb.part_storage import DICOM, PartStorage
from alnnode.dicomweb.services import dicomweb_services
from alnnode.dicomweb.stow_request import StoreFailure, StowOutcome, StowRequest
from alnnode.errors import RejectedObject
from alnnode.http.openapi_operation import DICOM_JSON
from alnnode.http.request_context import principal, service_url
from alnnode.receive.dimse_status import Status
from alnnode.receive.header import valid_uid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from alnnode.db.rows import NewInstance

log = structlog.get_logger()


async def store(request: Request) -> Response:
    """Answer ``POST …/studies`` and ``POST …/studies/{study}``."""
    study = request.path_params.get("study")
    refusal = _refuse_head(request, study)
    if refusal is not None:
        return refusal
    services = dicomweb_services(request)
    try:
        services.acceptor.check_room(0)
    except RejectedObject:
        return PlainTextResponse("too little disk space left", 503, {"Retry-After": "300"})
    _, parameters = multipart.media_type(request.headers["content-type"])
    stow_request = StowRequest(services.acceptor, principal(request).name, study)
    folder = services.spool.root / "incoming"
    body = _limited(request.stream(), services.settings.internal.web_request_mb << 20)
    parts = multipart.read_parts(body, parameters["boundary"], folder, services.settings.listener.max_object_mb << 20)
    outcome = stow_request.outcome
    try:
        if parameters.get("type", DICOM).lower() == DICOM_JSON:
            await stow_json.store(stow_request, parts, folder, services.encoding)
        else:
            await PartStorage(stow_request).store_all(parts)
    except ClientDisconnect:
        log.info("stow_cut_off", stored=len(outcome.stored))
        return PlainTextResponse("the connection ended before the body was complete", 400)
    if outcome.fault is None:  # after an incomplete body the client may send the missing objects later
        services.acceptor.released({row.series_uid for row in outcome.stored})
    return _respond(request, study, outcome)


def _refuse_head(request: Request, study: str | None) -> Response | None:
    """Return the response to a request whose head shows that nothing can be stored; None if the body is to be read."""
    accept = request.headers.get("accept", "*/*")
    if not any(kind in accept for kind in ("*/*", "application/*", "json")):
        return PlainTextResponse(f"the response is available only as {DICOM_JSON}", 406)
    if study is not None and not valid_uid(study):
        return PlainTextResponse("the Study Instance UID in the URL is invalid", 400)
    kind, parameters = multipart.media_type(request.headers.get("content-type", ""))
    if kind != "multipart/related" or parameters.get("type", DICOM).lower() not in {DICOM, DICOM_JSON}:
        return PlainTextResponse(f'send multipart/related; type="{DICOM}" or "{DICOM_JSON}"', 415)
    if not parameters.get("boundary"):
        return PlainTextResponse("the Content-Type has no boundary", 400)
    length = request.headers.get("content-length", "0")
    if int(length) > dicomweb_services(request).settings.internal.web_request_mb << 20:
        return PlainTextResponse("the request is too large for this node", 413, {"Connection": "close"})
    return None


async def _limited(stream: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    """Yield the chunks of a body.

    Raises:
        PartTooLargeError: the body has more than ``limit`` bytes.
    """
    size = 0
    async for chunk in stream:
        size += len(chunk)
        if size > limit:
            raise multipart.PartTooLargeError
        yield chunk


def _respond(request: Request, study: str | None, outcome: StowOutcome) -> Response:
    request.state.stow = outcome  # for the audit trail
    counter = dicomweb_services(request).stow_objects
    counter.labels("stored").inc(len(outcome.stored))
    counter.labels("refused").inc(len(outcome.failed))
    reasons = Counter(f"0x{failure.reason:04X}" for failure in outcome.failed)
    log.info("stow", stored=len(outcome.stored), refused=dict(reasons), fault=outcome.fault, sender=principal(request).name)
    if not outcome.stored and outcome.fault is not None and not outcome.failed:
        return PlainTextResponse(f"{outcome.fault}", 413 if outcome.too_large else 400)
    if not outcome.stored and not outcome.failed:
        return PlainTextResponse("the body contains no part", 400)
    if outcome.fault is not None:  # the objects before the fault are stored; the client must send the others in a new request
        reason = Status.OUT_OF_RESOURCES if outcome.too_large else Status.CANNOT_DECODE
        outcome.failed.append(StoreFailure("", "", int(reason)))
    status = 409 if not outcome.stored else 202 if outcome.failed else 200
    return JSONResponse(_response_module(service_url(request), study, outcome), status, media_type=DICOM_JSON)


def _response_module(base: str, study: str | None, outcome: StowOutcome) -> dict[str, Any]:
    """Return the Store Instances Response Module (PS3.18 section I.2)."""
    studies = {study} if study else {row.study_uid for row in outcome.stored}
    module: dict[str, Any] = {}
    if len(studies) == 1:
        module["00081190"] = {"vr": "UR", "Value": [f"{base}/studies/{next(iter(studies))}"]}
    if outcome.failed:
        module["00081198"] = {"vr": "SQ", "Value": [_failed_item(failure) for failure in outcome.failed]}
    if outcome.stored:
        module["00081199"] = {"vr": "SQ", "Value": [_referenced_item(base, row) for row in outcome.stored]}
    return module


def _failed_item(failure: StoreFailure) -> dict[str, Any]:
    item: dict[str, Any] = {"00081197": {"vr": "US", "Value": [failure.reason]}}
    if failure.sop_instance_uid:
        item["00081150"] = {"vr": "UI", "Value": [failure.sop_class_uid]}
        item["00081155"] = {"vr": "UI", "Value": [failure.sop_instance_uid]}
    return dict(sorted(item.items()))


def _referenced_item(base: str, row: NewInstance) -> dict[str, Any]:
    url = f"{base}/studies/{row.study_uid}/series/{row.series_uid}/instances/{row.sop_instance_uid}"
    return {
        "00081150": {"vr": "UI", "Value": [row.sop_class_uid]},
        "00081155": {"vr": "UI", "Value": [row.sop_instance_uid]},
        "00081190": {"vr": "UR", "Value": [url]},
    }
