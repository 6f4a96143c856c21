"""A real CT with what all implantations into it share: its axillae, its smoothed voxels and its measured properties."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alnnode.locate import anatomy
from alnnode.locate.blood_pool import blood_pool_hu
from alnnode.locate.grid import Frame, coarsen
from training.data import ct_properties
from training.data.drawn_nodes import smooth_ct

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.locate.chest import Chest
    from alnnode.locate.grid import Coarse
    from alnnode.records import FloatArray, HounsfieldArray, Side, Volume

    Region = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PreparedCt:
    """A CT with its axillae and properties.

    Attributes:
        frame: the canonical orientation of the source.
        hu: canonical (z, y, x).
        smooth: `training.data.drawn_nodes.smooth_ct` of it.
        regions: the voxels (N, 3) of the search region of each side, one for each coarse grid point.
        measured: the properties that implanted nodes share.
        blood_hu: attenuation of the blood in heart and great vessels; None when the images show too little of them.
    """

    frame: Frame
    hu: HounsfieldArray
    smooth: FloatArray
    regions: list[tuple[Side, Region]]
    measured: ct_properties.CtProperties
    blood_hu: float | None

    @classmethod
    def from_volume(cls, source: Volume) -> PreparedCt:
        """Find the axillae of a CT and measure its properties; this takes seconds, an implantation a fraction of a second."""
        frame = Frame.of(source)
        hu = np.ascontiguousarray(frame.canonical(source.voxels))
        coarse = coarsen(hu, frame.spacing)
        chest = anatomy.find_chest(coarse)
        smooth = smooth_ct(hu.astype(np.float32), frame.spacing)
        if chest is None:
            return cls(frame, hu, smooth, [], ct_properties.UNKNOWN_CT, None)
        measured = ct_properties.measure_ct(hu, smooth, frame.spacing, coarse, chest)
        return cls(frame, hu, smooth, _regions(coarse, chest), measured, blood_pool_hu(coarse, chest))


def _regions(coarse: Coarse, chest: Chest) -> list[tuple[Side, Region]]:
    return [
        (axilla.side, np.argwhere(axilla.mask) * np.array(coarse.step))
        for axilla in anatomy.find_axillae(coarse, chest)
        if axilla.mask.any()
    ]
