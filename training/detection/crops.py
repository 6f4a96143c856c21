"""Axillae of real CT as the detector sees them: 1 mm grid, search region, and what two readers marked in them.

Crops are written small (steps of `STEP_HU`, differences along the slices, LZMA), so that those of a few dozen series fit on any
machine that trains. Left axillae are mirrored: all training sees one kind of axilla.
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

STEP_HU = 6.0  # well below the noise of any CT
LOW_HU, HIGH_HU = -200.0, 300.0
WORST_FIT = 1.0  # of a reading with a mark: above, a ball of the mark's short axis stands for the node


@dataclass(frozen=True, slots=True)
class AxillaCrop:
    """One axilla; (z, y, x) grid points of 1 mm, rows to the back, columns to the patient's side (left axillae mirrored).

    Attributes:
        case: the patient, as the marks are named; what is trained on it is never judged on it.
        side: of the patient.
        hu: float32, clipped to `LOW_HU` … `HIGH_HU`.
        region: the search region.
        ramps: (3, 2), where its points lie in the chest (`alnnode.locate.axillary_level.Landmarks.ramps`).
        nodes: uint8 labels of nodes that both readers marked: their best reading, see `fitted`.
        uncertain: (n, 4): centre, and half the long axis plus 3 mm; neither node nor background.
        structures: (n, 3): centres of what is plainly no node.
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
        """Return the compressed form."""
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
        """Read what `to_bytes` gave.

        Raises:
            ValueError, KeyError, lzma.LZMAError: it is something else.
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
    """The truth's labels at the points of a search grid (nearest voxel)."""
    canonical = grid.frame.canonical(labels)
    index = [
        np.clip(np.rint(s + np.arange(n) * GRID_MM / d).astype(int), 0, m - 1)
        for s, n, d, m in zip(grid.start, grid.hu.shape, grid.frame.spacing, canonical.shape, strict=True)
    ]
    found: npt.NDArray[np.uint16] = canonical[np.ix_(*index)]
    return found


def cut(site: ChestAnatomy, case: str, reference: Reference) -> list[AxillaCrop]:
    """Both axillae of a series with what the readers marked in them.

    Args:
        site: of the series.
        case: name of the patient.
        reference: of the same series, its images in the order of the volume.
    """
    return [_crop(site, case, reference, grid, propose_candidates(grid)) for grid in search_grids(site)]


def _crop(site: ChestAnatomy, case: str, reference: Reference, grid: SearchGrid, readings: Sequence[Candidate]) -> AxillaCrop:
    mirrored = grid.side is Side.LEFT
    nodes = np.zeros(grid.hu.shape, np.uint8)
    # Nodes that both readers call possible are not judged, but most of them are nodes: worth learning from.
    likely = [mark for mark in reference.uncertain if mark.readers == len(READERS)]
    for number, (mark, at) in enumerate(_inside(site, grid, [*reference.nodes, *likely]), start=1):
        best = fitted(mark, at, readings)
        if best is None:
            nodes[ball(grid.hu.shape, at, max(mark.short_mm, 4.0) / 2)] = number
        else:
            box = tuple(slice(o, o + n) for o, n in zip(best.offset, best.mask.shape, strict=True))
            # A reading may hold more than the node (a vessel at its pole): nothing beyond half the long axis.
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
    """Marks whose centre lies on the grid, with that grid point."""
    placed = [(mark, grid_point(site, grid, mark.centre)) for mark in marks]
    return [(mark, at) for mark, at in placed if (at >= 0).all() and (at < grid.hu.shape).all()]


def grid_point(site: ChestAnatomy, grid: SearchGrid, centre: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    """Position (slice, row, column) of the source as a point of the search grid."""
    frame, (_, rows, columns) = site.frame, site.volume.voxels.shape
    k, j, i = centre
    y, height, x, width = (i, columns, j, rows) if frame.transposed else (j, rows, i, columns)
    canonical = np.array([k, height - 1 - y if frame.flip_y else y, width - 1 - x if frame.flip_x else x])
    point: npt.NDArray[np.float64] = (canonical - np.array(grid.start)) * np.array(frame.spacing) / GRID_MM
    return point


def fitted(mark: MarkedPlace, at: npt.NDArray[np.float64], readings: Sequence[Candidate]) -> Candidate | None:
    """Return the reading that fits a mark best in place and axes, None where none fits."""
    best: tuple[float, Candidate] | None = None
    for reading in readings:
        low = np.array(reading.offset)
        if (at < low - 2).any() or (at > low + reading.mask.shape + 1).any():
            continue
        long_mm, short_mm = axes_mm(reading.mask, (GRID_MM,) * 3)
        away = np.linalg.norm((np.array(reading.centre) - at) * [0.6, 1, 1])  # readers count in slices, which may be thick
        cost = (
            abs(np.log(long_mm / mark.long_mm))
            + abs(np.log(max(short_mm, 1.0) / mark.short_mm))
            + 1.5 * float(away) / max(mark.long_mm, 5.0)
        )
        if cost < WORST_FIT and (best is None or cost < best[0]):
            best = cost, reading
    return best[1] if best else None


def ball(shape: tuple[int, ...], centre: npt.NDArray[np.floating], radius: float) -> tuple[npt.NDArray[np.int64], ...]:
    """Index arrays of the grid points within ``radius`` of a centre."""
    low = [max(0, math.floor(c - radius)) for c in centre]
    high = [min(n, math.ceil(c + radius) + 1) for n, c in zip(shape, centre, strict=True)]
    squares = sum((g - c) ** 2 for g, c in zip(np.ogrid[tuple(map(slice, low, high))], centre, strict=True))
    z, y, x = np.nonzero(np.asarray(squares) <= radius**2)
    return z + low[0], y + low[1], x + low[2]


def ignored(crop: AxillaCrop) -> Mask:
    """Where nobody knows: uncertain marks, and a shell of 1 mm around the readings of reference nodes."""
    nodes = crop.nodes > 0
    shell: Mask = ndimage.binary_dilation(nodes) & ~nodes
    for *centre, radius in crop.uncertain:
        shell[ball(crop.hu.shape, np.array(centre), float(radius))] = True
    shell &= ~nodes
    return shell
