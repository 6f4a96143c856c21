"""Answer requests for metadata and bulk data (PS3.18 sections 10.4.1.1.2 and 10.4.1.1.5)."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from pydicom.encaps import generate_frames
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from alnnode.dicomweb.dicom_json import as_json, dumps
from alnnode.dicomweb.services import dicomweb_services
from alnnode.dicomweb.wado import CHUNK, UNREADABLE, find_instances, multipart_response, not_found
from alnnode.http.content_negotiation import accepted_media_types, accepts_dicom_json
from alnnode.http.openapi_operation import DICOM_JSON, OCTETS
from alnnode.http.request_context import service_url
from alnnode.imaging.header_reading import Selection
from alnnode.imaging.stored_data_set import open_data_set, read_header
from alnnode.imaging.stored_image import DEFERRED, DamagedImageError, NoSuchFrameError, StoredImage, open_image

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from pydicom import Dataset
    from starlette.requests import Request

    from alnnode.dicomweb.catalogue import StoredInstance
    from alnnode.dicomweb.dicom_json import Json

PIXEL_DATA = "7FE00010"
MAX_INFLATED_VALUE = 64 << 20  # bytes of a value in a deflated data set


async def metadata(request: Request) -> Response:
    """Answer ``…/metadata``: all attributes except bulk data, in the DICOM JSON model."""
    if not accepts_dicom_json(request):
        return PlainTextResponse(f"the response is available only as {DICOM_JSON}", 406)
    instances = await run_in_threadpool(find_instances, request)
    if not instances:
        return not_found()
    return StreamingResponse(_documents(request, instances), media_type=DICOM_JSON)


async def bulkdata(request: Request) -> Response:
    """Answer ``…/bulkdata/{path}``: one value, whose path of tags and item numbers the metadata contain."""
    instances = await run_in_threadpool(find_instances, request)
    if not instances:
        return not_found()
    path = dicomweb_services(request).spool.path(instances[0].path)
    try:
        steps = request.path_params["path"].split("/")
        count, values = await run_in_threadpool(_values, path, steps)
    except UNREADABLE:
        return not_found()
    for media in accepted_media_types(request):
        if media.multipart and media.includes(OCTETS):
            return multipart_response(OCTETS, ((OCTETS, value) for value in values))
        if not media.multipart and media.includes(OCTETS) and count == 1:
            return StreamingResponse(next(values), media_type=OCTETS)
        if not media.multipart and media.kind == "*/*":
            return multipart_response(OCTETS, ((OCTETS, value) for value in values))
    return PlainTextResponse(f"bulk data are available as {OCTETS}, alone or in multipart/related", 406)


def _documents(request: Request, instances: Sequence[StoredInstance]) -> Iterator[bytes]:
    base = service_url(request)
    begun = False
    for item in instances:
        url = f"{base}/studies/{item.study_uid}/series/{item.series_uid}/instances/{item.sop_instance_uid}"
        try:
            document = dumps(_document(dicomweb_services(request).spool.path(item.path), url))
        except UNREADABLE:  # deleted in the meantime, or damaged: the client still needs the others
            continue
        yield (b"," if begun else b"[") + document
        begun = True
    yield b"]" if begun else b"[]"


def _document(path: Path, url: str) -> Json:
    data_set = open_data_set(path)
    with data_set.stream:
        dataset = read_header(data_set, Selection(defer_size=DEFERRED))
    document = as_json(dataset, f"{url}/bulkdata")
    document["00080005"] = {"vr": "CS", "Value": ["ISO_IR 192"]}  # JSON is UTF-8 (PS3.18 section F.2)
    document["00083002"] = {"vr": "UI", "Value": [str(dataset.file_meta.TransferSyntaxUID)]}  # Available Transfer Syntax UID
    try:
        image = open_image(path)
    except (NoSuchFrameError, DamagedImageError):
        return document
    tag, vr = {"FloatPixelData": ("7FE00008", "OF"), "DoubleFloatPixelData": ("7FE00009", "OD")}.get(
        image.keyword, (PIXEL_DATA, "OW")
    )
    document[tag] = {"vr": vr, "BulkDataURI": f"{url}/bulkdata/{tag}"}
    return document


def _values(path: Path, steps: Sequence[str]) -> tuple[int, Iterator[Iterable[bytes]]]:
    """Return the number of binary values, and each in pieces: one value, or the frames of compressed pixel data.

    Pixel data are read from the file when they are sent.

    Args:
        path: of the object.
        steps: tags and item numbers in turn, from the outermost sequence to the attribute.
    """
    if steps == [PIXEL_DATA]:
        image = open_image(path)
        if image.keyword == "PixelData":
            return _frames(image) if image.encapsulated else (1, iter([_pieces(image)]))
    data_set = open_data_set(path)
    # A value of a deflated data set has no place in the file from which it could be read later.
    selection = Selection([int(steps[0], 16)], MAX_INFLATED_VALUE if data_set.deflated else DEFERRED)
    with data_set.stream:
        dataset: Dataset = read_header(data_set, selection)
    for tag, number in zip(steps[:-1:2], steps[1::2], strict=True):
        dataset = dataset[int(tag, 16)].value[int(number)]
    value = dataset[int(steps[-1], 16)].value
    if not isinstance(value, bytes):
        raise TypeError("the value is not binary")
    return 1, iter([[value]])


def _frames(image: StoredImage) -> tuple[int, Iterator[Iterable[bytes]]]:
    """Return the number of frames, and each frame; the first one is read at once, so that a damaged image can still set the status."""

    def read() -> Iterator[Iterable[bytes]]:
        with image.open() as file:
            for frame in generate_frames(file, number_of_frames=image.frames):
                yield [frame]

    frames = read()
    return image.frames, chain([next(frames)], frames)


def _pieces(image: StoredImage) -> Iterator[bytes]:
    left = image.length
    with image.open() as file:
        while left and (piece := file.read(min(left, CHUNK))):
            left -= len(piece)
            yield piece
