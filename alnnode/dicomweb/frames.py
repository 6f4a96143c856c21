"""Frames and rendered images (PS3.18 sections 10.4.1.1.6, 10.4.1.1.3 and 10.4.1.1.4)."""

from __future__ import annotations

import math
import re
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

from alnnode.dicomweb.wado import OCTETS, find, multipart, nothing
from alnnode.imaging.rendering import FORMATS, Picture, Window, render
from alnnode.imaging.stored_image import DamagedImageError, NoSuchFrameError, StoredImage, open_image
from alnnode.imaging.window import VoiLutFunction
from alnnode.web.content_negotiation import EXPLICIT, Media, accepted
from alnnode.web.services import services

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request

# PS3.18 Table 8.7.3-5: how frames are named that stay compressed.
MEDIA: dict[str, str] = {
    **dict.fromkeys([JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1], "image/jpeg"),
    **dict.fromkeys([JPEGLSLossless, JPEGLSNearLossless], "image/jls"),
    **dict.fromkeys([JPEG2000, JPEG2000Lossless], "image/jp2"),
    **dict.fromkeys([HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL], "image/jphc"),
    RLELossless: "image/dicom-rle",
}
THUMBNAIL = (256, 256)
MAX_SIDE = 4096


class BadRequestError(ValueError):
    """A query parameter cannot be used; ``str`` says why."""


async def frames(request: Request) -> Response:
    """Answer ``…/frames/{list}``."""
    try:
        numbers = _numbers(request)
        image = await run_in_threadpool(_image, request)
        for media in accepted(request):
            answer = await run_in_threadpool(_frames_as, image, numbers, media)
            if answer is not None:
                return answer
    except BadRequestError as error:
        return PlainTextResponse(str(error), 400)
    except (NoSuchFrameError, OSError):
        return nothing()
    except DamagedImageError:
        return PlainTextResponse("the pixel data cannot be decoded; ask for them as stored (transfer-syntax=*)", 406)
    return PlainTextResponse(f"frames are answered as stored, or as {OCTETS} with transfer-syntax={EXPLICIT}", 406)


async def rendered(request: Request) -> Response:
    """Answer ``…/rendered`` of an instance or of its frames; of several frames the first."""
    return await _rendered(request, None)


async def thumbnail(request: Request) -> Response:
    """Answer ``…/thumbnail`` of a study, series, instance or frame."""
    return await _rendered(request, THUMBNAIL)


async def _rendered(request: Request, viewport: tuple[int, int] | None) -> Response:
    kind = next((kind for media in accepted(request) for kind in FORMATS if media.takes(kind)), None)
    if kind is None:
        return PlainTextResponse("image/jpeg and image/png are answered", 406)
    try:
        how, number = picture(request, viewport), _numbers(request)[0] if "frames" in request.path_params else 0
        image = await run_in_threadpool(_image, request)
        # Of a stack of frames the middle one shows most.
        data = await run_in_threadpool(render, image, number or (image.frames + 1) // 2, kind, how)
    except BadRequestError as error:
        return PlainTextResponse(str(error), 400)
    except (NoSuchFrameError, OSError):
        return nothing()
    except DamagedImageError:
        return PlainTextResponse("the pixel data cannot be shown", 406)
    return Response(data, media_type=kind)


def _image(request: Request) -> StoredImage:
    """Open the image that the URL names: of a study or series, the one in the middle of those that are images."""
    held = find(request)
    for item in [*held[len(held) // 2 :], *reversed(held[: len(held) // 2])]:
        try:
            return open_image(services(request).spool.path(item.path))
        except NoSuchFrameError:
            continue
    raise NoSuchFrameError


def _numbers(request: Request) -> list[int]:
    text = request.path_params["frames"]
    if not re.fullmatch(r"[1-9][0-9]{0,6}(,[1-9][0-9]{0,6}){0,4095}", text):
        raise BadRequestError("frames are numbers from 1, divided by commas")
    return [int(number) for number in text.split(",")]


def _frames_as(image: StoredImage, numbers: Sequence[int], media: Media) -> Response | None:
    """Return the frames as the client takes them; None when they cannot be had so."""
    if max(numbers) > image.frames:
        raise NoSuchFrameError
    stored_kind = MEDIA.get(image.syntax, OCTETS) if image.encapsulated else OCTETS
    stored_syntax = image.syntax if image.encapsulated else EXPLICIT
    as_stored = media.syntax in {"*", stored_syntax} and (media.takes(stored_kind) or media.takes(OCTETS))
    if media.kind not in {"*/*", OCTETS} and media.takes(stored_kind) and media.syntax is None:
        as_stored = True
    if as_stored and image.encapsulated:
        kind, parts = f"{stored_kind}; transfer-syntax={stored_syntax}", (image.stored(number) for number in numbers)
    elif as_stored or (media.takes(OCTETS) and media.syntax in {None, EXPLICIT}):
        kind, parts = f"{OCTETS}; transfer-syntax={EXPLICIT}", (image.uncompressed(number) for number in numbers)
    else:
        return None
    first = next(parts)  # before the answer begins: what is damaged is said with a status
    if not media.multipart and media.kind != "*/*":
        return Response(first, media_type=kind) if len(numbers) == 1 else None
    return multipart(kind.partition(";")[0], ((kind, [value]) for value in (first, *parts)))


def picture(request: Request, viewport: tuple[int, int] | None = None) -> Picture:
    """Read the parameters of rendering (PS3.18 section 8.3.5).

    Raises:
        BadRequestError: one has no meaning.
    """
    given = request.query_params
    quality = given.get("quality", "90")
    if not re.fullmatch(r"[1-9][0-9]?|100", quality):
        raise BadRequestError("quality is a whole number from 1 to 100")
    region = None
    if "viewport" in given:
        sides = [abs(value) for value in _floats("viewport", given["viewport"], (2, 6))]
        viewport = round(sides[0]), round(sides[1])
        if not all(1 <= side <= MAX_SIDE for side in viewport):
            raise BadRequestError(f"the sides of a viewport are 1 to {MAX_SIDE}")
        region = (sides[2], sides[3], sides[4], sides[5]) if len(sides) == 6 else None
        if region and not all(1 <= side <= 1 << 16 for side in region[2:]):
            raise BadRequestError("the region has no extent")
    return Picture(_window(given.get("window")), viewport, region, int(quality))


def _window(text: str | None) -> Window | None:
    if text is None:
        return None
    numbers, _, function = text.rpartition(",")
    if function and function.lower() in set(VoiLutFunction):
        centre, width = _floats("window", numbers, (2,))
    else:
        function, (centre, width) = "linear", _floats("window", text, (2,))
    if width <= 0 or (function == "linear" and width < 1):
        raise BadRequestError("the width of a window is positive, and at least 1 for linear")
    return Window(centre, width, VoiLutFunction(function.lower()))


def _floats(name: str, text: str, counts: tuple[int, ...]) -> list[float]:
    try:
        values = [float(value) for value in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in counts or not all(math.isfinite(value) and abs(value) < 1e7 for value in values):
        raise BadRequestError(f"{name} has numbers divided by commas, {' or '.join(map(str, counts))} of them")
    return values
