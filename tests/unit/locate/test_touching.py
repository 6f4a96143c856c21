"""Touching nodes in one candidate: divided at a valley of the network's depth, and only there."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from alnnode.locate.candidates import Candidate
from alnnode.locate.detector import DetectorMaps
from alnnode.locate.touching import divided

EDGE = 40
GRID = SimpleNamespace(side="right")


def ball(centre, radius):
    """Return the grid points within a radius, mm."""
    z, y, x = np.ogrid[:EDGE, :EDGE, :EDGE]
    return (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 <= radius**2


def candidate(mask) -> Candidate:
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    return Candidate(GRID, mask[box], tuple(s.start for s in box), -20.0)


def whole(found: Candidate):
    """Return the mask of a candidate on the grid."""
    mask = np.zeros((EDGE,) * 3, dtype=bool)
    mask[tuple(slice(o, o + n) for o, n in zip(found.offset, found.mask.shape, strict=True))] = found.mask
    return mask


def maps_of(nodes, valley=None) -> DetectorMaps:
    """Return the maps of nodes: cones of depth, which meet at ``valley`` where it is given."""
    depth = np.zeros((EDGE,) * 3, np.float32)
    for node in nodes:
        inside = ndimage.distance_transform_edt(node)
        depth = np.maximum(depth, inside / inside.max())
    if valley is not None:
        depth[np.logical_or.reduce(nodes)] = np.maximum(depth[np.logical_or.reduce(nodes)], valley)
    return DetectorMaps((depth > 0).astype(np.float32), depth.astype(np.float32))


ONE, OTHER = ball((20, 20, 13), 7), ball((20, 20, 26), 6)


def test_two_touching_nodes_become_two_candidates():
    parts = divided(candidate(ONE | OTHER), maps_of([ONE, OTHER]))
    assert len(parts) == 2
    masks = sorted((whole(part) for part in parts), key=np.count_nonzero, reverse=True)
    assert not (masks[0] & masks[1]).any()
    assert ((masks[0] | masks[1]) == (ONE | OTHER)).all()
    for mask, node in zip(masks, (ONE, OTHER), strict=True):
        assert (mask & node).sum() / (mask | node).sum() > 0.9


def test_three_nodes_in_a_row_become_three_candidates():
    nodes = [ball((20, 20, 8), 6), ball((20, 20, 19), 6), ball((20, 20, 30), 6)]
    assert len(divided(candidate(np.logical_or.reduce(nodes)), maps_of(nodes))) == 3


def test_one_node_stays_one_candidate():
    node = ball((20, 20, 20), 8)
    found = candidate(node)
    assert divided(found, maps_of([node])) == [found]


@pytest.mark.parametrize(("valley", "parts"), [(0.75, 2), (0.95, 1)])
def test_only_a_deep_valley_divides(valley, parts):
    nodes = [ball((20, 20, 14), 8), ball((20, 20, 24), 8)]  # overlapping, so that the neck is wide
    assert len(divided(candidate(nodes[0] | nodes[1]), maps_of(nodes, valley))) == parts


def test_small_nodes_are_not_divided():
    nodes = [ball((20, 20, 15), 3.5), ball((20, 20, 22), 3.5)]
    assert len(divided(candidate(nodes[0] | nodes[1]), maps_of(nodes))) == 1


def test_a_node_beside_something_else_is_not_divided():
    maps = maps_of([ONE, OTHER])
    maps.node[OTHER & ~ONE] = 0.1
    assert len(divided(candidate(ONE | OTHER), maps)) == 1


def test_a_splinter_belongs_to_its_neighbour():
    splinter = ball((20, 28, 26), 2.2) & ~OTHER
    parts = divided(candidate(ONE | OTHER | splinter), maps_of([ONE, OTHER, splinter]))
    assert len(parts) == 2
    assert sum(int(part.mask.sum()) for part in parts) == int((ONE | OTHER | splinter).sum())
