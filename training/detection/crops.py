"""Crops of axillae of real CT as the detector sees them: 1 mm grid, search region, and the marks of two readers.

Crops are stored compressed (steps of `STEP_HU`, differences along the slices, LZMA), so that those of a few dozen series fit on any
training machine. Left axillae are mirrored, so that training sees one side only.
"""

from __future__ import annotations

import io
import lzma
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from alnnode.locate.candidates import propose_candidates
from alnnode.locate.detector import mirrored_ramps
from alnnode.locate.measure import axes_mm
from alnnode.locate.search_grid import GRID_MM, search_grids
from alnnode.records import Side
from training.detection.reference import READERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from alnnode.locate.candidates import Candidate
    from alnnode.locate.chest_anatomy import ChestAnatomy
    from alnnode.locate.grid import Mask
    from alnnode.locate.search_grid import SearchGrid
    from training.detection.reference import MarkedPlace, Reference

STEP_HU = 6.0  # below the noise of every CT
LOW_HU, HIGH_HU = -200.0, 300.0
WORST_FIT = 1.0  # highest cost of a candidate that fits a mark; without one, a ball of the short axis represents the node


@dataclass(frozen=True, slots=True)
class AxillaCrop:
    """One axilla; (z, y, x) grid points of 1 mm, rows to the back, columns to the patient's side (left axillae mirrored).

    Attributes:
        case: name of the patient, as in the marks; a network trained on it is never evaluated on it.
        side: of the patient.
        hu: float32, clipped to `LOW_HU` … `HIGH_HU`.
        region: the search region.
        ramps: (3, 2), position of its points in the chest (`alnnode.locate.axillary_level.Landmarks.ramps`).
        nodes: uint8 labels of the nodes that both readers marked: the masks of the best candidates (`best_candidate`).
        uncertain: (n, 4) centre, and half the long axis plus 3 mm, of places that are neither node nor background.
        structures: (n, 3) centres of structures that are certainly not nodes.
        thickness_mm: slice distance of the source.
    """

    case: str
    side: Side
    hu: npt.NDArray[np.float32]
    region: Mask
    ramps: npt.NDArray[np.float64]
    nodes: npt.NDArray[np.uint8]
    uncertain: npt.NDArray[np.float32]
    structures: npt.NDArray[np.float32]
    thickness_mm: float

    def to_bytes(self) -> bytes:
        """Return the crop in its compressed form."""
        steps = np.rint((self.hu - LOW_HU) / STEP_HU).astype(np.uint8)
        stored = io.BytesIO()
        np.savez(
            stored,
            case=np.array(self.case),
            side=np.array(self.side.value),
            steps=np.diff(steps, axis=0, prepend=np.uint8(0)),
            region=np.packbits(self.region),
            ramps=self.ramps,
            nodes=self.nodes,
            uncertain=self.uncertain,
            structures=self.structures,
            thickness_mm=np.array(self.thickness_mm),
        )
        return lzma.compress(stored.getvalue(), preset=4)

    @classmethod
    def from_bytes(cls, data: bytes) -> AxillaCrop:
        """Return the crop that `to_bytes` compressed.

        Raises:
            ValueError, KeyError, lzma.LZMAError: the data are not a compressed crop.
        """
        with np.load(io.BytesIO(lzma.decompress(data)), allow_pickle=False) as stored:
            steps = np.cumsum(stored["steps"], axis=0, dtype=np.uint8)
            region = np.unpackbits(stored["region"], count=steps.size).reshape(steps.shape).astype(bool)
            return cls(
                str(stored["case"]),
                Side(str(stored["side"])),
                steps.astype(np.float32) * np.float32(STEP_HU) + np.float32(LOW_HU),
                region,
                stored["ramps"],
                stored["nodes"],
                stored["uncertain"],
                stored["structures"],
                float(stored["thickness_mm"]),
            )


