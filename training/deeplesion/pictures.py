"""Draw the lesions that were missed: the key slice around each, the lesion's box and the boxes of found nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, ImageDraw

from training.deeplesion.images import read_slice
from training.deeplesion.matching import Overlap, hits, padded

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from training.deeplesion.search import FoundNode, Searched
    from training.deeplesion.selection import SubVolume
    from training.deeplesion.table import Lesion, Rectangle

HALF_MM: Final = 40.0
EDGE: Final = 240  # pixels of a picture
COLUMNS: Final = 5
CENTRE_HU, WIDTH_HU = 40.0, 400.0
LESION: Final = (255, 80, 80)
FOUND: Final = (90, 220, 255)


def draw_misses(
    images: Path, subvolumes: Sequence[SubVolume], searched: Sequence[Searched], threshold: float, path: Path
) -> int:
    """Write one PNG with all lesions that no node of at least ``threshold`` hits by IoU; return how many they are, and write nothing for none.

    Raises:
        DeepLesionError: an image cannot be read.
    """
    tiles = []
    for sub, found in zip(subvolumes, searched, strict=True):
        nodes = [node for node in found.nodes if node.score >= threshold]
        tiles += [
            _tile(images, sub, lesion, nodes)
            for lesion in sub.targets
            if not any(hits(node, lesion, Overlap.IOU) for node in nodes)
        ]
    if tiles:
        sheet = Image.new("RGB", (EDGE * min(COLUMNS, len(tiles)), EDGE * -(-len(tiles) // COLUMNS)))
        for n, tile in enumerate(tiles):
            sheet.paste(tile, (n % COLUMNS * EDGE, n // COLUMNS * EDGE))
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path, optimize=True)
    return len(tiles)


def _tile(images: Path, sub: SubVolume, lesion: Lesion, nodes: Sequence[FoundNode]) -> Image.Image:
    hu = read_slice(images / sub.series / f"{lesion.key_slice:03d}.png")
    grey = np.clip((hu - CENTRE_HU) / WIDTH_HU + 0.5, 0, 1) * 255
    half = HALF_MM / sub.spacing[2]
    left, top = (lesion.box[0] + lesion.box[2]) / 2 - half, (lesion.box[1] + lesion.box[3]) / 2 - half
    part = Image.fromarray(grey.astype(np.uint8)).transform(
        (EDGE, EDGE), Image.Transform.EXTENT, (left, top, left + 2 * half, top + 2 * half), Image.Resampling.BILINEAR
    )
    tile = part.convert("RGB")
    draw = ImageDraw.Draw(tile)

    def outline(box: Rectangle, colour: tuple[int, int, int]) -> None:
        # To Pillow pixel n reaches from n to n + 1, and the box holds its last row and column.
        edges = ((box[0] - left, box[1] - top), (box[2] + 1 - left, box[3] + 1 - top))
        draw.rectangle([(x * EDGE / (2 * half), y * EDGE / (2 * half)) for x, y in edges], outline=colour)

    for node in nodes:
        if (section := node.sections.get(lesion.key_slice)) is not None:
            outline(padded(section), FOUND)
    outline(lesion.box, LESION)
    draw.text((3, 2), f"{sub.series} {lesion.key_slice}", fill=(255, 230, 90))
    return tile
