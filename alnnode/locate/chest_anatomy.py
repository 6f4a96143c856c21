"""The anatomy of the chest in one series, shared by the search, the reader's marks and the follow-up, because it takes a second to find."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from scipy import ndimage

from alnnode.locate import anatomy
from alnnode.locate.axillary_level import Landmarks
from alnnode.locate.blood_pool import blood_pool_hu
from alnnode.locate.coverage import nothing_shown
from alnnode.locate.grid import Frame, coarsen
from alnnode.records import Side

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from alnnode.locate.axillary_level import LevelModel
    from alnnode.locate.chest import Axilla, Chest
    from alnnode.locate.grid import Coarse, Mask
    from alnnode.records import AxillaCoverage, Level, Volume

    Position = tuple[float, float, float]  # voxel coordinates (k, j, i)

SURROUNDINGS_MM = 25.0  # around the search region: a marked node there still counts as axillary


class ChestAnatomy:
    """The chest of one volume. Each part is computed on first use and stored. Not safe for use by several threads at once.

    Attributes:
        volume: the series.
        frame: its canonical orientation.
    """

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self.frame = Frame.of(volume)

    @cached_property
    def coarse(self) -> Coarse:
        """The canonical volume on the coarse grid, which all masks below share."""
        return coarsen(self.frame.canonical(self.volume.voxels), self.frame.spacing)

    @cached_property
    def chest(self) -> Chest | None:
        """The chest; None when no lungs are found."""
        return anatomy.find_chest(self.coarse)

    @cached_property
    def axillae(self) -> tuple[Axilla, Axilla] | None:
        """Right and left axilla; None without a chest."""
        return anatomy.find_axillae(self.coarse, self.chest) if self.chest else None

    @cached_property
    def landmarks(self) -> Landmarks | None:
        """The landmarks that positions are described by; None without a chest."""
        return Landmarks(self.coarse, self.chest) if self.chest else None

    @cached_property
    def blood_hu(self) -> float | None:
        """Attenuation of the blood in heart and great vessels, HU; None when the images show too little of them."""
        return blood_pool_hu(self.coarse, self.chest) if self.chest else None

    @property
    def coverage(self) -> tuple[AxillaCoverage, AxillaCoverage]:
        """How much of each axilla the series shows (right, left)."""
        if self.axillae is None:
            return nothing_shown()
        right, left = self.axillae
        return right.coverage, left.coverage

    def side(self, position: Position) -> Side:
        """Return the side of the body: of the midline between the lungs, or of the middle of the images when no lungs are found."""
        _, _, x = self.frame.canonical_position(position, self.volume.voxels.shape)
        columns = self.frame.canonical(self.volume.voxels).shape[2]
        middle = self.chest.midline * self.coarse.step[2] if self.chest else (columns - 1) / 2
        return Side.RIGHT if x < middle else Side.LEFT

    def is_axillary(self, position: Position) -> bool:
        """Return whether a position lies in an axilla or within `SURROUNDINGS_MM` of one; True when no lungs are found."""
        near = self._axillae_and_surroundings
        if near is None:
            return True
        canonical = self.frame.canonical_position(position, self.volume.voxels.shape)
        place = [int(c / s) for c, s in zip(canonical, self.coarse.step, strict=True)]
        return bool(near[tuple(min(p, n - 1) for p, n in zip(place, near.shape, strict=True))])

    def level(self, model: LevelModel, position: Position) -> Level | None:
        """Return the axillary level of a position; None when it cannot be determined."""
        if self.landmarks is None:
            return None
        canonical = self.frame.canonical_position(position, self.volume.voxels.shape)
        return self.level_of(model, self.side(position), self.landmarks.place(*canonical))

    def level_of(self, model: LevelModel, side: Side, place: npt.NDArray[np.float64]) -> Level | None:
        """Return the axillary level of a place of `Landmarks.place`; None when it cannot be determined.

        It is not determined in an axilla that the side of the image cuts off: the images do not show the arm, whose position moves the
        pectoral muscles and the nodes against the rib cage.
        """
        if self.landmarks is None or self.axillae is None:
            return None
        cut = any(axilla.cut_at_side for axilla in self.axillae if axilla.side is side)
        return None if cut else self.landmarks.level(model, place)

    @cached_property
    def _axillae_and_surroundings(self) -> Mask | None:
        if self.axillae is None:
            return None
        right, left = self.axillae
        near: Mask = ndimage.distance_transform_edt(~(right.mask | left.mask), self.coarse.spacing) <= SURROUNDINGS_MM
        return near
