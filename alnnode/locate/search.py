"""The seam of this room: a volume in, the nodes of both axillae out."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from alnnode.locate import candidates as proposals
from alnnode.locate import ranking
from alnnode.locate.chest_anatomy import Site
from alnnode.locate.measure import node_from_mask
from alnnode.locate.refine import source_mask
from alnnode.records import Side

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from alnnode.locate.candidates import Candidate
    from alnnode.locate.detector import Detector
    from alnnode.records import AxillaCoverage, FloatArray, Node, Volume

WORTH_READING = 0.5  # of the least score of a node: soft tissue is read where the network sees more
SAME_PLACE = 0.25  # of the smaller mask: two candidates that share more are one node


def find(
    volume: Volume,
    detector: Detector,
    *,
    min_short_axis_mm: float,
    max_nodes: int,
    threshold: float | None = None,
    progress: Callable[[str], None] | None = None,
    site: Site | None = None,
) -> tuple[list[Node], tuple[AxillaCoverage, AxillaCoverage]]:
    """Find the lymph nodes of both axillae.

    Args:
        volume: the series, in any in-plane orientation.
        detector: scores the candidates.
        min_short_axis_mm: smaller nodes are left out.
        max_nodes: of these, the most certain are kept.
        threshold: least score of a node, 0 to 1; None takes the detector's own operating point.
        progress: called with the name of each step; may raise to stop.
        site: of this volume, where somebody has it already.

    Returns:
        Nodes numbered from 1, right axilla first, then left, each from the head down; and what the series shows of the
        right and of the left axilla.
    """
    tell = progress or (lambda _: None)
    tell("anatomy")
    site = site or Site(volume)
    least = detector.settings.threshold if threshold is None else threshold
    tell("score")
    found, scores = _scored(site, detector, least)
    kept = suppress(found, scores, least)
    tell("measure")
    nodes = []
    for candidate, score in kept:
        mask, offset = source_mask(volume, candidate)
        if not mask.any():
            continue
        node = node_from_mask(volume, mask, offset, candidate.grid.side, 0, score)
        if node.short_axis.length_mm >= min_short_axis_mm:
            levels = detector.settings.levels
            nodes.append(
                node if levels is None else replace(node, level=candidate.grid.landmarks.level(levels, candidate.place))
            )
        if len(nodes) == max_nodes:
            break
    return numbered(nodes), proposals.coverage(site)


def _scored(site: Site, detector: Detector, least: float) -> tuple[list[Candidate], FloatArray]:
    """Readings of the places where the network sees a node, of both sides, and their scores."""
    grids = proposals.search_grids(site)
    maps = [detector.look(grid) for grid in grids]

    def read(side: int) -> list[Candidate]:
        return proposals.read(grids[side], maps[side].node > WORTH_READING * least)

    # The filters of SciPy release the GIL: both sides at once take little longer than one.
    with ThreadPoolExecutor(2) as pool:
        sides = list(pool.map(read, range(len(grids))))
    found = [candidate for side in sides for candidate in side]
    return found, np.concatenate([np.zeros(0, np.float32), *map(ranking.scores, sides, [seen.depth for seen in maps])])


def suppress(found: Sequence[Candidate], scores: FloatArray, threshold: float) -> list[tuple[Candidate, float]]:
    """Keep the best reading of every place, in the order of falling score."""
    order = sorted(range(len(found)), key=lambda n: (-float(scores[n]), n))
    kept: list[tuple[Candidate, float]] = []
    for n in order:
        if scores[n] < threshold:
            break
        candidate = found[n]
        size = int(candidate.mask.sum())
        if all(candidate.overlap(other) <= SAME_PLACE * min(size, int(other.mask.sum())) for other, _ in kept):
            kept.append((candidate, round(float(scores[n]), 4)))
    return kept


def numbered(nodes: Sequence[Node]) -> list[Node]:
    """Right first, from the head down; ties by row and column, so that the order never depends on anything else."""
    ordered = sorted(nodes, key=lambda n: (n.side is Side.LEFT, -n.slice_index, n.box.j0, n.box.i0))
    return [replace(node, number=number) for number, node in enumerate(ordered, start=1)]
