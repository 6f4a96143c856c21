"""WADO-RS (PS3.18 section 10.4): studies, series and instances, their metadata and bulk data."""

from __future__ import annotations

import io
from itertools import chain
from typing import TYPE_CHECKING
from uuid import uuid4

import structlog
from pydicom import dcmread
from pydicom.encaps import generate_frames
from pydicom.pixels.utils import decompress
from pydicom.uid import ExplicitVRLittleEndian
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from alnnode.dicomweb.dicom_json import as_json, dumps
from alnnode.imaging import decoder_panics
from alnnode.imaging.stored_image import DamagedImageError, NoSuchFrameError, open_image
from alnnode.multipart import OutgoingPart, related, write_parts
from alnnode.receive.header import valid_uid
from alnnode.web.content_negotiation import EXPLICIT, accepted, wants_json
from alnnode.web.services import root, services

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from starlette.requests import Request

    from alnnode.dicomweb.catalogue import Held
    from alnnode.dicomweb.dicom_json import Json

    Part = tuple[str, Iterable[bytes]]  # Content-Type and bytes

log = structlog.get_logger()

DICOM, OCTETS, JSON = "application/dicom", "application/octet-stream", "application/dicom+json"
CHUNK = 1 << 20
PIXELS = "7FE00010"
# pydicom promises no set of exceptions for bytes that are not DICOM.
UNREADABLE = (Exception,)


async def retrieve(request: Request) -> Response:
    """Answer ``GET …/studies/{study}[/series/{series}[/instances/{instance}]]``."""
    held = await run_in_threadpool(find, request)
    if not held:
        return nothing()
    for media in accepted(request):
        alone = not media.multipart and media.takes(DICOM) and len(held) == 1
        if (media.multipart and media.takes(DICOM)) or alone:
            if _possible(held, media.syntax):
                return await _objects(request, held, media.syntax, alone=alone)
        elif not media.multipart and media.kind == "*/*":
            return await _objects(request, held, media.syntax, alone=False)
    return PlainTextResponse(f'multipart/related; type="{DICOM}" is answered, as stored or as Explicit VR Little Endian', 406)


async def metadata(request: Request) -> Response:
    """Answer ``…/metadata``: everything but bulk data, in the DICOM JSON model."""
    if not wants_json(request):
        return PlainTextResponse(f"only {JSON} is answered", 406)
    held = await run_in_threadpool(find, request)
    if not held:
        return nothing()
    return StreamingResponse(_documents(request, held), media_type=JSON)


async def bulkdata(request: Request) -> Response:
    """Answer ``…/bulkdata/{path}``: one value, by tag and item numbers as the metadata name it."""
    held = await run_in_threadpool(find, request)
    if not held:
        return nothing()
    try:
        values = await run_in_threadpool(
            _value, services(request).spool.path(held[0].path), request.path_params["path"].split("/")
        )
    except UNREADABLE:
        return nothing()
    for media in accepted(request):
        if media.multipart and media.takes(OCTETS):
            return multipart(OCTETS, ((OCTETS, [value]) for value in values))
        if not media.multipart and media.takes(OCTETS) and len(values) == 1:
            return Response(values[0], media_type=OCTETS)
        if not media.multipart and media.kind == "*/*":
            return multipart(OCTETS, ((OCTETS, [value]) for value in values))
    return PlainTextResponse(f"{OCTETS} is answered, alone or in multipart/related", 406)


def find(request: Request) -> Sequence[Held]:
    """Return the objects that the URL names."""
    uids = {name: request.path_params.get(name) for name in ("study", "series", "instance")}
    if not all(valid_uid(uid) for uid in uids.values() if uid is not None):
        return ()
    given = {name: [uid] if uid is not None else None for name, uid in uids.items()}
    return services(request).catalogue.instances(given["study"], given["series"], given["instance"])


def nothing() -> Response:
    """Say that there is nothing of that name."""
    return PlainTextResponse("not held by this node", 404)


def multipart(kind: str, parts: Iterable[Part]) -> Response:
    """Send parts one after the other as they are made (RFC 2387)."""
    boundary = uuid4().hex
    body = write_parts((OutgoingPart(part_kind, chunks) for part_kind, chunks in parts), boundary)
    # Not by media_type: Starlette would add a charset to nothing here, but the quotes have to stay as they are.
    return StreamingResponse(body, headers={"Content-Type": related(kind, boundary)})


