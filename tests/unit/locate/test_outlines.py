"""Candidates that the network outlines: where soft tissue does not separate a node, and only there."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from alnnode.locate import ranking
from alnnode.locate.candidates import propose_candidates
from alnnode.locate.detector import DetectorMaps
from alnnode.locate.grid import Frame
from alnnode.locate.outlines import OUTLINE_SHARE, outline_candidates
from alnnode.locate.search import candidates_of, suppress_overlaps
from alnnode.locate.search_grid import SearchGrid
from alnnode.records import Side

SHAPE = (48, 48, 48)
FAT_HU, NODE_HU = -100.0, 50.0


class Chest:
    """Landmarks of a chest in which the whole grid lies in the axilla."""

    def ramps(self, start, step, *, left):
        return np.array([[0.4, 0.001], [0.5, 0.001], [1.0, 0.001]])


def ball(centre, radius):
    return sum((g - c) ** 2 for g, c in zip(np.ogrid[tuple(map(slice, SHAPE))], centre, strict=True)) <= radius**2


def grid_of(soft, edge=None, metal=None) -> SearchGrid:
    hu = np.where(soft, NODE_HU, FAT_HU).astype(np.float32)
    if metal is not None:
        hu[metal] = 300.0
    frame = Frame(transposed=False, flip_y=False, flip_x=False, spacing=(1.0, 1.0, 1.0))
    smooth = ndimage.gaussian_filter(hu, 0.5)
    edge = np.zeros(SHAPE, bool) if edge is None else edge
    return SearchGrid(Side.RIGHT, hu, smooth, np.ones(SHAPE, bool), edge, (0, 0, 0), frame, Chest())


def maps_of(*nodes) -> DetectorMaps:
    depth = np.zeros(SHAPE, np.float32)
    for node in nodes:
        inside = ndimage.distance_transform_edt(node)
        depth = np.maximum(depth, inside / inside.max())
    return DetectorMaps((depth > 0).astype(np.float32), depth.astype(np.float32))


def kept_in(grid, maps):
    """Return the candidates that the search keeps, with their scores."""
    return suppress_overlaps(*candidates_of(grid, maps), 0.1)


ONE, OTHER = ball((24, 24, 18), 6), ball((24, 24, 29), 6)


def test_touching_nodes_have_an_outline_each() -> None:
    found = sorted(outline_candidates(grid_of(ONE | OTHER), maps_of(ONE, OTHER & ~ONE)), key=lambda one: one.offset)
    assert len(found) == 2
    for candidate, node in zip(found, (ONE, OTHER & ~ONE), strict=True):
        box = tuple(slice(o, o + n) for o, n in zip(candidate.offset, candidate.mask.shape, strict=True))
        shared = (node[box] & candidate.mask).sum()
        assert shared / (node.sum() + candidate.mask.sum() - shared) > 0.8


def test_a_node_that_fat_has_replaced_is_found_by_its_outline() -> None:
    grid, maps = grid_of(np.zeros(SHAPE, bool)), maps_of(ONE)
    assert propose_candidates(grid, maps.node > 0.025) == []
    ((candidate, score),) = kept_in(grid, maps)
    assert candidate.volume_mm3 > 0.9 * ONE.sum()
    assert score > 0.5


def test_a_reading_that_fits_is_kept_in_place_of_the_outline() -> None:
    grid, maps = grid_of(ONE), maps_of(ONE)
    assert len(outline_candidates(grid, maps)) == 1
    ((candidate, score),) = kept_in(grid, maps)
    assert any(np.array_equal(candidate.mask, reading.mask) for reading in propose_candidates(grid, maps.node > 0.025))
    assert score > OUTLINE_SHARE


def test_an_outline_inside_of_other_soft_tissue_scores_low() -> None:
    """A piece of a muscle that the network takes for a node is surrounded by the muscle."""
    grid, maps = grid_of(np.ones(SHAPE, bool)), maps_of(ONE)
    (outline,) = outline_candidates(grid, maps)
    assert ranking.candidate_scores([outline], maps.depth)[0] == 0


@pytest.mark.parametrize("fault", ["edge", "metal", "small"])
def test_no_outline_at_the_border_around_metal_or_of_a_few_voxels(fault) -> None:
    node = ball((24, 24, 18), 1) if fault == "small" else ONE
    edge = np.zeros(SHAPE, bool)
    edge[..., :14] = True
    grid = grid_of(node, edge if fault == "edge" else None, ball((24, 24, 18), 3) if fault == "metal" else None)
    assert outline_candidates(grid, maps_of(node)) == []
