"""Centre of a node in patient coordinates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from alnnode.records import Node, Volume
    from alnnode.records.comparison import Point


def node_centre(volume: Volume, node: Node) -> Point:
    """Return the centre of a node's mask, or of its box when it has no mask, in patient coordinates (mm, LPS)."""
    if node.mask is None:
        return volume.patient_point(*node.box.centre)
    k, j, i = (float(low + mean) for low, mean in zip(node.box.low, np.argwhere(node.mask).mean(axis=0), strict=True))
    return volume.patient_point(k, j, i)