def _possible(held: Sequence[Held], syntax: str | None) -> bool:
    return syntax in {None, "*", EXPLICIT} or all(item.transfer_syntax_uid == syntax for item in held)


def _as_stored(item: Held, syntax: str | None) -> bool:
    # Without a word of the client the default is Explicit VR Little Endian (PS3.18 section 8.7.3.5.2).
    return syntax == "*" or item.transfer_syntax_uid == (syntax or EXPLICIT)


def _kind(item: Held, syntax: str | None) -> str:
    return f"{DICOM}; transfer-syntax={item.transfer_syntax_uid if _as_stored(item, syntax) else EXPLICIT}"


async def _objects(request: Request, held: Sequence[Held], syntax: str | None, *, alone: bool) -> Response:
    """Answer with the objects that can be had in the transfer syntax; the first is opened before the status is sent."""
    parts = _parts(request, held, syntax)
    first = await run_in_threadpool(next, parts, None)
    if first is None:
        return PlainTextResponse("the objects cannot be converted; ask for them as stored (transfer-syntax=*)", 406)
    if alone:
        return StreamingResponse(first[1], media_type=first[0])
    return multipart(DICOM, chain([first], parts))


def _parts(request: Request, held: Sequence[Held], syntax: str | None) -> Iterator[Part]:
    """Open one object after the other. One that is gone or damaged is left out: it must not break off the answer to the others."""
    for item in held:
        path = services(request).spool.path(item.path)
        try:
            chunks = _chunks(path.open("rb")) if _as_stored(item, syntax) else iter([_explicit(path)])
        except UNREADABLE as error:
            log.warning("object_left_out", error=type(error).__name__)
            continue
        yield _kind(item, syntax), chunks


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK):
            yield chunk


def _explicit(path: Path) -> bytes:
    """Return the object as Explicit VR Little Endian."""
    dataset = dcmread(path)
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        open_image(path).check()
        with decoder_panics.caught():
            decompress(dataset, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    dataset.save_as(buffer, implicit_vr=False, little_endian=True, enforce_file_format=True)
    return buffer.getvalue()


def _documents(request: Request, held: Sequence[Held]) -> Iterator[bytes]:
    base = root(request)
    begun = False
    for item in held:
        url = f"{base}/studies/{item.study_uid}/series/{item.series_uid}/instances/{item.sop_instance_uid}"
        try:
            document = dumps(_document(services(request).spool.path(item.path), url))
        except UNREADABLE:  # gone meanwhile, or not readable: the others are still wanted
            continue
        yield (b"," if begun else b"[") + document
        begun = True
    yield b"]" if begun else b"[]"


def _document(path: Path, url: str) -> Json:
    dataset = dcmread(path, stop_before_pixels=True)
    document = as_json(dataset, f"{url}/bulkdata")
    document["00080005"] = {"vr": "CS", "Value": ["ISO_IR 192"]}  # JSON is UTF-8 (PS3.18 section F.2)
    document["00083002"] = {"vr": "UI", "Value": [str(dataset.file_meta.TransferSyntaxUID)]}  # Available Transfer Syntax UID
    try:
        image = open_image(path)
    except (NoSuchFrameError, DamagedImageError):
        return document
    tag, vr = {"FloatPixelData": ("7FE00008", "OF"), "DoubleFloatPixelData": ("7FE00009", "OD")}.get(
        image.keyword, (PIXELS, "OW")
    )
    document[tag] = {"vr": vr, "BulkDataURI": f"{url}/bulkdata/{tag}"}
    return document


def _value(path: Path, steps: Sequence[str]) -> list[bytes]:
    """Return a binary value; compressed pixel data as its frames."""
    dataset = dcmread(path)
    compressed = dataset.file_meta.TransferSyntaxUID.is_encapsulated
    frames = int(dataset.get("NumberOfFrames") or 1)
    for tag, number in zip(steps[:-1:2], steps[1::2], strict=True):
        dataset = dataset[int(tag, 16)].value[int(number)]
    value = dataset[int(steps[-1], 16)].value
    if not isinstance(value, bytes):
        raise TypeError("no binary value")
    if compressed and steps == [PIXELS]:
        return list(generate_frames(value, number_of_frames=frames))
    return [value]
