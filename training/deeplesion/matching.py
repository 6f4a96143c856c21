"""Decide which found node hits which lesion, by rectangles on the lesion's key slice.

The evaluation code of the data set's authors counts in this way, by intersection over union (IoU): a found box that overlaps a lesion enough hits
it, and a second box on a lesion is not a false positive. Intersection over the found box (IoBB) also accepts boxes that are smaller than the lesion's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from training.deeplesion.search import FoundNode
    from training.deeplesion.selection import SubVolume
    from training.deeplesion.table import Lesion, Rectangle

LEAST_OVERLAP: Final = 0.5
# DL_info.csv adds 5 pixels to each side of a lesion's measured axes. Found boxes get the same, or a small node that fits exactly would be a miss.
PADDING_PX: Final = 5.0


class Overlap(StrEnum):
    """How the overlap of a found box with a lesion's box is measured."""

    IOU = "IoU"
    IOBB = "IoBB"


@dataclass(frozen=True, slots=True)
class Counted:
    """What was found of one sub-volume, by one measure of overlap.

    Attributes:
        patient: index of the patient.
        targets: by lesion that counts the score of the best node that hits it; 0 where none does.
        false: scores of the nodes that hit no lesion at all.
    """

    patient: int
    targets: tuple[float, ...]
    false: tuple[float, ...]


def padded(box: Rectangle) -> Rectangle:
    """Return a found rectangle with the margin that the boxes of the data set have."""
    left, top, right, bottom = box
    return left - PADDING_PX, top - PADDING_PX, right + PADDING_PX, bottom + PADDING_PX


def overlap(found: Rectangle, lesion: Rectangle, measure: Overlap) -> float:
    """Return the overlap of two rectangles, 0 to 1; both hold their last row and column, as in the data set's evaluation."""
    width = min(found[2], lesion[2]) - max(found[0], lesion[0]) + 1
    height = min(found[3], lesion[3]) - max(found[1], lesion[1]) + 1
    shared = max(0.0, width) * max(0.0, height)
    whole = _area(found) if measure is Overlap.IOBB else _area(found) + _area(lesion) - shared
    return shared / whole


def hits(node: FoundNode, lesion: Lesion, measure: Overlap) -> bool:
    """Whether a node hits a lesion: its cross-section on the key slice overlaps the lesion's box enough."""
    section = node.sections.get(lesion.key_slice)
    return section is not None and overlap(padded(section), lesion.box, measure) >= LEAST_OVERLAP


def count(nodes: Iterable[FoundNode], sub: SubVolume, measure: Overlap) -> Counted:
    """Match the nodes found in a sub-volume with its lesions; a node that hits a lesion that does not count is neither hit nor false."""
    best = [0.0] * len(sub.targets)
    false = []
    for node in nodes:
        hit = [n for n, lesion in enumerate(sub.targets) if hits(node, lesion, measure)]
        for n in hit:
            best[n] = max(best[n], node.score)
        if not hit and not any(hits(node, lesion, measure) for lesion in sub.others):
            false.append(node.score)
    return Counted(sub.patient, tuple(best), tuple(false))


def _area(box: Rectangle) -> float:
    return (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
