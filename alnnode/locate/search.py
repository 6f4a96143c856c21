"""Search for lymph nodes: from the chest of a series to the measured nodes of both axillae."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from alnnode.imaging.orientation import in_plane
from alnnode.locate import ranking
from alnnode.locate.both_sides import on_both_sides
from alnnode.locate.candidates import propose_candidates
from alnnode.locate.measure import measure_node
from alnnode.locate.outlines import OUTLINE_SHARE, outline_candidates
from alnnode.locate.refine import source_mask
from alnnode.locate.search_grid import search_grids
from alnnode.locate.touching import divided
from alnnode.records import Side

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from alnnode.locate.candidates import Candidate
    from alnnode.locate.chest_anatomy import ChestAnatomy
    from alnnode.locate.detector import DetectorMaps, DetectorSettings
    from alnnode.locate.search_grid import SearchGrid
    from alnnode.records import FloatArray, Node

# Probability on the network's map above which candidates are proposed. It does not depend on the threshold of nodes, because soft tissue is
# separated within the places that it selects: the candidates, and so the nodes with a high score, would change with the threshold.
PLACE_PROBABILITY = 0.025
SAME_PLACE = 0.25  # share of the smaller mask: two candidates that overlap more are one node


class NodeDetector(Protocol):
    """What the search needs of a detector; `alnnode.locate.detector.Detector` is the trained one."""

    @property
    def settings(self) -> DetectorSettings:
        """Operating point and model of the axillary level."""

    @property
    def arithmetic(self) -> str:
        """What the last bits of its maps depend on beside input and weights."""

    def predict(self, grid: SearchGrid) -> DetectorMaps:
        """Return the maps of one axilla; they are 0 outside its search region."""


@dataclass(frozen=True, slots=True)
class SearchLimits:
    """Which nodes a search returns.

    Attributes:
        min_short_axis_mm: smaller nodes are left out.
        max_nodes: of the others, the most certain are returned.
        threshold: least score of a node, 0 to 1; None: the operating point of the detector.
    """

    min_short_axis_mm: float
    max_nodes: int
    threshold: float | None = None


def locate_nodes(anatomy: ChestAnatomy, detector: NodeDetector, limits: SearchLimits) -> list[Node]:
    """Return the lymph nodes of both axillae, numbered from 1: right axilla first, then left, each from the head down.

    Args:
        anatomy: the chest of the series, in any in-plane orientation.
        detector: scores the candidates.
        limits: which nodes are returned.
    """
    threshold = detector.settings.threshold if limits.threshold is None else limits.threshold
    candidates, scores, maps = _scored_candidates(anatomy, detector)
    nodes: list[Node] = []
    for candidate, score in _divided(suppress_overlaps(candidates, scores, threshold), maps):
        mask, offset = source_mask(anatomy.volume, candidate)
        if not mask.any():
            continue
        node = measure_node(anatomy.volume, mask, offset)
        if node.short_axis.length_mm >= limits.min_short_axis_mm:
            side, levels = candidate.grid.side, detector.settings.levels
            level = None if levels is None else anatomy.level_of(levels, side, candidate.place)
            nodes.append(replace(node, side=side, score=score, level=level))
        if len(nodes) == limits.max_nodes:
            break
    return number_nodes(nodes, anatomy.volume.affine)


def _scored_candidates(
    anatomy: ChestAnatomy, detector: NodeDetector
) -> tuple[list[Candidate], FloatArray, dict[Side, DetectorMaps]]:
    """Return the candidates of both sides at the places where the network's map is high, their scores, and the maps."""
    grids = search_grids(anatomy)
    maps = [detector.predict(grid) for grid in grids]

    sides = on_both_sides(lambda side: candidates_of(grids[side], maps[side]), range(len(grids)))
    candidates = [candidate for proposed, _ in sides for candidate in proposed]
    scores = np.concatenate([np.zeros(0, np.float32), *(scores for _, scores in sides)])
    return candidates, scores, {grid.side: found for grid, found in zip(grids, maps, strict=True)}


def candidates_of(grid: SearchGrid, maps: DetectorMaps) -> tuple[list[Candidate], FloatArray]:
    """Return the readings of soft tissue and the network's outlines in one axilla, and their scores."""
    readings, outlined = propose_candidates(grid, maps.node > PLACE_PROBABILITY), outline_candidates(grid, maps)
    scores = ranking.candidate_scores([*readings, *outlined], maps.depth)
    scores[len(readings) :] *= OUTLINE_SHARE
    return [*readings, *outlined], scores


def _divided(kept: Iterable[tuple[Candidate, float]], maps: Mapping[Side, DetectorMaps]) -> Iterator[tuple[Candidate, float]]:
    """Yield the candidates with their scores; those that cover several touching nodes are divided, and each part has the score."""
    for candidate, score in kept:
        for part in divided(candidate, maps[candidate.grid.side]):
            yield part, score


def suppress_overlaps(candidates: Sequence[Candidate], scores: FloatArray, threshold: float) -> list[tuple[Candidate, float]]:
    """Return the best candidate of each place with its score, in descending order (non-maximum suppression)."""
    order = sorted(range(len(candidates)), key=lambda n: (-float(scores[n]), n))
    kept: list[tuple[Candidate, float]] = []
    for n in order:
        if scores[n] < threshold:
            break
        candidate = candidates[n]
        size = int(candidate.mask.sum())
        if all(candidate.overlap(other) <= SAME_PLACE * min(size, int(other.mask.sum())) for other, _ in kept):
            kept.append((candidate, round(float(scores[n]), 4)))
    return kept


def number_nodes(nodes: Sequence[Node], affine: npt.NDArray[np.float64]) -> list[Node]:
    """Return the nodes numbered from 1: right side first, from the head down; on one slice from the front back, then from the right.

    Args:
        nodes: of one series.
        affine: of its volume. Directions of the patient decide, not rows and columns: a prone or decubitus series has the same numbers.
    """
    turned = in_plane(affine)

    def place(node: Node) -> tuple[bool, int, int, int]:
        rows, columns = (node.box.j0, node.box.j1), (node.box.i0, node.box.i1)
        along_x, along_y = (rows, columns) if turned.transposed else (columns, rows)
        return (
            node.side is Side.LEFT,
            -node.slice_index,
            -along_y[1] if turned.flip_y else along_y[0],
            -along_x[1] if turned.flip_x else along_x[0],
        )

    return [replace(node, number=number) for number, node in enumerate(sorted(nodes, key=place), start=1)]
