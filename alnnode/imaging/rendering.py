"""Stored images as pictures for people: the grey and colour pipeline of PS3.4 section N.2, to 8 bits."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from pydicom.pixels.processing import apply_color_lut

from alnnode.imaging.frames import BAD_VALUE
from alnnode.imaging.stored_image import DamagedImageError

if TYPE_CHECKING:
    import numpy.typing as npt
    from pydicom import Dataset

    from alnnode.imaging.stored_image import StoredImage

    Pixels = npt.NDArray[Any]
    Floats = npt.NDArray[np.float32]

FUNCTIONS = ("linear", "linear-exact", "sigmoid")  # PS3.18 section 8.3.5.1.4
FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG"}


@dataclass(frozen=True, slots=True)
class Window:
    """Centre and width in units of the rescaled values."""

    centre: float
    width: float
    function: str = "linear"

    def apply(self, values: Floats) -> Floats:
        """Map to 0..1 (PS3.3 section C.11.2.1.2 and C.11.2.1.3)."""
        if self.function == "sigmoid":
            return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - self.centre) / self.width, -60, 60))), np.float32)
        centre, width = self.centre, self.width
        if self.function == "linear":
            centre, width = centre - 0.5, max(width - 1, 1e-6)
        return np.asarray(np.clip((values - centre) / width + 0.5, 0, 1), np.float32)


@dataclass(frozen=True, slots=True)
class Picture:
    """How a frame is to be shown. ``viewport`` is width and height that it has to fit in; ``region`` left, top, width, height."""

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
        grey = (window or _window(values, groups, floats=image.keyword != "PixelData")).apply(values)
    except BAD_VALUE:
        raise DamagedImageError from None
    if str(header.get("PhotometricInterpretation", "")) == "MONOCHROME1":
        grey = 1 - grey
    return np.asarray(np.rint(grey * 255), np.uint8)


def _groups(header: Dataset, number: int) -> list[Dataset]:
    """Return where attributes of a frame are looked for, the nearest first (PS3.3 section C.7.6.16)."""
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


def _window(values: Floats, groups: list[Dataset], *, floats: bool) -> Window:
    centre, width = _first(groups, "WindowCenter"), _first(groups, "WindowWidth")
    if centre is not None and width is not None and width > 0 and not floats:
        return Window(centre, width)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    return Window((low + high) / 2, max(high - low, 1e-6), "linear-exact")
