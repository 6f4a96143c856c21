"""The chest of a series and the search regions of its axillae, on the coarse grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alnnode.locate.grid import Mask
    from alnnode.locate.sight import Sight
    from alnnode.records import AxillaCoverage, Side


@dataclass(frozen=True, slots=True)
class Axilla:
    """Search region of one side on the coarse grid.

    Attributes:
        mask: the region; it covers the whole coarse volume.
        cut_at_side: the side of the image cuts the axilla off.
    """

    side: Side
    mask: Mask
    coverage: AxillaCoverage
    cut_at_side: bool


@dataclass(frozen=True, slots=True)
class Chest:
    """Landmarks of the chest on the coarse grid.

    Attributes:
        body: the patient, without table and air.
        thorax: per slice, the hull of both lungs (one lung mirrored where the other is collapsed).
        midline: x index of the mid-sagittal plane.
        apex: z index of the highest lung slice.
        sight: where the images end within the chest.
    """

    body: Mask
    thorax: Mask
    midline: float
    apex: int
    sight: Sight
