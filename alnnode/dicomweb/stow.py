"""STOW-RS (PS3.18 section 10.5): store instances, through the same door as C-STORE."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from pydicom import dcmread
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse, Response

from alnnode import multipart
from alnnode.dicomweb import stow_json
from alnnode.dicomweb.stow_outcome import PROCESSING_FAILURE, Failure, Outcome, check_kind
from alnnode.errors import RejectedObject
from alnnode.receive import file_meta
from alnnode.receive.acceptor import StoreRequest
from alnnode.receive.dimse_status import Status
from alnnode.receive.header import valid_uid
from alnnode.web.services import principal, root, services

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from alnnode.db.rows import NewInstance
    from alnnode.receive.acceptor import Acceptor

log = structlog.get_logger()

AT_ONCE = 6  # objects of one request that wait for the disk at the same time
META_LIMIT = 64 << 10
DICOM, JSON = "application/dicom", "application/dicom+json"


async def store(request: Request) -> Response:
    """Answer ``POST …/studies`` and ``POST …/studies/{study}``."""
    study = request.path_params.get("study")
    refusal = _refusal(request, study)
    if refusal is not None:
        return refusal
    settings = services(request).settings
    try:
        services(request).acceptor.check_room(0)
    except RejectedObject:
        return PlainTextResponse("too little disk space left", 503, {"Retry-After": "300"})
    _, parameters = multipart.media_type(request.headers["content-type"])
    limit = settings.internal.web_request_mb << 20
    outcome = Outcome()
    folder = services(request).spool.root / "incoming"
    parts = multipart.read_parts(
        _limited(request.stream(), limit), parameters["boundary"], folder, settings.listener.max_object_mb << 20
    )
    acceptor, sender = services(request).acceptor, principal(request).name
    try:
        if parameters.get("type", DICOM).lower() == JSON:
            await stow_json.store(acceptor, parts, folder, sender, study, outcome)
        else:
            await Store(acceptor, sender, study, outcome).all(parts)
    except ClientDisconnect:
        log.info("stow_cut_off", stored=len(outcome.stored))
        return PlainTextResponse("cut off", 400)
    if outcome.fault is None:  # a body that ended early is no released association: what is missing may come yet
        services(request).acceptor.released({row.series_uid for row in outcome.stored})
    return _answer(request, study, outcome)


def _refusal(request: Request, study: str | None) -> Response | None:
    """Return the answer to a request whose head already says that nothing can be stored."""
    accept = request.headers.get("accept", "*/*")
    if not any(kind in accept for kind in ("*/*", "application/*", "json")):
        return PlainTextResponse(f"only {JSON} is answered", 406)
    if study is not None and not valid_uid(study):
        return PlainTextResponse("the study in the URL is no UID", 400)
    kind, parameters = multipart.media_type(request.headers.get("content-type", ""))
    if kind != "multipart/related" or parameters.get("type", DICOM).lower() not in {DICOM, JSON}:
        return PlainTextResponse(f'send multipart/related; type="{DICOM}" or "{JSON}"', 415)
    if not parameters.get("boundary"):
        return PlainTextResponse("the Content-Type has no boundary", 400)
    length = request.headers.get("content-length", "0")
    if int(length) > services(request).settings.internal.web_request_mb << 20:
        return PlainTextResponse("larger than this node takes in one request", 413, {"Connection": "close"})
    return None


async def _limited(stream: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in stream:
        size += len(chunk)
        if size > limit:
            raise multipart.PartTooLargeError
        yield chunk


class Store:
    """Takes parts as they come, some at the same time: most of the wait is for the disk."""

    def __init__(self, acceptor: Acceptor, sender: str, study: str | None, outcome: Outcome) -> None:
        self._acceptor, self._sender, self._study, self._outcome = acceptor, sender, study, outcome
        self._free = asyncio.Semaphore(AT_ONCE)

    async def all(self, parts: AsyncIterator[multipart.BodyPart]) -> None:
        """Keep every part; what became of them is in the outcome."""
        async with asyncio.TaskGroup() as group:
            try:
                async for part in parts:
                    await self._free.acquire()
                    group.create_task(self._one(part))
            except multipart.MalformedBodyError as error:
                self._outcome.fault = str(error)
            except multipart.PartTooLargeError:
                self._outcome.fault, self._outcome.too_large = "larger than this node takes", True
            except ClientDisconnect:
                self._outcome.fault = "the connection ended early"

    async def _one(self, part: multipart.BodyPart) -> None:
        try:
            found = await run_in_threadpool(take, self._acceptor, part, self._sender, self._study)
        finally:
            part.close()
            self._free.release()
        if isinstance(found, Failure):
            self._outcome.failed.append(found)
        else:
            self._outcome.stored.append(found)


def take(acceptor: Acceptor, part: multipart.BodyPart, sender: str, study: str | None) -> NewInstance | Failure:
    """Keep one part; what it is, or why not."""
    meta = _Meta()
    with part.view() as data:
        try:
            _check(part, data, meta)
            with data[meta.offset :] as data_set:
                request = StoreRequest(meta.syntax, sender, meta.sop_class, meta.sop_instance, study)
                return acceptor.store(data_set, request)
        except RejectedObject as error:
            log.warning("object_refused", status=f"0x{error.status:04X}", reason=error.comment, calling_ae_title=sender)
            return Failure(meta.sop_class, meta.sop_instance, error.status)


@dataclass(slots=True)
class _Meta:
    """What the head of a Part 10 file says, and where its data set begins."""

    offset: int = 0
    syntax: str = ""
    sop_class: str = ""
    sop_instance: str = ""


def _check(part: multipart.BodyPart, data: memoryview, meta: _Meta) -> None:
    """Read the head of a part into ``meta``, as far as it goes."""
    if multipart.media_type(part.headers.get("content-type", DICOM))[0] != DICOM:
        raise RejectedObject(PROCESSING_FAILURE, "a part is not application/dicom")
    meta.offset, meta.syntax, meta.sop_class, meta.sop_instance = _head(data)
    check_kind(meta.sop_class, meta.syntax)


def _head(data: memoryview) -> tuple[int, str, str, str]:
    """Return where the data set begins, its transfer syntax, and the UIDs that the file's head gives (PS3.10 section 7.1)."""
    try:
        offset = file_meta.data_set_offset(data)
        if not 0 < offset <= min(len(data), META_LIMIT):
            raise ValueError("File Meta Information is cut off")  # noqa: TRY301 - ends like all that is wrong with it
        meta = dcmread(io.BytesIO(data[:offset])).file_meta
        values = [
            str(meta.get(name, "")) for name in ("TransferSyntaxUID", "MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID")
        ]
    # pydicom promises no set of exceptions for bytes that are not DICOM.
    except Exception as error:
        raise RejectedObject(Status.CANNOT_DECODE, "no DICOM Part 10 file") from error
    if not all(map(valid_uid, values)):
        raise RejectedObject(Status.INVALID_UID, "File Meta Information lacks a UID")
    return offset, values[0], values[1], values[2]


