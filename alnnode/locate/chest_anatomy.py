"""What is known of the chest of one series before any node: shared by all who ask, because it costs a second to find."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from alnnode.locate import anatomy
from alnnode.locate.axillary_level import Landmarks
from alnnode.locate.grid import Frame, coarsen

if TYPE_CHECKING:
    from alnnode.locate.anatomy import Axilla, Chest
    from alnnode.locate.grid import Coarse
    from alnnode.records import Volume


class Site:
    """The chest of one volume; each part is found when it is first asked for, and kept. Not for several threads at once.

    Attributes:
        volume: the series.
        frame: its canonical orientation.
    """

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self.frame = Frame.of(volume)

    @cached_property
    def coarse(self) -> Coarse:
        """The canonical volume on the coarse grid, that all below lies on."""
        return coarsen(self.frame.canonical(self.volume.voxels), self.frame.spacing)

    @cached_property
    def chest(self) -> Chest | None:
        """The chest; None when no lungs can be seen."""
        return anatomy.find_chest(self.coarse)

    @cached_property
    def axillae(self) -> tuple[Axilla, Axilla] | None:
        """Right and left; None without a chest."""
        return anatomy.find_axillae(self.coarse, self.chest) if self.chest else None

    @cached_property
    def landmarks(self) -> Landmarks | None:
        """What tells places in the chest; None without one."""
        return Landmarks(self.coarse, self.chest) if self.chest else None
