"""Where the images of a series end within the chest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from alnnode.records import Side

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.locate.grid import Mask

OPEN_TOP_MM2 = 1500.0  # lung area of one side in the uppermost slice: with more, the lungs extend well above it
LUNG_BASE_MM = 120.0  # distance of the axilla from the lower end of the lungs
MIN_BREADTH_MM = 170.0  # of a chest: 225 to 259 in nine patients; one lung and a part of the other are narrower
MIN_DEPTH_MM = 50.0  # of a chest: 150 to 223 in nine patients


@dataclass(frozen=True, slots=True)
class Edge:
    """The outermost pixels of the field of view as masks (rows, columns), one for each side."""

    right: Mask
    left: Mask
    front: Mask
    back: Mask

    @classmethod
    def of(cls, view: Mask) -> Edge:
        """Return the edge of a field of view, split into its sides."""
        edge = view & ~ndimage.binary_erosion(view)
        rows, columns = view.shape
        y, x = np.ogrid[:rows, :columns]
        down, across = (2 * y + 1 - rows) / rows, (2 * x + 1 - columns) / columns
        # The lateral edge of a circle lies beside the chest; that of a square is its first and last column.
        beside = edge & np.where(
            (y == 0) | (y == rows - 1), np.abs(across) >= np.abs(down), np.abs(across) >= 0.5 * np.abs(down)
        )
        along = edge & ~beside
        return cls(beside & (across < 0), beside & (across >= 0), along & (down < 0), along & (down >= 0))

    def lateral(self, side: Side) -> Mask:
        """Return the edge lateral to one axilla."""
        return self.right if side is Side.RIGHT else self.left


@dataclass(frozen=True, slots=True)
class Sight:
    """Where the images end within the chest. Measurements from a chest wall outside the images are wrong.

    Attributes:
        edge: of the field of view.
        cut: slices in which the chest reaches the edge, shape (4, z): right, left, front, back; of the searched height.
        height: number of slices of the searched height that show lung.
        gap: slices without lungs lie between slices with lungs: the lungs are open to the edge there, and their border was not found.
        narrow: the chest is deeper than broad, or not much broader than one lung: a part of the lungs may be mistaken for both.
        shallow: the images end at the front or back so that less than 50 mm of the depth of the chest are left.
        open_top: the uppermost slice lies within the searched height.
        open_bottom: the lowest slice lies within the searched height.
        base: the uppermost slice is so near to the lower end of the lungs that the series shows no axilla.
    """

    edge: Edge
    cut: npt.NDArray[np.bool_]
    height: int
    gap: bool
    narrow: bool
    shallow: bool
    open_top: bool
    open_bottom: bool
    base: bool

    @classmethod
    def of(
        cls,
        thorax: Mask,
        lungs: Mask,
        view: Mask,
        spacing: tuple[float, float, float],
        searched_mm: tuple[float, float],
    ) -> Sight:
        """Return where the chest reaches the edge of the images.

        Args:
            thorax: hull of the lungs (z, y, x), canonical orientation; one lung mirrored where the other is missing.
            lungs: the lungs themselves.
            view: the field of view (y, x).
            spacing: of these grids, mm.
            searched_mm: height above and below the lung apex, the highest slice of ``thorax``, that is searched for nodes.
        """
        edge = Edge.of(view)
        dz, dy, dx = spacing
        seen = np.flatnonzero(thorax.any(axis=(1, 2)))
        apex = int(seen[-1])
        lowest = apex - round(searched_mm[1] / dz)
        part = thorax[max(0, lowest) : apex + 1]
        cut = np.zeros((4, len(thorax)), dtype=bool)
        cut[:, max(0, lowest) : apex + 1] = [touches(part, mask) for mask in (edge.right, edge.left, edge.front, edge.back)]
        # A lung that the edge cuts off is mirrored too: then only the visible lungs show how broad the chest is.
        shown = part & lungs[max(0, lowest) : apex + 1] if cut[:2].any() else part
        breadth, depth = (np.ptp(np.flatnonzero(mask.any(axis=axes))) + 1 for mask, axes in ((shown, (0, 1)), (part, (0, 2))))
        area = thorax[apex].sum() * dy * dx / 2
        above = len(thorax) - 1 - apex
        base = above == 0 and area > OPEN_TOP_MM2 and seen[0] > 0 and (apex - seen[0]) * dz < LUNG_BASE_MM
        searched = seen[seen >= lowest]
        return cls(
            edge,
            cut,
            len(searched),
            len(searched) < apex + 1 - max(searched[0], lowest),
            bool(breadth * dx < max(depth * dy, MIN_BREADTH_MM)),
            bool(cut[2:].any() and depth * dy < MIN_DEPTH_MM),
            round(above * dz, 3) < searched_mm[0],
            lowest < 0,
            bool(base),
        )

    @property
    def landmarks(self) -> bool:
        """Whether apex, midline, breadth and depth of the chest are within the images.

        Breadth and depth are those of the searched height: in a series that shows less of it, they and the levels would change.
        """
        return not (self.open_top or self.open_bottom or self.narrow or self.gap or bool(self.cut.any()))

    def wall_cut(self, side: Side) -> npt.NDArray[np.bool_]:
        """Return the slices (z,) in which the chest wall of one side lies outside the images."""
        slices: npt.NDArray[np.bool_] = self.cut[0 if side is Side.RIGHT else 1]
        return slices


def touches(zone: Mask, edge: Mask) -> npt.NDArray[np.bool_]:
    """Return for each slice (z,) whether a zone reaches an edge."""
    return np.asarray((zone & edge).any(axis=(1, 2)))