def _answer(request: Request, study: str | None, outcome: Outcome) -> Response:
    request.state.stow = outcome  # for the audit trail
    request.app.state.metrics.stored.labels("stored").inc(len(outcome.stored))
    request.app.state.metrics.stored.labels("refused").inc(len(outcome.failed))
    reasons = Counter(f"0x{failure.reason:04X}" for failure in outcome.failed)
    log.info("stow", stored=len(outcome.stored), refused=dict(reasons), fault=outcome.fault, sender=principal(request).name)
    if not outcome.stored and outcome.fault is not None and not outcome.failed:
        return PlainTextResponse(f"{outcome.fault}", 413 if outcome.too_large else 400)
    if not outcome.stored and not outcome.failed:
        return PlainTextResponse("the body holds no part", 400)
    if outcome.fault is not None:  # what came before it is kept; the rest has to be sent again
        outcome.failed.append(Failure("", "", int(Status.OUT_OF_RESOURCES if outcome.too_large else Status.CANNOT_DECODE)))
    status = 409 if not outcome.stored else 202 if outcome.failed else 200
    return JSONResponse(_response_module(root(request), study, outcome), status, media_type=JSON)


def _response_module(base: str, study: str | None, outcome: Outcome) -> dict[str, Any]:
    """Return the Store Instances Response Module (PS3.18 Annex I.2)."""
    studies = {study} if study else {row.study_uid for row in outcome.stored}
    module: dict[str, Any] = {}
    if len(studies) == 1:
        module["00081190"] = {"vr": "UR", "Value": [f"{base}/studies/{next(iter(studies))}"]}
    if outcome.failed:
        module["00081198"] = {"vr": "SQ", "Value": [_failed(failure) for failure in outcome.failed]}
    if outcome.stored:
        module["00081199"] = {"vr": "SQ", "Value": [_stored(base, row) for row in outcome.stored]}
    return module


def _failed(failure: Failure) -> dict[str, Any]:
    item: dict[str, Any] = {"00081197": {"vr": "US", "Value": [failure.reason]}}
    if failure.sop_instance_uid:
        item["00081150"] = {"vr": "UI", "Value": [failure.sop_class_uid]}
        item["00081155"] = {"vr": "UI", "Value": [failure.sop_instance_uid]}
    return dict(sorted(item.items()))


def _stored(base: str, row: NewInstance) -> dict[str, Any]:
    url = f"{base}/studies/{row.study_uid}/series/{row.series_uid}/instances/{row.sop_instance_uid}"
    return {
        "00081150": {"vr": "UI", "Value": [row.sop_class_uid]},
        "00081155": {"vr": "UI", "Value": [row.sop_instance_uid]},
        "00081190": {"vr": "UR", "Value": [url]},
    }
