"""Store objects whose metadata are in the DICOM JSON model and whose bulk data are in other parts (PS3.18 sections 8.6.1.2.2 and 10.5.1).

This module encodes each object, in Explicit VR Little Endian or in the transfer syntax of its compressed frame, and passes it to the acceptor.
"""

from __future__ import annotations

import io
import tempfile
from typing import TYPE_CHECKING, Any

import structlog
from pydantic_core import from_json
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    HTJ2K,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from starlette.concurrency import run_in_threadpool

from alnnode import multipart
from alnnode.dicomweb.stow_request import StoreFailure, check_supported
from alnnode.errors import RejectedObject
from alnnode.receive.acceptor import StoreRequest
from alnnode.receive.dimse_status import Status
from alnnode.receive.header import valid_uid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from anyio import CapacityLimiter

    from alnnode.dicomweb.stow_request import StowRequest

METADATA = "application/dicom+json"
OCTETS = "application/octet-stream"
MAX_METADATA = 4 << 20  # bytes of all metadata of a request: they are parsed together, and need up to 20 times as much memory
MAX_OBJECTS = 10_000  # of one request
MAX_BULK = 48 << 20  # bytes of one object: it is encoded in memory; clients send larger objects as application/dicom
# PS3.18 Table 8.7.3-5: the default transfer syntax of each media type.
SYNTAXES = {
    OCTETS: ExplicitVRLittleEndian,
    "image/jpeg": JPEGLosslessSV1,
    "image/jls": JPEGLSLossless,
    "image/jp2": JPEG2000Lossless,
    "image/jphc": HTJ2K,
    "image/dicom-rle": RLELossless,
}

log = structlog.get_logger()


