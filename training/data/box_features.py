"""Features of a node that one slice and the detector's box allow: the input of the fairest baseline without a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from alnnode.imaging.crop import BLOOD_RANGE_HU

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.records import Box, Volume

BOX_FEATURES: Final = (
    "longer side, mm", "longer / shorter side", "mean HU", "SD of HU", "maximum HU", "centre HU", "ring HU", "blood HU",
)  # fmt: skip
_RING_MM: Final = 4.0
_CORE: Final = 0.4  # radius of the centre, as a share of the box


def box_features(volume: Volume, box: Box, slice_index: int, blood_hu: float | None) -> list[float]:
    """Return `BOX_FEATURES` of the ellipse that fills the box on one slice; no outline of the node is used.

    Args:
        volume: the series.
        box: of the node.
        slice_index: the slice.
        blood_hu: attenuation of the blood; None counts as blood without contrast.
    """
    height, width = (box.j1 - box.j0) * volume.spacing[1], (box.i1 - box.i0) * volume.spacing[2]
    plane = volume.voxels[slice_index].astype(np.float32)
    rows, columns = np.ogrid[: plane.shape[0], : plane.shape[1]]
    down = (rows + 0.5 - (box.j0 + box.j1) / 2) * volume.spacing[1]
    across = (columns + 0.5 - (box.i0 + box.i1) / 2) * volume.spacing[2]
    inside = _ellipse(down, across, height / 2, width / 2)
    ring = _ellipse(down, across, height / 2 + _RING_MM, width / 2 + _RING_MM) & ~inside
    core = _ellipse(down, across, _CORE * height / 2, _CORE * width / 2)
    hu = plane[inside] if inside.any() else np.zeros(1, np.float32)
    return [
        max(height, width),
        max(height, width) / max(min(height, width), 1.0),
        float(hu.mean()),
        float(hu.std()),
        float(hu.max()),
        float(plane[core].mean()) if core.any() else float(hu.mean()),
        float(plane[ring].mean()) if ring.any() else -100.0,
        0.1 * BLOOD_RANGE_HU if blood_hu is None else blood_hu,
    ]


def _ellipse(
    down: npt.NDArray[np.floating[Any]], across: npt.NDArray[np.floating[Any]], half_height: float, half_width: float
) -> npt.NDArray[np.bool_]:
    """Return the pixels whose centres lie in an ellipse; ``down`` and ``across`` are distances from its centre, mm."""
    found: npt.NDArray[np.bool_] = (down / half_height) ** 2 + (across / half_width) ** 2 <= 1
    return found
