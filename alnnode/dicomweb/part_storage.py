"""Store the DICOM Part 10 files in the parts of a multipart body; STOW-RS requests and retrieved series use it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from starlette.requests import ClientDisconnect

from alnnode import multipart
from alnnode.dicomweb.stow_request import PROCESSING_FAILURE, StoreFailure, check_supported
from alnnode.errors import RejectedObject
from alnnode.receive import file_meta
from alnnode.receive.acceptor import StoreRequest
from alnnode.receive.dimse_status import Status
from alnnode.receive.file_meta import SOP_CLASS_UID, SOP_INSTANCE_UID, TRANSFER_SYNTAX_UID
from alnnode.receive.header import valid_uid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from alnnode.db.rows import NewInstance
    from alnnode.dicomweb.stow_request import StowRequest

log = structlog.get_logger()

DICOM = "application/dicom"
CONCURRENT = 6  # objects of one request that are written to the disk at the same time
META_LIMIT = 64 << 10  # bytes of File Meta Information


class PartStorage:
    """Stores parts while the body arrives, several at the same time because storing mostly waits for the disk."""

    def __init__(self, request: StowRequest) -> None:
        self._request = request
        self._free = asyncio.Semaphore(CONCURRENT)

    async def store_all(self, parts: AsyncIterator[multipart.BodyPart]) -> None:
        """Store every part; the outcome of the request is updated for each."""
        outcome = self._request.outcome
        async with asyncio.TaskGroup() as group:
            try:
                async for part in parts:
                    await self._free.acquire()
                    group.create_task(self._store(part))
            except multipart.MalformedBodyError as error:
                outcome.fault = str(error)
            except multipart.PartTooLargeError:
                outcome.fault, outcome.too_large = "the body or a part of it is too large for this node", True
            except ClientDisconnect:
                outcome.fault = "the connection ended before the body was complete"

    async def _store(self, part: multipart.BodyPart) -> None:
        storing = self._request.acceptor.threads.submit(store_part, self._request, part)
        # Not here, because the thread uses the part until it has finished, even if this task is cancelled.
        storing.add_done_callback(lambda _: part.close())
        try:
            found = await asyncio.wrap_future(storing)
        finally:
            self._free.release()
        if isinstance(found, StoreFailure):
            self._request.outcome.failed.append(found)
        else:
            self._request.outcome.stored.append(found)


def store_part(request: StowRequest, part: multipart.BodyPart) -> NewInstance | StoreFailure:
    """Store the object in one part; return its row, or why the acceptor refused it."""
    head = _FileHead()
    with part.view() as data:
        try:
            _read_head(part, data, head)
            with data[head.data_set_offset :] as data_set:
                store_request = StoreRequest(head.syntax, request.sender, head.sop_class, head.sop_instance, request.study)
                return request.acceptor.store(data_set, store_request)
        except RejectedObject as error:
            log.warning("object_refused", status=f"0x{error.status:04X}", reason=error.comment, calling_ae_title=request.sender)
            return StoreFailure(head.sop_class, head.sop_instance, error.status)


@dataclass(slots=True)
class _FileHead:
    """What the File Meta Information contains, and where the data set begins."""

    data_set_offset: int = 0
    syntax: str = ""
    sop_class: str = ""
    sop_instance: str = ""


def _read_head(part: multipart.BodyPart, data: memoryview, head: _FileHead) -> None:
    """Read the head of a file into ``head``; if a check fails, the values that were read before remain for the response."""
    if multipart.media_type(part.headers.get("content-type", DICOM))[0] != DICOM:
        raise RejectedObject(PROCESSING_FAILURE, "a part is not application/dicom")
    head.data_set_offset, head.syntax, head.sop_class, head.sop_instance = _head(data)
    check_supported(head.sop_class, head.syntax)


def _head(data: memoryview) -> tuple[int, str, str, str]:
    """Return the offset of the data set, the Transfer Syntax UID and the Media Storage SOP Class and Instance UIDs (PS3.10 section 7.1)."""
    try:
        with data[: META_LIMIT + 1] as start:  # File Meta Information without a length may be as long as the part
            offset = file_meta.data_set_offset(start)
        if not 0 < offset <= min(len(data), META_LIMIT):
            raise ValueError("File Meta Information is truncated")  # noqa: TRY301 - the handler below handles every fault alike
        meta = file_meta.values(data[:offset])
    except ValueError as error:
        raise RejectedObject(Status.CANNOT_DECODE, "a part is not a DICOM Part 10 file") from error
    values = [meta.get(number, "") for number in (TRANSFER_SYNTAX_UID, SOP_CLASS_UID, SOP_INSTANCE_UID)]
    if not all(map(valid_uid, values)):
        raise RejectedObject(Status.INVALID_UID, "a UID in the File Meta Information is missing or invalid")
    return offset, values[0], values[1], values[2]
