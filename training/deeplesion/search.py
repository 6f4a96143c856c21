"""Find nodes in a sub-volume with the node's own search, and store the result, so that an interrupted run continues."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from alnnode import __version__
from alnnode.locate.chest_anatomy import ChestAnatomy
from alnnode.locate.search import SearchLimits, locate_nodes
from training.deeplesion.images import read_subvolume

if TYPE_CHECKING:
    from pathlib import Path

    from alnnode.locate.detector import Detector
    from alnnode.records import Node, Volume
    from training.deeplesion.selection import SubVolume
    from training.deeplesion.table import Rectangle

LEAST_SCORE: Final = 0.05  # far below any operating point, so that the curve reaches many false positives
LEAST_MM: Final = 4.0  # short axis, as the node reports by default
MOST: Final = 80  # nodes of one sub-volume


@dataclass(frozen=True, slots=True)
class FoundNode:
    """One node that the search found.

    Attributes:
        score: of the detector, 0 to 1.
        short_axis_mm: as measured.
        sections: by number of the image the rectangle around the node's cross-section, from its first to its last pixel.
    """

    score: float
    short_axis_mm: float
    sections: dict[int, Rectangle]


@dataclass(frozen=True, slots=True)
class Searched:
    """What the search found in one sub-volume; ``shown`` is false when it saw no lungs and therefore searched nothing."""

    nodes: tuple[FoundNode, ...]
    shown: bool


@dataclass(frozen=True, slots=True)
class Searcher:
    """Search sub-volumes, each once.

    Attributes:
        images: folder with a folder of images for each series.
        work: folder for the results, one file for each sub-volume.
        detector: of the bundle with the digest ``bundle``.
        head_first: whether the image numbers begin at the head.
    """

    images: Path
    work: Path
    detector: Detector
    bundle: str
    head_first: bool = True

    def search(self, sub: SubVolume) -> Searched:
        """Search a sub-volume, or return the stored result of an earlier run with the same bundle, settings and images.

        Raises:
            DeepLesionError: an image cannot be used.
        """
        path = self.work / f"{sub.name}.json"
        key = self._key(sub)
        stored = _read(path, key)
        if stored is None:
            stored = locate(read_subvolume(self.images, sub, head_first=self.head_first), self.detector)
            _write(path, key, stored)
        return stored

    def _key(self, sub: SubVolume) -> str:
        folder = self.images / sub.series
        sizes = [(path.stat().st_size if path.is_file() else None) for path in (folder / name for name in sub.file_names)]
        parts = (__version__, self.bundle, LEAST_SCORE, LEAST_MM, MOST, self.head_first, sub.name, sub.spacing, sizes)
        return hashlib.sha256(repr(parts).encode()).hexdigest()


def locate(volume: Volume, detector: Detector) -> Searched:
    """Find the nodes of a volume whose slices have image numbers."""
    anatomy = ChestAnatomy(volume)
    nodes = locate_nodes(anatomy, detector, SearchLimits(LEAST_MM, MOST, LEAST_SCORE))
    found = (FoundNode(node.score, node.short_axis.length_mm, sections(node, volume)) for node in nodes)
    return Searched(tuple(found), any(axilla.shown for axilla in anatomy.coverage))


def sections(node: Node, volume: Volume) -> dict[int, Rectangle]:
    """Return by image number the rectangle around the cross-section of a node with a mask."""
    assert node.mask is not None
    found: dict[int, Rectangle] = {}
    for k, plane in enumerate(node.mask, start=node.box.k0):
        number = volume.slices[k].image_number
        if plane.any() and number is not None:
            rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
            left, top, right, bottom = columns[0], rows[0], columns[-1], rows[-1]
            found[number] = (
                float(left + node.box.i0),
                float(top + node.box.j0),
                float(right + node.box.i0),
                float(bottom + node.box.j0),
            )
    return found


def _read(path: Path, key: str) -> Searched | None:
    """Return a stored result; None when the file is missing, belongs to another bundle, setting or image, or is truncated."""
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if values["key"] != key:
            return None
        nodes = tuple(
            FoundNode(
                float(node["score"]),
                float(node["short_axis_mm"]),
                {int(number): _rectangle(box) for number, box in node["sections"].items()},
            )
            for node in values["nodes"]
        )
        return Searched(nodes, bool(values["shown"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _rectangle(values: Any) -> Rectangle:
    left, top, right, bottom = (float(value) for value in values)
    return left, top, right, bottom


def _write(path: Path, key: str, found: Searched) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps({"key": key, **asdict(found)}) + "\n", encoding="utf-8")
    partial.replace(path)
