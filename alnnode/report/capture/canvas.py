"""Pixels for the captures: windowed slices, colour map, text. The results are reproducible to the byte."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from alnnode.imaging.orientation import direction_letter, in_plane, upright_steps
from alnnode.imaging.window import VoiLutFunction, apply_window

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.records import FloatArray, Heatmap, Volume

    Rgb = npt.NDArray[np.uint8]

INK, QUIET, GROUND, LINE = (255, 255, 255), (176, 184, 196), (12, 14, 18), (70, 76, 86)
# Orange and sky blue are distinguishable with all common colour vision deficiencies (Okabe and Ito, 2008).
SUSPICIOUS, NOT_SUSPICIOUS, NOTICE = (255, 159, 28), (102, 194, 255), (122, 31, 0)
AIR_HU = -1000.0
TISSUE_HU = -300
OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "F": "H", "H": "F"}

# Anchors of matplotlib's "inferno" (CC0), perceptually uniform.
_ANCHORS = np.array(
    [
        (0, 0, 4),
        (31, 12, 72),
        (85, 15, 109),
        (136, 34, 106),
        (186, 54, 85),
        (227, 89, 51),
        (249, 140, 10),
        (249, 201, 50),
        (252, 255, 164),
    ],
    np.float32,
)


def colour(values: FloatArray) -> npt.NDArray[np.float32]:
    """Return RGB 0..255 of values 0..1: shape (..., 3)."""
    place = np.linspace(0, 1, len(_ANCHORS))
    return np.stack([np.interp(values, place, _ANCHORS[:, c]) for c in range(3)], axis=-1).astype(np.float32)


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font of Pillow, so that the pixels do not depend on system fonts."""
    return ImageFont.load_default(size)


