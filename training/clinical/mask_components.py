"""Separate the nodes of a mask: one node for each value, or one for each connected component."""

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

TOUCHING: Final = np.ones((3, 3, 3))  # voxels that share an edge or a corner are connected


def nodes_of_mask(values: npt.NDArray[Any], spacing: Spacing, remarks: list[str]) -> Iterator[tuple[str, Mask]]:
    """Yield each node with its name: its value, the number of its component, or both as "1.2".

    If the components of a value extend farther than a node can, the value is a class of nodes, and each component is a node.

    Args:
        values: of the voxels, in any order of axes; values above 0 are nodes.
        spacing: of the axes, mm.
        remarks: a line is appended for each value with several components.
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
            remarks.append(
                f"value {value} as one node: its {count} components extend over {reach:.0f} mm, so each is imported as a node"
            )
            yield from ((f"{value}.{number}", labels == number) for number in range(1, count + 1))
        else:
            if count > 1 and (gap := _gap_mm(labels, count, spacing)) > MAX_GAP_MM:
                remarks.append(
                    f"value {value} as {count} nodes: its components, {gap:.0f} mm apart, are imported as one node; if they are several nodes, give each its own value"
                )
            yield str(value), mask


def extent_mm(mask: Mask, spacing: Spacing) -> float:
    """Return the longest side of the bounding box of a mask in mm."""
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    return max(float(side.stop - side.start) * step for side, step in zip(box, spacing, strict=True))


def _gap_mm(labels: Integers, count: int, spacing: Spacing) -> float:
    """Return the largest distance of a component from the largest component in mm."""
    (box,) = ndimage.find_objects((labels > 0).astype(np.uint8))
    inside = labels[box]
    largest = int(np.bincount(inside.ravel())[1:].argmax()) + 1
    distance = ndimage.distance_transform_edt(inside != largest, spacing)
    return float(np.max(ndimage.minimum(distance, inside, range(1, count + 1))))
