"""Candidates for lymph nodes: compact parts of soft tissue in axillary fat, several for each place, before any scoring.

A node that touches a muscle or a vessel separates from it at a higher threshold, after an opening or by a watershed. A node with a
fatty hilum is complete only when its notch is filled. The detector decides between the candidates, so they overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from alnnode.locate.candidate_shape import around, candidate_shape, fat_contacts, filled_notch
from alnnode.locate.distances import dilate, grown, mask_box, padded_box
from alnnode.locate.partitions import THRESHOLDS_HU, partitions
from alnnode.locate.search_grid import GRID_MM

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy.typing as npt

    from alnnode.locate.grid import FloatVolume, Mask
    from alnnode.locate.partitions import Labels, Partition
    from alnnode.locate.search_grid import SearchGrid

NEAR_STEPS = 8  # grid steps around the search region in which soft tissue is separated
ROOM_STEPS = 7  # grid steps around that which filters and closings need
MIN_VOLUME_MM3 = 30.0  # a 4 mm sphere has 33
MAX_VOLUME_MM3 = 22000.0  # a 35 mm sphere
MAX_ELONGATION = 2.6  # of principal extents: a vessel is a tube
MAX_FLATNESS = 3.2  # the end of a muscle is a plate
MIN_FILL = 0.4  # of the ellipsoid: a tangle of strands fills little
MIN_FAT_CONTACT = 0.45
CLEAR_CONTACT = 0.6  # least fat contact of a candidate whose notch may be a hilum
METAL_HU = 280.0  # above dense contrast medium in veins; the grid is clipped at 300
MAX_METAL = 0.05  # largest share of metal in a candidate and the grid points beside it
SAME_CANDIDATE = 0.85  # intersection over union above which two candidates are duplicates


@dataclass(frozen=True, slots=True)
class Candidate:
    """Soft tissue that may be a node; several candidates may cover one place.

    Attributes:
        mask: (z, y, x) on the search grid, cut to its bounding box.
        offset: grid point of ``mask[0, 0, 0]``.
        threshold: HU above which its soft tissue was separated.
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
        """Its position relative to the landmarks (`alnnode.locate.axillary_level.Landmarks.place`)."""
        grid = self.grid
        z, y, x = (s + c * GRID_MM / d for s, c, d in zip(grid.start, self.centre, grid.frame.spacing, strict=True))
        return grid.landmarks.place(z, y, x)

    def overlap(self, other: Candidate) -> int:
        """Return the number of grid points that both masks share."""
        low = [max(a, b) for a, b in zip(self.offset, other.offset, strict=True)]
        high = [
            min(a + m, b + n) for a, m, b, n in zip(self.offset, self.mask.shape, other.offset, other.mask.shape, strict=True)
        ]
        if self.grid.side is not other.grid.side or any(h <= o for o, h in zip(low, high, strict=True)):
            return 0
        mine = self.mask[tuple(slice(a - o, b - o) for o, a, b in zip(self.offset, low, high, strict=True))]
        theirs = other.mask[tuple(slice(a - o, b - o) for o, a, b in zip(other.offset, low, high, strict=True))]
        return int(np.count_nonzero(mine & theirs))


def propose_candidates(grid: SearchGrid, where: Mask | None = None) -> list[Candidate]:
    """Return all distinct candidates of one axilla, or of the places that the mask ``where`` (on the same grid) selects."""
    places = grid.region if where is None else where & grid.region
    if not places.any():
        return []
    part = mask_box(places, NEAR_STEPS)
    # Each connected region is separated on its own: most of the box around an axilla is not searched.
    labels, _ = ndimage.label(dilate(places[part], NEAR_STEPS))
    found: list[Candidate] = []
    for number, inner in enumerate(ndimage.find_objects(labels), start=1):
        first = [p.start + s.start for p, s in zip(part, inner, strict=True)]
        box, near = padded_box(labels[inner] == number, first, ROOM_STEPS, places.shape)
        found += _distinct(
            candidate
            for partition in partitions(grid.hu[box], grid.smooth[box], near)
            for candidate in _candidates(grid, partition, [b.start + s.start for b, s in zip(box, partition.box, strict=True)])
        )
    return found


