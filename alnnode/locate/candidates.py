"""Candidates: compact pieces of soft tissue in axillary fat, several readings of each place, before any scoring.

A node that touches a muscle or a vessel separates at a higher threshold, after an opening or at a watershed; a node with a
fatty hilum is whole only when its notch is filled. Which reading is right is left to the scorer, so proposals overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.segmentation import watershed

from alnnode.locate import anatomy
from alnnode.locate.axilla_extent import LEAST, axillary
from alnnode.locate.candidate_shape import describe, fat_contacts, filled_notch
from alnnode.locate.distances import around, depth_of, thicker, within
from alnnode.locate.grid import resample

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy.typing as npt

    from alnnode.locate.anatomy import Axilla
    from alnnode.locate.axillary_level import Landmarks
    from alnnode.locate.chest_anatomy import Site
    from alnnode.locate.grid import Coarse, FloatVolume, Frame, Mask
    from alnnode.records import AxillaCoverage, Side

    Labels = npt.NDArray[np.int32]

GRID_MM = 1.0
MARGIN_MM = 18.0  # around the search region: the scorer's patch and the whole of a node at its edge
THRESHOLDS_HU = (-62.0, -20.0, 15.0)  # hila and thin cortices; half way from fat to a node; above strands and partial volume
SHELL_HU = -55.0  # a cortex of 1 mm, blurred
SHELL_MM = 2.5  # half of what is no longer a thin cortex
HILUM_MM = 4.0  # half the width of a hilum that is closed over
NEAR_STEPS = 8  # grid steps around the search region in which tissue is taken apart
ROOM_STEPS = 7  # around that: what filters and closings reach
MIN_VOLUME_MM3 = 30.0  # a 4 mm sphere has 33
MAX_VOLUME_MM3 = 22000.0  # a 35 mm sphere
MAX_ELONGATION = 2.6  # of principal extents: a vessel is a tube
MAX_FLATNESS = 3.2  # a muscle end is a plate
MIN_FILL = 0.4  # of the ellipsoid: a tangle of strands fills little
MIN_FAT_CONTACT = 0.45
CLEAR_CONTACT = 0.6  # of what may have a hilum that opens into fat
FAT_BELOW_HU = -40.0
FAT_BOX_MM = 25
MIN_FAT = 0.2  # of the box around a candidate
BRIGHT_HU = 170.0  # above: contrast in vessels, bone
METAL_HU = 280.0  # above dense contrast in veins; the grid holds at most 300
MOST_METAL = 0.05  # of a reading and the grid points beside it
SAME_READING = 0.85  # overlap (intersection over union) of two readings that count as one


@dataclass(frozen=True, slots=True)
class SearchGrid:
    """The surroundings of one axilla on an isotropic grid of `GRID_MM`, canonical orientation.

    Attributes:
        hu: (z, y, x) float32.
        smooth: ``hu`` slightly smoothed: what thresholds are applied to.
        region: the search region on the same grid.
        edge: outside the field of view or less than 5 mm inside it: what reaches there is cut off.
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
        """Where its points lie in the chest (`alnnode.locate.axillary_level.Landmarks.ramps`), shape (3, 2)."""
        z, y, x = (GRID_MM / d for d in self.frame.spacing)
        return self.landmarks.ramps(self.start, (z, y, x), left=self.side == "left")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One reading of one place.

    Attributes:
        mask: (z, y, x) on the search grid, cut to its bounding box.
        offset: grid point of ``mask[0, 0, 0]``.
        threshold: HU at which it was read.
    """

    grid: SearchGrid
    mask: Mask
    offset: tuple[int, int, int]
    threshold: float

    @property
    def volume_mm3(self) -> float:
        """Volume of the mask."""
        return float(self.mask.sum()) * GRID_MM**3

    @property
    def centre(self) -> tuple[float, float, float]:
        """Centre of gravity on the search grid."""
        z, y, x = (float(o + c) for o, c in zip(self.offset, ndimage.center_of_mass(self.mask), strict=True))
        return z, y, x

    @property
    def place(self) -> npt.NDArray[np.float64]:
        """Where it lies between the landmarks (`alnnode.locate.axillary_level`)."""
        grid = self.grid
        z, y, x = (s + c * GRID_MM / d for s, c, d in zip(grid.start, self.centre, grid.frame.spacing, strict=True))
        return grid.landmarks.place(z, y, x)

    def overlap(self, other: Candidate) -> int:
        """Number of grid points that both masks hold."""
        low = [max(a, b) for a, b in zip(self.offset, other.offset, strict=True)]
        high = [
            min(a + m, b + n) for a, m, b, n in zip(self.offset, self.mask.shape, other.offset, other.mask.shape, strict=True)
        ]
        if self.grid.side is not other.grid.side or any(h <= o for o, h in zip(low, high, strict=True)):
            return 0
        mine = self.mask[tuple(slice(a - o, b - o) for o, a, b in zip(self.offset, low, high, strict=True))]
        theirs = other.mask[tuple(slice(a - o, b - o) for o, a, b in zip(other.offset, low, high, strict=True))]
        return int(np.count_nonzero(mine & theirs))


def search_grids(site: Site) -> list[SearchGrid]:
    """The surroundings of each axilla that the series shows, right first; none where no lungs are seen."""
    if site.axillae is None or site.landmarks is None:
        return []
    frame, coarse, landmarks = site.frame, site.coarse, site.landmarks
    canonical = frame.canonical(site.volume.voxels)
    return [_search_grid(canonical, frame, coarse, axilla, landmarks) for axilla in site.axillae if axilla.mask.any()]


def coverage(site: Site) -> tuple[AxillaCoverage, AxillaCoverage]:
    """What the series shows of each axilla (right, left)."""
    if site.axillae is None:
        return anatomy.unseen()
    right, left = site.axillae
    return right.coverage, left.coverage


def _search_grid(
    canonical: npt.NDArray[np.int16], frame: Frame, coarse: Coarse, axilla: Axilla, landmarks: Landmarks
) -> SearchGrid:
    """Cut the axilla's surroundings out of the source and bring them to the isotropic grid."""
    start, stop = [], []
    for axis in range(3):
        used = np.flatnonzero(axilla.mask.any(axis=tuple(a for a in range(3) if a != axis)))
        margin = int(MARGIN_MM / frame.spacing[axis])
        start.append(max(0, int(used[0]) * coarse.step[axis] - margin))
        stop.append(min(canonical.shape[axis], (int(used[-1]) + 1) * coarse.step[axis] + margin))
    part = canonical[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
    clipped = np.clip(part, -200, 300).astype(np.float32)
    # Averaging over about one grid step before sampling: no aliasing of noise from finer pixels.
    sigma = [max(0.0, 0.4 * GRID_MM / d) for d in frame.spacing]
    hu = resample(ndimage.gaussian_filter(clipped, sigma, truncate=2.5), frame.spacing, GRID_MM)
    # The coarse voxel n covers step voxels from n * step on: its centre lies (step - 1) / 2 further (in plane).
    indices = [
        (np.arange(n) * GRID_MM / d + s) / step
        for n, d, s, step in zip(hu.shape, frame.spacing, start, coarse.step, strict=True)
    ]
    nearest = [np.clip(i.astype(int), 0, m - 1) for i, m in zip(indices, axilla.mask.shape, strict=True)]
    smooth = ndimage.gaussian_filter(hu, 0.5, truncate=3.0)
    fat = ((smooth > -160) & (smooth < FAT_BELOW_HU)).astype(np.float32)
    # Between shoulder muscles there are only planes of fat; the axilla is a space full of it.
    edge = np.broadcast_to(~anatomy.inner_field_of_view(coarse)[np.ix_(*nearest[1:])], hu.shape)
    region = axilla.mask[np.ix_(*nearest)] & (ndimage.uniform_filter(fat, int(FAT_BOX_MM / GRID_MM)) > MIN_FAT)
    grid = SearchGrid(axilla.side, hu, smooth, region, edge, (start[0], start[1], start[2]), frame, landmarks)
    below, depth = (at + by * np.arange(n) for (at, by), n in zip(grid.ramps[:2], hu.shape[:2], strict=True))
    region &= (axillary(below[:, None], depth[None]) > LEAST)[..., None]
    return grid


def read(grid: SearchGrid, where: Mask | None = None) -> list[Candidate]:
    """All distinct readings of one axilla, or of the places in it that ``where`` names (a mask on the same grid)."""
    places = grid.region if where is None else where & grid.region
    if not places.any():
        return []
    near = within(places, NEAR_STEPS)
    # What lies far apart is taken apart by itself: most of the box around an axilla is none of it.
    labels, _ = ndimage.label(near)
    found: list[Candidate] = []
    for number, inner in enumerate(ndimage.find_objects(labels), start=1):
        box = tuple(slice(max(0, s.start - ROOM_STEPS), s.stop + ROOM_STEPS) for s in inner)
        origin = (box[0].start, box[1].start, box[2].start)
        found += distinct(
            candidate
            for partition in _partitions(grid.hu[box], grid.smooth[box], labels[box] == number)
            for candidate in _pieces(grid, partition, origin)
        )
    return found


def distinct(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Leave out what is nearly the same as one before it."""
    kept: list[Candidate] = []
    for candidate in candidates:
        if not any(_same(candidate, other) for other in kept):
            kept.append(candidate)
    return kept


@dataclass(frozen=True, slots=True)
class Partition:
    """Soft tissue above a threshold, taken apart in one way."""

    threshold: float
    soft: Mask
    labels: Labels


def _partitions(hu: FloatVolume, smooth: FloatVolume, near: Mask) -> Iterator[Partition]:
    """Ways to take connected soft tissue apart: as it is, opened, by its thick cores, and at watersheds."""
    low, middle, high = THRESHOLDS_HU
    blurred = ndimage.gaussian_filter(hu, 1.1, truncate=2.5)
    for threshold, values in ((middle, smooth), (low, blurred), (high, smooth)):
        soft = (values > threshold) & (smooth < BRIGHT_HU)
        inside = soft & near
        yield Partition(threshold, soft, ndimage.label(inside)[0])
        yield Partition(threshold, soft, ndimage.label(ndimage.binary_opening(inside))[0])
        depth = depth_of(inside)
        if threshold == middle:
            yield Partition(threshold, soft, _cores(inside, depth))
        yield Partition(threshold, soft, _basins(inside, depth))
    yield from _shells(hu, smooth, near)


def _shells(hu: FloatVolume, smooth: FloatVolume, near: Mask) -> Iterator[Partition]:
    """Thin cortices around fat: closed over their hilum, away from what is thick by itself."""
    thick = _opened(smooth > THRESHOLDS_HU[1], SHELL_MM) & (smooth > THRESHOLDS_HU[1])
    faint = (ndimage.gaussian_filter(hu, 0.8, truncate=2.5) > SHELL_HU) & (smooth < BRIGHT_HU)
    apart = ~ndimage.binary_dilation(thick)
    closed = _closed(faint & apart & near, HILUM_MM) & apart & near
    soft = closed | thick | faint
    yield Partition(SHELL_HU, soft, ndimage.label(ndimage.binary_opening(closed))[0])
    yield Partition(SHELL_HU, soft, _basins(closed, depth_of(closed)))


def _opened(mask: Mask, radius: float) -> Mask:
    """Morphological opening by a ball, in grid steps."""
    return within(thicker(mask, radius), radius)


def _closed(mask: Mask, radius: float) -> Mask:
    """Morphological closing by a ball, in grid steps."""
    return thicker(within(mask, radius), radius) | mask


def _cores(soft: Mask, depth: FloatVolume) -> Labels:
    """Cores that survive an erosion by 2 mm, grown back within reach: a node on a muscle by a thin bridge."""
    core = depth > 2.0
    reach = soft & ndimage.binary_dilation(core, iterations=2)
    labels: Labels = watershed(-depth, ndimage.label(core)[0], mask=reach)
    return labels


def _basins(soft: Mask, depth: FloatVolume) -> Labels:
    """Watershed of the depth, a basin for every thick place."""
    smooth = ndimage.gaussian_filter(depth, 1.0, truncate=2.5)
    peaks = peak_local_max(smooth, min_distance=3, threshold_abs=1.2, exclude_border=False)
    markers = np.zeros(soft.shape, dtype=np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels: Labels = watershed(-smooth, markers, mask=soft)
    return labels


def _pieces(grid: SearchGrid, partition: Partition, origin: tuple[int, int, int]) -> Iterator[Candidate]:
    """The labelled pieces that could be nodes: size, place and fat around them are checked before anything dear.

    ``origin`` is the grid point at the partition's first voxel.
    """
    labels, soft = partition.labels, partition.soft
    part = tuple(slice(o, o + n) for o, n in zip(origin, labels.shape, strict=True))
    sizes = np.bincount(labels.ravel())
    inside = np.bincount(labels[grid.region[part]], minlength=len(sizes))
    contacts = fat_contacts(labels, soft, len(sizes))
    voxel = GRID_MM**3
    # Unfilled, the shell of a node with a large hilum may be a third of it.
    fits = (sizes * voxel >= MIN_VOLUME_MM3 / 2) & (sizes * voxel <= MAX_VOLUME_MM3) & (inside >= 0.5 * sizes)
    fits &= contacts >= MIN_FAT_CONTACT
    fits[labels[grid.edge[part]]] = False
    fits[0] = False
    boxes = ndimage.find_objects(labels)
    for label in np.flatnonzero(fits):
        box = boxes[label - 1]
        offset = (box[0].start + origin[0], box[1].start + origin[1], box[2].start + origin[2])
        mask = labels[box] == label
        shape = describe(mask)
        round_enough = shape.elongation <= MAX_ELONGATION and shape.flatness <= MAX_FLATNESS and shape.fill >= MIN_FILL
        if round_enough and not _surrounds_metal(grid.hu, mask, offset):
            candidate = Candidate(grid, mask, offset, partition.threshold)
            yield candidate
            if contacts[label] >= CLEAR_CONTACT and (whole := _with_hilum(candidate)):
                yield whole


def _surrounds_metal(hu: FloatVolume, mask: Mask, offset: tuple[int, int, int]) -> bool:
    """Whether a reading lies around a clip, a port or a marker: what is beside metal looks like soft tissue by blur and streaks."""
    box, own = around(mask, offset, 2, hu.shape)
    metal = hu[box] > METAL_HU
    return bool(metal.any() and metal[ndimage.binary_dilation(own, iterations=2)].mean() > MOST_METAL)


def _with_hilum(candidate: Candidate) -> Candidate | None:
    """The reading with its notch filled, where that makes a difference of a tenth."""
    grid, offset = candidate.grid, candidate.offset
    if candidate.threshold == max(THRESHOLDS_HU):
        return None
    box = tuple(slice(o, o + n) for o, n in zip(offset, candidate.mask.shape, strict=True))
    soft = grid.smooth[box] > candidate.threshold
    # A notch is fat: filling must not take in other soft tissue.
    filled = candidate.mask | (filled_notch(candidate.mask) & ~soft)
    if filled.sum() < 1.1 * candidate.mask.sum():
        return None
    return Candidate(grid, filled, offset, candidate.threshold)


def _same(one: Candidate, other: Candidate) -> bool:
    a, b = one.volume_mm3, other.volume_mm3
    if min(a, b) < SAME_READING * max(a, b):
        return False
    shared = one.overlap(other) * GRID_MM**3
    return shared > SAME_READING * (a + b - shared)
