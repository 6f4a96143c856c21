"""Answer requests for frames (PS3.18 section 10.4.1.1.6)."""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING

from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response

from alnnode.dicomweb.services import dicomweb_services
from alnnode.dicomweb.wado import find_instances, multipart_response, not_found
from alnnode.http.content_negotiation import EXPLICIT_VR_LITTLE_ENDIAN, AcceptedMediaType, accepted_media_types
from alnnode.http.openapi_operation import OCTETS
from alnnode.imaging.stored_image import DamagedImageError, NoSuchFrameError, StoredImage, open_image

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from starlette.requests import Request

AHEAD = 16 << 20  # bytes of frames that are decoded before the response begins
# PS3.18 Table 8.7.3-5: the media types of compressed frames.
MEDIA: dict[str, str] = {
    **dict.fromkeys([JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1], "image/jpeg"),
    **dict.fromkeys([JPEGLSLossless, JPEGLSNearLossless], "image/jls"),
    **dict.fromkeys([JPEG2000, JPEG2000Lossless], "image/jp2"),
    **dict.fromkeys([HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL], "image/jphc"),
    RLELossless: "image/dicom-rle",
}


class InvalidParameterError(ValueError):
    """A parameter of the request is not valid; ``str`` says why."""


async def frames(request: Request) -> Response:
    """Answer ``…/frames/{list}``."""
    try:
        numbers = frame_numbers(request)
        image = await run_in_threadpool(open_requested_image, request)
        for media in accepted_media_types(request):
            response = await run_in_threadpool(_frames_as, image, numbers, media)
            if response is not None:
                return response
    except InvalidParameterError as error:
        return PlainTextResponse(str(error), 400)
    except (NoSuchFrameError, OSError):
        return not_found()
    except DamagedImageError:
        return PlainTextResponse("the pixel data cannot be decoded; request them as stored (transfer-syntax=*)", 406)
    return PlainTextResponse(
        f"frames are available as stored, or as {OCTETS} with transfer-syntax={EXPLICIT_VR_LITTLE_ENDIAN}", 406
    )


def open_requested_image(request: Request) -> StoredImage:
    """Open the image that the URL names; of a study or series, the middle one of its images.

    Raises:
        NoSuchFrameError: none of the objects is an image.
    """
    instances = find_instances(request)
    middle = len(instances) // 2
    for item in [*instances[middle:], *reversed(instances[:middle])]:
        try:
            return open_image(dicomweb_services(request).spool.path(item.path))
        except NoSuchFrameError:
            continue
    raise NoSuchFrameError


def frame_numbers(request: Request) -> list[int]:
    """Return the frame numbers in the URL, counted from 1.

    Raises:
        InvalidParameterError: the list is not valid.
    """
    text = request.path_params["frames"]
    if not re.fullmatch(r"[1-9][0-9]{0,6}(,[1-9][0-9]{0,6}){0,4095}", text):
        raise InvalidParameterError("the URL must name frames by numbers from 1, separated by commas")
    return [int(number) for number in text.split(",")]


def _frames_as(image: StoredImage, numbers: Sequence[int], media: AcceptedMediaType) -> Response | None:
    """Return the frames in a media type that the client accepts; None if they are not available in it."""
    if max(numbers) > image.frames:
        raise NoSuchFrameError
    stored_kind = MEDIA.get(image.syntax, OCTETS) if image.encapsulated else OCTETS
    stored_syntax = image.syntax if image.encapsulated else EXPLICIT_VR_LITTLE_ENDIAN
    as_stored = media.syntax in {"*", stored_syntax} and (media.includes(stored_kind) or media.includes(OCTETS))
    if media.kind not in {"*/*", OCTETS} and media.includes(stored_kind) and media.syntax is None:
        as_stored = True
    if as_stored and image.encapsulated:
        kind, parts = f"{stored_kind}; transfer-syntax={stored_syntax}", (image.stored(number) for number in numbers)
    elif as_stored or (media.includes(OCTETS) and media.syntax in {None, EXPLICIT_VR_LITTLE_ENDIAN}):
        kind, parts = (
            f"{OCTETS}; transfer-syntax={EXPLICIT_VR_LITTLE_ENDIAN}",
            (image.uncompressed(number) for number in numbers),
        )
    else:
        return None
    first = next(parts)
    if not media.multipart and media.kind != "*/*":
        return Response(first, media_type=kind) if len(numbers) == 1 else None
    return multipart_response(kind.partition(";")[0], ((kind, [value]) for value in _begun(first, parts)))


def _begun(first: bytes, parts: Iterator[bytes]) -> Iterator[bytes]:
    """Decode frames before the response begins, so that a damaged one can still set the status; the others when they are sent."""
    ahead, size = [first], len(first)
    while size < AHEAD and (value := next(parts, None)) is not None:
        ahead.append(value)
        size += len(value)
    return chain(ahead, parts)