def _distinct(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return the candidates without near duplicates of earlier ones."""
    kept: list[Candidate] = []
    sizes: list[int] = []
    for candidate in candidates:
        size = int(np.count_nonzero(candidate.mask))
        # Sizes are counted once: most pairs differ in size, and their masks are then not compared.
        similar = (n for n, other in enumerate(sizes) if min(size, other) >= SAME_CANDIDATE * max(size, other))
        if not any(_overlap_share(candidate.overlap(kept[n]), size, sizes[n]) > SAME_CANDIDATE for n in similar):
            kept.append(candidate)
            sizes.append(size)
    return kept


def _candidates(grid: SearchGrid, partition: Partition, origin: Sequence[int]) -> Iterator[Candidate]:
    """Yield the parts of a partition that could be nodes. Size, place and surrounding fat are checked first, because that is fast.

    ``origin`` is the grid point at the partition's first voxel.
    """
    labels = partition.labels
    part = tuple(slice(o, o + n) for o, n in zip(origin, labels.shape, strict=True))
    points = np.flatnonzero(labels != 0)
    own = labels.reshape(-1)[points]
    sizes = np.bincount(own)
    inside = np.bincount(own[grid.region[part].reshape(-1)[points]], minlength=len(sizes))
    voxel = GRID_MM**3
    # Without its hilum, the shell of a node may be a third of its volume.
    fits = (sizes * voxel >= MIN_VOLUME_MM3 / 2) & (sizes * voxel <= MAX_VOLUME_MM3) & (inside >= 0.5 * sizes)
    fits[own[grid.edge[part].reshape(-1)[points]]] = False
    points = points[fits[own]]
    contacts = fat_contacts(labels, partition.soft, points, len(sizes))
    fits &= contacts >= MIN_FAT_CONTACT
    for label, box in _boxes(labels, points, fits):
        offset = (box[0].start + origin[0], box[1].start + origin[1], box[2].start + origin[2])
        mask = labels[box] == label
        shape = candidate_shape(mask)
        round_enough = shape.elongation <= MAX_ELONGATION and shape.flatness <= MAX_FLATNESS and shape.fill >= MIN_FILL
        if round_enough and not surrounds_metal(grid.hu, mask, offset):
            candidate = Candidate(grid, mask, offset, partition.threshold)
            yield candidate
            if contacts[label] >= CLEAR_CONTACT and (filled := _with_hilum(candidate)):
                yield filled


def _boxes(
    labels: Labels, points: npt.NDArray[np.intp], chosen: npt.NDArray[np.bool_]
) -> Iterator[tuple[int, tuple[slice, ...]]]:
    """Yield each chosen label, in ascending order, with its box; ``points`` are flat indices of all its voxels."""
    own = labels.reshape(-1)[points]
    points, own = points[chosen[own]], own[chosen[own]]
    order = np.argsort(own, kind="stable")
    firsts = np.flatnonzero(np.diff(own[order], prepend=0))
    places = np.unravel_index(points[order], labels.shape)
    if firsts.size:
        low = [np.minimum.reduceat(place, firsts) for place in places]
        high = [np.maximum.reduceat(place, firsts) for place in places]
        for n, label in enumerate(own[order[firsts]]):
            yield int(label), tuple(slice(int(a[n]), int(b[n]) + 1) for a, b in zip(low, high, strict=True))


def surrounds_metal(hu: FloatVolume, mask: Mask, offset: tuple[int, int, int]) -> bool:
    """Return whether a candidate surrounds a clip, a port or a marker: beside metal, blur and streaks look like soft tissue."""
    box, own = padded_box(mask, offset, 2, hu.shape)
    metal = hu[box] > METAL_HU
    return bool(metal.any() and metal[grown(grown(own))].mean() > MAX_METAL)


def _with_hilum(candidate: Candidate) -> Candidate | None:
    """Return the candidate with its notch filled; None where that adds less than a tenth."""
    grid, offset = candidate.grid, candidate.offset
    if candidate.threshold == max(THRESHOLDS_HU):
        return None
    box = tuple(slice(o, o + n) for o, n in zip(offset, candidate.mask.shape, strict=True))
    mask, least = candidate.mask, 1.1 * candidate.mask.sum()
    # A notch holds fat: other soft tissue must not be added. Most candidates have too little room for a notch, as have most slices.
    room = around(mask) & ~mask & (grid.smooth[box] <= candidate.threshold)
    if np.count_nonzero(room) + np.count_nonzero(mask) < least:
        return None
    filled, slices = mask.copy(), room.any(axis=(1, 2))
    filled[slices] |= filled_notch(mask[slices]) & room[slices]
    if filled.sum() < least:
        return None
    return Candidate(grid, filled, offset, candidate.threshold)


def _overlap_share(shared: int, one: int, other: int) -> float:
    """Return the intersection over union of two masks with ``one`` and ``other`` points, of which they share ``shared``."""
    return shared / (one + other - shared)
