"""Answer WADO-RS requests for studies, series and instances (PS3.18 section 10.4)."""

from __future__ import annotations

import io
from contextlib import nullcontext
from itertools import chain
from typing import TYPE_CHECKING
from uuid import uuid4

import structlog
from pydicom import dcmread
from pydicom.pixels.utils import decompress
from pydicom.uid import ExplicitVRLittleEndian
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from alnnode.dicomweb.services import dicomweb_services
from alnnode.http.content_negotiation import EXPLICIT_VR_LITTLE_ENDIAN, accepted_media_types
from alnnode.http.openapi_operation import DICOM
from alnnode.imaging import decoder_panics
from alnnode.imaging.header_reading import Selection
from alnnode.imaging.stored_data_set import inflated_size, open_data_set, read_header
from alnnode.imaging.stored_image import DEFERRED, open_image
from alnnode.multipart import OutgoingPart, related, write_parts
from alnnode.receive.header import valid_uid

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from starlette.requests import Request

    from alnnode.dicomweb.catalogue import StoredInstance

    Part = tuple[str, Iterable[bytes]]  # Content-Type and bytes

log = structlog.get_logger()

CHUNK = 1 << 20  # bytes
# Bytes of an object, stored or decoded: it is converted in memory, and needs up to three times as much.
MAX_CONVERTED = 256 << 20
MAX_ITEMS = 300_000  # elements and items of the sequences of an object that is converted; each needs up to 1 kB
LARGE = 16 << 20  # bytes; larger objects are converted one at a time
# pydicom does not document which exceptions it raises for bytes that are not DICOM.
UNREADABLE = (Exception,)


class TooLargeToConvertError(Exception):
    """The conversion of an object to another transfer syntax would need too much memory."""


async def retrieve(request: Request) -> Response:
    """Answer ``GET …/studies/{study}[/series/{series}[/instances/{instance}]]``."""
    instances = await run_in_threadpool(find_instances, request)
    if not instances:
        return not_found()
    for media in accepted_media_types(request):
        alone = not media.multipart and media.includes(DICOM) and len(instances) == 1
        if (media.multipart and media.includes(DICOM)) or alone:
            if _is_available(instances, media.syntax):
                return await _objects(request, instances, media.syntax, alone=alone)
        elif not media.multipart and media.kind == "*/*":
            return await _objects(request, instances, media.syntax, alone=False)
    return PlainTextResponse(
        f'objects are available as multipart/related; type="{DICOM}", as stored or in Explicit VR Little Endian', 406
    )


def find_instances(request: Request) -> Sequence[StoredInstance]:
    """Return the objects that the URL names; none if a UID in it is invalid."""
    uids = {name: request.path_params.get(name) for name in ("study", "series", "instance")}
    if not all(valid_uid(uid) for uid in uids.values() if uid is not None):
        return ()
    given = {name: [uid] if uid is not None else None for name, uid in uids.items()}
    return dicomweb_services(request).catalogue.instances(given["study"], given["series"], given["instance"])


def not_found() -> Response:
    """Return the response to a request for an object that the node does not hold."""
    return PlainTextResponse("this node does not hold the requested object", 404)


def multipart_response(kind: str, parts: Iterable[Part]) -> Response:
    """Return a ``multipart/related`` response that sends each part as soon as it is ready (RFC 2387)."""
    boundary = uuid4().hex
    body = write_parts((OutgoingPart(part_kind, chunks) for part_kind, chunks in parts), boundary)
    # The header is set directly because media_type could change the quotes.
    return StreamingResponse(body, headers={"Content-Type": related(kind, boundary)})


def _is_available(instances: Sequence[StoredInstance], syntax: str | None) -> bool:
    return syntax in {None, "*", EXPLICIT_VR_LITTLE_ENDIAN} or all(item.transfer_syntax_uid == syntax for item in instances)


def _as_stored(item: StoredInstance, syntax: str | None) -> bool:
    # If the client names no transfer syntax, the default is Explicit VR Little Endian (PS3.18 section 8.7.3.5.2).
    return syntax == "*" or item.transfer_syntax_uid == (syntax or EXPLICIT_VR_LITTLE_ENDIAN)


def _media_type(item: StoredInstance, syntax: str | None) -> str:
    sent = item.transfer_syntax_uid if _as_stored(item, syntax) else EXPLICIT_VR_LITTLE_ENDIAN
    return f"{DICOM}; transfer-syntax={sent}"


async def _objects(request: Request, instances: Sequence[StoredInstance], syntax: str | None, *, alone: bool) -> Response:
    """Return the objects that are available in the transfer syntax; the first one is made before the status is sent."""
    parts = _parts(request, instances, syntax)
    first = await run_in_threadpool(next, parts, None)
    if first is None:
        return PlainTextResponse("the objects cannot be converted; request them as stored (transfer-syntax=*)", 406)
    if alone:
        return StreamingResponse(first[1], media_type=first[0])
    return multipart_response(DICOM, chain([first], parts))


def _parts(request: Request, instances: Sequence[StoredInstance], syntax: str | None) -> Iterator[Part]:
    """Open one object after the other. A deleted or damaged object is omitted, so that the client receives the others."""
    services = dicomweb_services(request)
    for item in instances:
        path = services.spool.path(item.path)
        try:
            if _as_stored(item, syntax):
                chunks = _chunks(path.open("rb"))
            else:
                with services.converting if inflated_size(path) > LARGE else nullcontext():
                    chunks = iter([_explicit(path)])
        except UNREADABLE as error:
            log.warning("object_left_out", error=type(error).__name__)
            continue
        yield _media_type(item, syntax), chunks


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK):
            yield chunk


def _explicit(path: Path) -> bytes:
    """Return the object in Explicit VR Little Endian.

    Raises:
        TooLargeToConvertError: it is available only as stored.
        Exception: it is damaged.
    """
    if inflated_size(path) > MAX_CONVERTED:
        raise TooLargeToConvertError
    data_set = open_data_set(path)
    with data_set.stream:
        read_header(
            data_set, Selection(defer_size=DEFERRED, complete=True)
        )  # raises if its sequences are too large to be built
    dataset = dcmread(path)
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        image = open_image(path)
        if image.frames * image.frame_bytes > MAX_CONVERTED:
            raise TooLargeToConvertError
        image.check()
        with decoder_panics.caught():
            decompress(dataset, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    dataset.save_as(buffer, implicit_vr=False, little_endian=True, enforce_file_format=True)
    return buffer.getvalue()
