"""Draw axial and coronal views of the nodes that a detector found, the nodes that it missed, and its false boxes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from alnnode.records import Volume
    from training.detection.reference import Point
    from training.detection.score import LocatedBox, MatchedBoxes, ScoredSeries

HALF_MM = 32.0
PIXELS = 160  # edge of one view
WINDOW = (40.0, 400.0)
COLUMNS = 4


@dataclass
class ResultTiles:
    """Pictures of missed nodes, false boxes and found nodes, collected series by series."""

    misses: list[Image.Image] = field(default_factory=list)
    false: list[Image.Image] = field(default_factory=list)
    found: list[Image.Image] = field(default_factory=list)

    def add(self, volume: Volume, evaluated: ScoredSeries, counted: MatchedBoxes) -> None:
        """Draw all reference nodes and false boxes of a series."""
        for place, n in zip(evaluated.reference.nodes, counted.found, strict=True):
            text = f"{evaluated.case} {place.long_mm:.0f} x {place.short_mm:.0f} mm"
            if n is None:
                near = [b.score for b in evaluated.boxes if b.contains(place, evaluated.reference.spacing)]
                self.misses.append(_tile(volume, place.centre, f"{text} {max(near, default=0):.2f}", None))
            else:
                self.found.append(_tile(volume, place.centre, f"{text} {evaluated.boxes[n].score:.2f}", evaluated.boxes[n]))
        for n in counted.false:
            box = evaluated.boxes[n]
            k, j, i = ((a + b) / 2 for a, b in zip(box.low, box.high, strict=True))
            self.false.append(_tile(volume, (k, j, i), f"{evaluated.case} {box.short_axis_mm:.0f} mm {box.score:.2f}", box))

    def write(self, folder: Path) -> list[Path]:
        """Write one PNG for each kind that has pictures, and return the paths."""
        paths = []
        for name in ("misses", "false", "found"):
            tiles = getattr(self, name)
            if not tiles:
                continue
            width, height = tiles[0].size
            sheet = Image.new("RGB", (width * COLUMNS, height * -(-len(tiles) // COLUMNS)))
            for n, tile in enumerate(tiles):
                sheet.paste(tile, (n % COLUMNS * width, n // COLUMNS * height))
            sheet.save(folder / f"{name}.png", optimize=True)
            paths.append(folder / f"{name}.png")
        return paths


def _tile(volume: Volume, centre: Point, text: str, box: LocatedBox | None) -> Image.Image:
    """Return an axial view (left) and a coronal view (head up), with a circle at the centre or the box."""
    k, j, i = centre
    dz, dy, dx = volume.spacing
    axial = _view(volume, (k, j, i), (None, dy, dx))
    coronal = _view(volume, (k, j, i), (dz, None, dx))
    tile = Image.new("RGB", (2 * PIXELS, PIXELS))
    tile.paste(axial, (0, 0))
    tile.paste(coronal, (PIXELS, 0))
    draw = ImageDraw.Draw(tile)
    draw.text((3, 2), text, fill=(255, 230, 90))
    per_mm = PIXELS / (2 * HALF_MM)
    if box is None:
        middle = PIXELS / 2
        draw.ellipse((middle - 9, middle - 9, middle + 9, middle + 9), outline=(255, 80, 80))
        return tile
    x0, x1 = (PIXELS / 2 + (edge - i) * dx * per_mm for edge in (box.low[2] - 0.5, box.high[2] + 0.5))
    y0, y1 = (PIXELS / 2 + (edge - j) * dy * per_mm for edge in (box.low[1] - 0.5, box.high[1] + 0.5))
    draw.rectangle((x0, y0, x1, y1), outline=(80, 220, 255))
    return tile


def _view(volume: Volume, centre: Point, spacing: tuple[float | None, float, float] | tuple[float, None, float]) -> Image.Image:
    """Return the slice through the centre on square pixels; the axis whose spacing is None is perpendicular to it."""
    steps = (np.arange(PIXELS) + 0.5) / PIXELS * 2 * HALF_MM - HALF_MM
    axes = [n for n in range(3) if spacing[n] is not None]
    first, second = np.meshgrid(steps, steps, indexing="ij")
    if axes[0] == 0:
        first = -first  # slices are counted from the feet, and the head is up
    points: list[npt.NDArray[np.float64]] = [np.full(first.shape, float(c)) for c in centre]
    for axis, mm in zip(axes, (first, second), strict=True):
        points[axis] = centre[axis] + mm / float(spacing[axis] or 1.0)
    values = ndimage.map_coordinates(volume.voxels, points, order=1, output=np.float32, mode="constant", cval=-1000)
    low, width = WINDOW[0] - WINDOW[1] / 2, WINDOW[1]
    return Image.fromarray(np.clip((values - low) / width * 255, 0, 255).astype(np.uint8)).convert("RGB")