@dataclass(frozen=True, slots=True)
class View:
    """A view of one slice as a reader sees it: the patient's front up, the patient's right on the left.

    Pixel (v, u) of the view shows the voxel position ``origin + v * down + u * right``, all (row, column) of the slice. When
    the patient lies on the side, ``down`` runs along the columns of the source.
    """

    slice_index: int
    origin: tuple[float, float]
    down: tuple[float, float]
    right: tuple[float, float]
    height: int
    width: int

    @classmethod
    def centred(cls, volume: Volume, centre: tuple[float, float, float], field_mm: float, size: int) -> View:
        """Return a square view of ``field_mm`` around a voxel position."""
        return cls._around(volume, round(centre[0]), (centre[1], centre[2]), field_mm / size, (size, size))

    @classmethod
    def fitted(cls, volume: Volume, slice_index: int, width: int, height: int) -> View:
        """Return a view that fits the patient on the slice into width x height."""
        tissue = volume.voxels[slice_index] > TISSUE_HU
        j0, j1 = _extent(tissue.mean(axis=1))
        i0, i1 = _extent(tissue.mean(axis=0))
        tall, wide = (j1 - j0) * volume.spacing[1], (i1 - i0) * volume.spacing[2]
        if in_plane(volume.affine).transposed:
            tall, wide = wide, tall
        pitch = max(tall / height, wide / width)
        return cls._around(volume, slice_index, ((j0 + j1 - 1) / 2, (i0 + i1 - 1) / 2), pitch, (height, width))

    @classmethod
    def _around(
        cls, volume: Volume, slice_index: int, centre: tuple[float, float], pitch_mm: float, shape: tuple[int, int]
    ) -> View:
        down, right = upright_steps(volume, pitch_mm)
        v, u = (shape[0] - 1) / 2, (shape[1] - 1) / 2
        origin = centre[0] - v * down[0] - u * right[0], centre[1] - v * down[1] - u * right[1]
        return cls(slice_index, origin, down, right, *shape)

    def grid(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the voxel rows and columns that the pixels show: two arrays (height, width)."""
        v, u = np.meshgrid(np.arange(self.height), np.arange(self.width), indexing="ij")
        rows, columns = (self.origin[n] + v * self.down[n] + u * self.right[n] for n in (0, 1))
        return rows, columns

    def place(self, column: float, row: float) -> tuple[float, float]:
        """Return (x, y) on the view of an image coordinate (column, row; SCOORD convention)."""
        j, i = row - 0.5 - self.origin[0], column - 0.5 - self.origin[1]
        area = self.down[0] * self.right[1] - self.down[1] * self.right[0]
        return (self.down[0] * i - self.down[1] * j) / area, (self.right[1] * j - self.right[0] * i) / area


def orientation(volume: Volume, view: View) -> tuple[str, str, str, str]:
    """Return the letters at the left, right, top and bottom edge (PS3.3 C.7.6.1.1.1), computed from the affine of the volume."""
    directions = volume.affine[:3, 1:3]
    right, down = direction_letter(directions @ view.right), direction_letter(directions @ view.down)
    return OPPOSITE[right], right, OPPOSITE[down], down


def _extent(share: npt.NDArray[np.floating[Any]], margin: int = 6) -> tuple[int, int]:
    """Return the half-open range of lines with more tissue than a table or a tube; all lines when there is none."""
    held = np.flatnonzero(share > 0.05)
    if not len(held):
        return 0, len(share)
    return max(int(held[0]) - margin, 0), min(int(held[-1]) + 1 + margin, len(share))


def grey(volume: Volume, view: View, window: tuple[float, float]) -> Rgb:
    """Return the view in a window (centre, width) as RGB."""
    plane = volume.voxels[view.slice_index].astype(np.float32)
    blur = max(abs(view.down[0] + view.down[1]) - 1, 0) * 0.4
    if blur:
        plane = ndimage.gaussian_filter(plane, blur)
    hu = ndimage.map_coordinates(plane, view.grid(), order=1, mode="constant", cval=AIR_HU)
    level = apply_window(hu, *window, VoiLutFunction.LINEAR_EXACT) * 255
    return np.repeat(np.rint(level).astype(np.uint8)[..., None], 3, axis=2)


def overlay(picture: Rgb, view: View, heatmap: Heatmap) -> Rgb:
    """Return the picture with a heatmap over the crop; the opacity grows with the value."""
    g = heatmap.geometry
    rows, columns = view.grid()
    grid = (rows - g.top) / g.step_row, (columns - g.left) / g.step_column
    values = np.clip(ndimage.map_coordinates(heatmap.on_slice, grid, order=1, mode="constant", cval=0.0), 0, 1).astype(
        np.float32
    )
    inside = (grid[0] >= -0.5) & (grid[0] <= g.size - 0.5) & (grid[1] >= -0.5) & (grid[1] <= g.size - 0.5)
    return blend(picture, values, inside)


def blend(picture: Rgb, values: FloatArray, inside: npt.NDArray[np.bool_]) -> Rgb:
    """Return the picture with values 0..1 overlaid in colour."""
    weight = (np.clip(values, 0, 1) * 0.65 * inside)[..., None]
    mixed = picture * (1 - weight) + colour(values) * weight
    blended: Rgb = np.rint(mixed).astype(np.uint8)
    return blended


def text(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    words: str,
    size: int,
    ink: tuple[int, int, int] = INK,
    anchor: str = "la",
) -> None:
    """Draw text with a thin dark outline, so that it is legible over tissue."""
    draw.text(at, words, font=font(size), fill=ink, anchor=anchor, stroke_width=1, stroke_fill=GROUND)


def wrap(words: str, size: int, width: int) -> list[str]:
    """Return a sentence in lines that fit ``width`` pixels."""
    lines: list[str] = []
    # A number stays on the line of its unit or noun, and the name of a node on one line.
    for glued in re.sub(r" (?=%|mm|HU)|(?<=\d) (?=nodes?\b)|(?<=\bnode) (?=\d)|(?<=\b[RL]) (?=node \d)", "\0", words).split():
        word = glued.replace("\0", " ")
        if lines and font(size).getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def sheet(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return an empty page and the object that draws on it."""
    page = Image.new("RGB", (width, height), GROUND)
    return page, ImageDraw.Draw(page)