class _Parts:
    """The parts of one request in one temporary file: the metadata, then the bulk data, each value with its transfer syntax."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed in __exit__
        self._metadata: int | None = None  # bytes
        self._places: dict[str, tuple[int, int, str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def add(self, part: multipart.BodyPart) -> None:
        """Write a part to the file; its Content-Location identifies bulk data."""
        kind, parameters = multipart.media_type(part.headers.get("content-type", OCTETS))
        syntax = parameters.get("transfer-syntax") or str(SYNTAXES.get(kind, ""))
        start = self._file.seek(0, io.SEEK_END)
        with part.view() as data:
            self._file.write(data)
        if self._metadata is None:
            self._metadata = part.size
            return
        self._places[part.headers.get("content-location", "")] = start, part.size, syntax

    def metadata(self) -> bytes:
        """Return the first part."""
        self._file.seek(0)
        return self._file.read(self._metadata or 0)

    def read(self, uri: str, limit: int) -> tuple[bytes, str]:
        """Return a value and its transfer syntax.

        Raises:
            RejectedObject: no part has this Content-Location, or the value has more than ``limit`` bytes.
        """
        if uri not in self._places:
            raise RejectedObject(Status.CANNOT_DECODE, "the request lacks bulk data that the metadata reference")
        start, size, syntax = self._places[uri]
        if size > limit:
            raise RejectedObject(Status.OUT_OF_RESOURCES, "the bulk data of an object are too large; send application/dicom")
        self._file.seek(start)
        return self._file.read(size), syntax


async def store(
    request: StowRequest, parts: AsyncIterator[multipart.BodyPart], folder: Path, encoding: CapacityLimiter
) -> None:
    """Store every object of a request; its outcome is updated for each.

    Args:
        request: the acceptor, the sender and the outcome.
        parts: of the body: the metadata first, then the bulk data.
        folder: for the temporary file of the parts.
        encoding: limits how many requests have their objects in memory; a request takes part only when its body is complete.

    Raises:
        ClientDisconnect: the connection ended before the body was complete: no object is stored.
    """
    outcome, found = request.outcome, 0
    with _Parts(folder) as received:
        try:
            async for part in parts:
                try:
                    if not found:
                        _check_metadata(part)
                    await run_in_threadpool(received.add, part)
                finally:
                    part.close()
                found += 1
            if found:
                async with encoding:
                    for document in await run_in_threadpool(_documents, received):
                        await run_in_threadpool(_store_object, request, document, received)
        except multipart.MalformedBodyError as error:
            outcome.fault = str(error)
        except multipart.PartTooLargeError:
            outcome.fault, outcome.too_large = "the body or a part of it is too large for this node", True


def _check_metadata(part: multipart.BodyPart) -> None:
    if multipart.media_type(part.headers.get("content-type", METADATA))[0] != METADATA:
        raise multipart.MalformedBodyError(f"the first part must be {METADATA}")
    if part.size > MAX_METADATA:
        raise multipart.PartTooLargeError


def _documents(received: _Parts) -> list[Any]:
    try:
        found = from_json(received.metadata())
    except ValueError as error:
        raise multipart.MalformedBodyError("the metadata are not JSON") from error
    if not isinstance(found, list):
        raise multipart.MalformedBodyError("the metadata are not an array of data sets")
    if len(found) > MAX_OBJECTS:
        raise multipart.PartTooLargeError
    return found


def _store_object(request: StowRequest, document: Any, bulk: _Parts) -> None:
    sop_class = sop_instance = ""
    try:
        dataset, syntax = _data_set(document, bulk)
        given = (str(dataset.get("SOPClassUID", "")), str(dataset.get("SOPInstanceUID", "")))
        sop_class, sop_instance = (uid if valid_uid(uid) else "" for uid in given)
        data = _encoded(dataset, syntax)
        check_supported(sop_class, syntax)
        store_request = StoreRequest(syntax, request.sender, sop_class, sop_instance, request.study)
        request.outcome.stored.append(request.acceptor.store(data, store_request))
    except RejectedObject as error:
        log.warning("object_refused", status=f"0x{error.status:04X}", reason=error.comment, calling_ae_title=request.sender)
        request.outcome.failed.append(StoreFailure(sop_class, sop_instance, error.status))


def _data_set(document: Any, bulk: _Parts) -> tuple[Dataset, str]:
    """Return the data set with its bulk data, and the transfer syntax of its pixel data."""
    found: list[str] = []
    sizes = [0]

    def value(tag: str, _vr: str, uri: str) -> bytes:
        content, syntax = bulk.read(uri, MAX_BULK - sum(sizes))
        sizes.append(len(content))
        if not syntax:
            raise RejectedObject(Status.CANNOT_DECODE, "the media type of bulk data is not supported")
        if tag.upper() == "7FE00010":
            found.append(syntax)
        return encapsulate([content]) if syntax != ExplicitVRLittleEndian else content

    try:
        dataset = Dataset.from_json(document, bulk_data_uri_handler=value)
    except RejectedObject:
        raise
    # pydicom does not document which exceptions it raises for data that are not in the DICOM JSON model.
    except Exception as error:
        raise RejectedObject(Status.CANNOT_DECODE, "a data set is not in the DICOM JSON model") from error
    return dataset, found[0] if found else str(ExplicitVRLittleEndian)


def _encoded(dataset: Dataset, syntax: str) -> bytes:
    # File Meta Information and Available Transfer Syntax UID, which a search response contains, are not part of the object.
    for tag in [element.tag for element in dataset if element.tag.group == 2 or element.tag == 0x00083002]:
        del dataset[tag]
    if "PixelData" in dataset and syntax != ExplicitVRLittleEndian:
        dataset["PixelData"].is_undefined_length, dataset["PixelData"].VR = True, "OB"
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    try:
        write_dataset(buffer, dataset)
    # As above: pydicom may raise any exception for a value that is not allowed for its VR.
    except Exception as error:
        raise RejectedObject(Status.CANNOT_DECODE, "a data set cannot be encoded") from error
    return buffer.getvalue()
