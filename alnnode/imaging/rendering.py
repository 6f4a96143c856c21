"""Rendered frames of stored images: the grayscale and colour transformations of PS3.4 section N.2, to 8 bits."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from pydicom.pixels.processing import apply_color_lut

from alnnode.imaging.attribute_values import BAD_VALUE
from alnnode.imaging.stored_image import DamagedImageError
from alnnode.imaging.window import VoiLutFunction, apply_window

if TYPE_CHECKING:
    import numpy.typing as npt
    from pydicom import Dataset

    from alnnode.imaging.stored_image import StoredImage

    Pixels = npt.NDArray[Any]
    Floats = npt.NDArray[np.float32]

FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG"}


@dataclass(frozen=True, slots=True)
class Window:
    """A window: centre and width in units of the rescaled values, and the VOI LUT Function."""

    centre: float
    width: float
    function: VoiLutFunction = VoiLutFunction.LINEAR


@dataclass(frozen=True, slots=True)
class Picture:
    """How a frame is rendered (PS3.18 section 8.3.5.1).

    Attributes:
        window: None: that of the image.
        viewport: (width, height), pixels, that the picture fits into.
        region: (left, top, width, height) of the source, pixels.
        quality: of JPEG, 1 to 100.
    """

    window: Window | None = None
    viewport: tuple[int, int] | None = None
    region: tuple[float, float, float, float] | None = None
    quality: int = 90


def render(image: StoredImage, number: int, kind: str, how: Picture) -> bytes:
    """Return frame ``number`` (from 1) as JPEG or PNG.

    Raises:
        DamagedImageError, NoSuchFrameError: as `StoredImage.pixels`.
    """
    picture = Image.fromarray(_eight_bits(image, number, how.window))
    if how.region is not None:
        left, top, width, height = how.region
        picture = picture.crop((round(left), round(top), round(left + width), round(top + height)))
    if how.viewport is not None:
        factor = min(how.viewport[0] / picture.width, how.viewport[1] / picture.height)
        size = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    picture.save(buffer, FORMATS[kind], **({"quality": how.quality} if kind == "image/jpeg" else {}))
    return buffer.getvalue()


def _eight_bits(image: StoredImage, number: int, window: Window | None) -> npt.NDArray[np.uint8]:
    header = image.header
    pixels = image.pixels(number)
    try:
        if str(header.get("PhotometricInterpretation", "")) == "PALETTE COLOR":
            pixels = apply_color_lut(pixels, header)
        if pixels.ndim == 3:
            shift = max(0, pixels.dtype.itemsize * 8 - 8)
            return np.asarray(pixels >> shift, np.uint8)
        groups = _groups(header, number)
        values = _rescaled(pixels, groups)
        shown = window or _window_of(values, groups, floats=image.keyword != "PixelData")
        grey = apply_window(values, shown.centre, shown.width, shown.function)
    except BAD_VALUE:
        raise DamagedImageError from None
    if str(header.get("PhotometricInterpretation", "")) == "MONOCHROME1":
        grey = 1 - grey
    return np.asarray(np.rint(grey * 255), np.uint8)


def _groups(header: Dataset, number: int) -> list[Dataset]:
    """Return the data sets that may hold attributes of a frame, in the order of precedence (PS3.3 section C.7.6.16)."""
    per_frame = list(header.get("PerFrameFunctionalGroupsSequence") or [])
    shared = list(header.get("SharedFunctionalGroupsSequence") or [])
    items = [*per_frame[number - 1 : number], *shared[:1]]
    return [*(element.value[0] for item in items for element in item if element.VR == "SQ" and element.value), header]


def _first(groups: list[Dataset], keyword: str) -> float | None:
    for group in groups:
        value = group.get(keyword)
        if value not in (None, ""):
            return float(value[0] if isinstance(value, (list, tuple)) or hasattr(value, "append") else value)
    return None


def _rescaled(pixels: Pixels, groups: list[Dataset]) -> Floats:
    slope, intercept = _first(groups, "RescaleSlope"), _first(groups, "RescaleIntercept")
    return np.asarray(pixels, np.float32) * np.float32(1 if slope is None else slope) + np.float32(intercept or 0)


def _window_of(values: Floats, groups: list[Dataset], *, floats: bool) -> Window:
    centre, width = _first(groups, "WindowCenter"), _first(groups, "WindowWidth")
    if centre is not None and width is not None and width > 0 and not floats:
        return Window(centre, max(width, 1.0))
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    return Window((low + high) / 2, max(high - low, 1e-6), VoiLutFunction.LINEAR_EXACT)
