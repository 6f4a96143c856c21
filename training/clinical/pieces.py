"""Which voxels of a mask are one node: those of one value, or one connected piece of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import ndimage

from alnnode.locate.marks.placing import MAX_EXTENT_MM, MAX_GAP_MM

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    Mask = npt.NDArray[np.bool_]
    Integers = npt.NDArray[np.integer[Any]]
    Spacing = Sequence[float]

TOUCHING: Final = np.ones((3, 3, 3))  # also by an edge or a corner


def nodes(values: npt.NDArray[Any], spacing: Spacing, remarks: list[str]) -> Iterator[tuple[str, Mask]]:
    """Yield each node with its name: its value, or its piece's number, or both as "1.2".

    A value whose pieces lie farther apart than a node is large is a class, not a node: then each piece is one.

    Args:
        values: of the voxels, in any order of axes; above 0 is node.
        spacing: of its axes, mm.
        remarks: gets a line for each value that is not plainly one node.
    """
    rounded = np.rint(np.nan_to_num(values)).astype(np.int64)
    present = [int(value) for value in np.unique(rounded) if value > 0]
    for value in present:
        mask = rounded == value
        labels, count = ndimage.label(mask, structure=TOUCHING)
        reach = extent_mm(mask, spacing)
        if len(present) == 1:
            yield from ((str(number), labels == number) for number in range(1, count + 1))
        elif count > 1 and reach > MAX_EXTENT_MM:
            remarks.append(f"value {value} as one node: its {count} pieces reach over {reach:.0f} mm, so each is a node")
            yield from ((f"{value}.{number}", labels == number) for number in range(1, count + 1))
        else:
            if count > 1 and (gap := _gap_mm(labels, count, spacing)) > MAX_GAP_MM:
                remarks.append(
                    f"value {value} as {count} nodes: its pieces, {gap:.0f} mm apart, are taken as one node; if they are not, give each a value of its own"
                )
            yield str(value), mask


def extent_mm(mask: Mask, spacing: Spacing) -> float:
    """Return the longest side of the box that holds a mask, mm."""
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    return max(float(side.stop - side.start) * step for side, step in zip(box, spacing, strict=True))


def _gap_mm(labels: Integers, count: int, spacing: Spacing) -> float:
    """Return how far the farthest piece lies from the largest, mm."""
    (box,) = ndimage.find_objects((labels > 0).astype(np.uint8))
    inside = labels[box]
    largest = int(np.bincount(inside.ravel())[1:].argmax()) + 1
    distance = ndimage.distance_transform_edt(inside != largest, spacing)
    return float(np.max(ndimage.minimum(distance, inside, range(1, count + 1))))