def truth_on(grid: SearchGrid, labels: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    """Return the true labels at the points of a search grid (nearest voxel)."""
    canonical = grid.frame.canonical(labels)
    index = [
        np.clip(np.rint(s + np.arange(n) * GRID_MM / d).astype(int), 0, m - 1)
        for s, n, d, m in zip(grid.start, grid.hu.shape, grid.frame.spacing, canonical.shape, strict=True)
    ]
    found: npt.NDArray[np.uint16] = canonical[np.ix_(*index)]
    return found


def cut(site: ChestAnatomy, case: str, reference: Reference) -> list[AxillaCrop]:
    """Return the crops of both axillae of a series with the marks of the readers.

    Args:
        site: chest of the series.
        case: name of the patient.
        reference: marks on the same series, counted in the slice order of the volume.
    """
    return [_crop(site, case, reference, grid, propose_candidates(grid)) for grid in search_grids(site)]


def _crop(site: ChestAnatomy, case: str, reference: Reference, grid: SearchGrid, candidates: Sequence[Candidate]) -> AxillaCrop:
    mirrored = grid.side is Side.LEFT
    nodes = np.zeros(grid.hu.shape, np.uint8)
    # Nodes that both readers call possible are not evaluated. Most of them are nodes, so they are used for training.
    likely = [mark for mark in reference.uncertain if mark.readers == len(READERS)]
    for number, (mark, at) in enumerate(_inside(site, grid, [*reference.nodes, *likely]), start=1):
        best = best_candidate(mark, at, candidates)
        if best is None:
            nodes[ball(grid.hu.shape, at, max(mark.short_mm, 4.0) / 2)] = number
        else:
            box = tuple(slice(o, o + n) for o, n in zip(best.offset, best.mask.shape, strict=True))
            # A candidate may contain more than the node, such as a vessel at its pole: voxels beyond half the long axis are excluded.
            near = np.zeros(nodes.shape, dtype=bool)
            near[ball(nodes.shape, at, max(mark.long_mm / 2 + 1, mark.short_mm))] = True
            nodes[box][best.mask & near[box]] = number
    uncertain = [[*at, mark.long_mm / 2 + 3] for mark, at in _inside(site, grid, reference.uncertain) if mark not in likely]
    structures = [list(at) for _, at in _inside(site, grid, reference.structures)]
    places = [np.array(rows, np.float32).reshape(-1, width) for rows, width in ((uncertain, 4), (structures, 3))]
    hu, region, ramps = np.clip(grid.hu, LOW_HU, HIGH_HU), grid.region, grid.ramps
    if mirrored:
        ramps = mirrored_ramps(ramps, hu.shape[2])
        hu, region, nodes = hu[..., ::-1], region[..., ::-1], nodes[..., ::-1]
        for rows in places:
            rows[:, 2] = grid.hu.shape[2] - 1 - rows[:, 2]
    return AxillaCrop(
        case,
        grid.side,
        np.ascontiguousarray(hu),
        np.ascontiguousarray(region),
        ramps,
        np.ascontiguousarray(nodes),
        places[0],
        places[1],
        reference.spacing[0],
    )


def _inside(
    site: ChestAnatomy, grid: SearchGrid, marks: Sequence[MarkedPlace]
) -> list[tuple[MarkedPlace, npt.NDArray[np.float64]]]:
    """Return the marks whose centre lies on the grid, with their grid points."""
    placed = [(mark, grid_point(site, grid, mark.centre)) for mark in marks]
    return [(mark, at) for mark, at in placed if (at >= 0).all() and (at < grid.hu.shape).all()]


def grid_point(site: ChestAnatomy, grid: SearchGrid, centre: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    """Return a position (slice, row, column) of the source as a point of the search grid."""
    frame, (_, rows, columns) = site.frame, site.volume.voxels.shape
    k, j, i = centre
    y, height, x, width = (i, columns, j, rows) if frame.transposed else (j, rows, i, columns)
    canonical = np.array([k, height - 1 - y if frame.flip_y else y, width - 1 - x if frame.flip_x else x])
    point: npt.NDArray[np.float64] = (canonical - np.array(grid.start)) * np.array(frame.spacing) / GRID_MM
    return point


def best_candidate(mark: MarkedPlace, at: npt.NDArray[np.float64], candidates: Sequence[Candidate]) -> Candidate | None:
    """Return the candidate that fits the position and the axes of a mark best; None if none fits."""
    best: tuple[float, Candidate] | None = None
    for candidate in candidates:
        low = np.array(candidate.offset)
        if (at < low - 2).any() or (at > low + candidate.mask.shape + 1).any():
            continue
        long_mm, short_mm = axes_mm(candidate.mask, (GRID_MM,) * 3)
        away = np.linalg.norm(
            (np.array(candidate.centre) - at) * [0.6, 1, 1]
        )  # positions of readers are in slices, which may be thick
        cost = (
            abs(np.log(long_mm / mark.long_mm))
            + abs(np.log(max(short_mm, 1.0) / mark.short_mm))
            + 1.5 * float(away) / max(mark.long_mm, 5.0)
        )
        if cost < WORST_FIT and (best is None or cost < best[0]):
            best = cost, candidate
    return best[1] if best else None


def ball(shape: tuple[int, ...], centre: npt.NDArray[np.floating], radius: float) -> tuple[npt.NDArray[np.int64], ...]:
    """Return index arrays of the grid points within ``radius`` of a centre."""
    low = [max(0, math.floor(c - radius)) for c in centre]
    high = [min(n, math.ceil(c + radius) + 1) for n, c in zip(shape, centre, strict=True)]
    squares = sum((g - c) ** 2 for g, c in zip(np.ogrid[tuple(map(slice, low, high))], centre, strict=True))
    z, y, x = np.nonzero(np.asarray(squares) <= radius**2)
    return z + low[0], y + low[1], x + low[2]


def ignored(crop: AxillaCrop) -> Mask:
    """Return the voxels without a certain label: uncertain marks, and a shell of 1 mm around the reference nodes."""
    nodes = crop.nodes > 0
    shell: Mask = ndimage.binary_dilation(nodes) & ~nodes
    for *centre, radius in crop.uncertain:
        shell[ball(crop.hu.shape, np.array(centre), float(radius))] = True
    shell &= ~nodes
    return shell
