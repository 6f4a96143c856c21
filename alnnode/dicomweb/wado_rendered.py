"""Answer requests for rendered images and thumbnails (PS3.18 sections 10.4.1.1.3, 10.4.1.1.4 and 8.3.5)."""

from __future__ import annotations

import math
import re
from functools import partial
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response

from alnnode.dicomweb.services import dicomweb_services
from alnnode.dicomweb.wado import not_found
from alnnode.dicomweb.wado_frames import InvalidParameterError, frame_numbers, open_requested_image
from alnnode.http.content_negotiation import accepted_media_types
from alnnode.imaging.rendering import FORMATS, Picture, Window, render
from alnnode.imaging.stored_image import DamagedImageError, NoSuchFrameError
from alnnode.imaging.window import VoiLutFunction

if TYPE_CHECKING:
    from starlette.requests import Request

THUMBNAIL = (256, 256)
MAX_SIDE = 4096


async def rendered(request: Request) -> Response:
    """Answer ``…/rendered`` of an instance or of its frames; of several frames, the first one."""
    return await _rendered(request, None)


async def thumbnail(request: Request) -> Response:
    """Answer ``…/thumbnail`` of a study, series, instance or frame."""
    return await _rendered(request, THUMBNAIL)


async def _rendered(request: Request, viewport: tuple[int, int] | None) -> Response:
    accepted = accepted_media_types(request)
    kind = next((kind for media in accepted for kind in FORMATS if media.includes(kind)), None)
    if kind is None:
        return PlainTextResponse("rendered images are available as image/jpeg and image/png", 406)
    try:
        picture = requested_picture(request, viewport)
        number = frame_numbers(request)[0] if "frames" in request.path_params else 0
        image = await run_in_threadpool(open_requested_image, request)
        # The middle frame shows the most of a multi-frame image.
        draw = partial(render, image, number or (image.frames + 1) // 2, kind, picture)
        data = await dicomweb_services(request).renderings.run(request, draw)
    except InvalidParameterError as error:
        return PlainTextResponse(str(error), 400)
    except (NoSuchFrameError, OSError):
        return not_found()
    except DamagedImageError:
        return PlainTextResponse("the pixel data cannot be decoded", 406)
    return Response(data, media_type=kind)


def requested_picture(request: Request, viewport: tuple[int, int] | None = None) -> Picture:
    """Read the query parameters of rendering (PS3.18 section 8.3.5).

    Raises:
        InvalidParameterError: one is not valid.
    """
    given = request.query_params
    quality = given.get("quality", "90")
    if not re.fullmatch(r"[1-9][0-9]?|100", quality):
        raise InvalidParameterError("quality must be an integer from 1 to 100")
    region = None
    if "viewport" in given:
        sides = [abs(value) for value in _floats("viewport", given["viewport"], (2, 6))]
        viewport = round(sides[0]), round(sides[1])
        if not all(1 <= side <= MAX_SIDE for side in viewport):
            raise InvalidParameterError(f"the width and height of viewport must be 1 to {MAX_SIDE}")
        region = (sides[2], sides[3], sides[4], sides[5]) if len(sides) == 6 else None
        if region and not all(1 <= side <= MAX_SIDE for side in region[2:]):
            raise InvalidParameterError(f"the width and height of the region in viewport must be 1 to {MAX_SIDE}")
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
        raise InvalidParameterError("the width of window must be greater than 0, and at least 1 for the function linear")
    return Window(centre, width, VoiLutFunction(function.lower()))


def _floats(name: str, text: str, counts: tuple[int, ...]) -> list[float]:
    try:
        values = [float(value) for value in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in counts or not all(math.isfinite(value) and abs(value) < 1e7 for value in values):
        raise InvalidParameterError(f"{name} must have {' or '.join(map(str, counts))} numbers, separated by commas")
    return values
