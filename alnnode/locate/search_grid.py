"""The surroundings of one axilla, resampled to an isotropic grid: the input of the detector and of the candidate search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from alnnode.locate.anatomy import inner_field_of_view
from alnnode.locate.axilla_extent import LEAST, axillary
from alnnode.locate.both_sides import on_both_sides
from alnnode.locate.grid import resample

if TYPE_CHECKING:
    import numpy.typing as npt

    from alnnode.locate.axillary_level import Landmarks
    from alnnode.locate.chest import Axilla
    from alnnode.locate.chest_anatomy import ChestAnatomy
    from alnnode.locate.grid import Coarse, FloatVolume, Frame, Mask
    from alnnode.records import Side

GRID_MM = 1.0
MARGIN_MM = 18.0  # around the search region: the input patch of the network, and nodes at the edge in full
FAT_BELOW_HU = -40.0
FAT_BOX_MM = 25
MIN_FAT = 0.2  # share of fat in the box around a searched grid point


@dataclass(frozen=True, slots=True)
class SearchGrid:
    """The surroundings of one axilla on an isotropic grid of `GRID_MM`, canonical orientation.

    Attributes:
        hu: (z, y, x) float32.
        smooth: ``hu`` slightly smoothed; thresholds are applied to it.
        region: the search region on the same grid.
        edge: outside the field of view or less than 5 mm inside it: a structure that reaches it is cut off.
        start: canonical voxel (z, y, x) of the source at grid point (0, 0, 0).
        frame: canonical orientation and spacing of the source.
        landmarks: of the chest.
    """

    side: Side
    hu: FloatVolume
    smooth: FloatVolume
    region: Mask
    edge: Mask
    start: tuple[int, int, int]
    frame: Frame
    landmarks: Landmarks

    @property
    def ramps(self) -> npt.NDArray[np.float64]:
        """Positions of its points relative to the landmarks (`alnnode.locate.axillary_level.Landmarks.ramps`), shape (3, 2)."""
        z, y, x = (GRID_MM / d for d in self.frame.spacing)
        return self.landmarks.ramps(self.start, (z, y, x), left=self.side == "left")


def search_grids(anatomy: ChestAnatomy) -> list[SearchGrid]:
    """Return the surroundings of each axilla that the series shows, right first; none when no lungs are found."""
    if anatomy.axillae is None or anatomy.landmarks is None:
        return []
    frame, coarse, landmarks = anatomy.frame, anatomy.coarse, anatomy.landmarks
    canonical = frame.canonical(anatomy.volume.voxels)
    shown = [axilla for axilla in anatomy.axillae if axilla.mask.any()]
    return on_both_sides(lambda axilla: _search_grid(canonical, frame, coarse, axilla, landmarks), shown)


def _search_grid(
    canonical: npt.NDArray[np.int16], frame: Frame, coarse: Coarse, axilla: Axilla, landmarks: Landmarks
) -> SearchGrid:
    """Return the surroundings of one axilla on the isotropic grid."""
    start, stop = [], []
    for axis in range(3):
        used = np.flatnonzero(axilla.mask.any(axis=tuple(a for a in range(3) if a != axis)))
        margin = int(MARGIN_MM / frame.spacing[axis])
        start.append(max(0, int(used[0]) * coarse.step[axis] - margin))
        stop.append(min(canonical.shape[axis], (int(used[-1]) + 1) * coarse.step[axis] + margin))
    part = canonical[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
    clipped = np.clip(part, -200, 300, dtype=np.float32)
    # A filter of about one grid step before sampling avoids aliasing of the noise of finer pixels.
    sigma = [max(0.0, 0.4 * GRID_MM / d) for d in frame.spacing]
    hu = resample(ndimage.gaussian_filter(clipped, sigma, truncate=2.5, output=clipped), frame.spacing, GRID_MM)
    # The coarse voxel n covers the source voxels n * step to (n + 1) * step - 1; its centre lies (step - 1) / 2 further (in plane).
    indices = [
        (np.arange(n) * GRID_MM / d + s) / step
        for n, d, s, step in zip(hu.shape, frame.spacing, start, coarse.step, strict=True)
    ]
    nearest = [np.clip(i.astype(int), 0, m - 1) for i, m in zip(indices, axilla.mask.shape, strict=True)]
    smooth = ndimage.gaussian_filter(hu, 0.5, truncate=3.0)
    fat = ((smooth > -160) & (smooth < FAT_BELOW_HU)).astype(np.float32)
    # The axilla is a space full of fat; between the shoulder muscles are only thin layers of it.
    edge = np.broadcast_to(~inner_field_of_view(coarse)[np.ix_(*nearest[1:])], hu.shape)
    region = axilla.mask[np.ix_(*nearest)] & (ndimage.uniform_filter(fat, int(FAT_BOX_MM / GRID_MM)) > MIN_FAT)
    grid = SearchGrid(axilla.side, hu, smooth, region, edge, (start[0], start[1], start[2]), frame, landmarks)
    below, depth = (at + by * np.arange(n) for (at, by), n in zip(grid.ramps[:2], hu.shape[:2], strict=True))
    region &= (axillary(below[:, None], depth[None]) > LEAST)[..., None]
    return grid
