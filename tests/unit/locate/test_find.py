"""The whole search on a phantom, scored by an oracle or a fixed rule: geometry and order, not the network's skill."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from analyses import analysis
from pydicom import Dataset
from scipy import ndimage

from alnnode import phantom
from alnnode.locate import anatomy
from alnnode.locate.candidates import propose_candidates
from alnnode.locate.chest_anatomy import ChestAnatomy
from alnnode.locate.detector import DetectorMaps, DetectorSettings
from alnnode.locate.grid import coarsen
from alnnode.locate.search import SearchLimits, locate_nodes, number_nodes, suppress_overlaps
from alnnode.locate.search_grid import search_grids
from alnnode.phantom import Arms, PhantomSettings, Phase, Position
from alnnode.records import Box, Side, SliceRef, Volume
from training.detection import samples
from training.detection.crops import truth_on

LIMITS = SearchLimits(3.0, 40)


class Oracle:
    """Sees the truth."""

    settings = DetectorSettings(threshold=0.4)
    arithmetic = "none"

    def __init__(self, labels):
        self.labels = labels

    def predict(self, grid):
        labels = truth_on(grid, self.labels)
        depth = samples.depths(labels)[0].astype(np.float32) / 255
        return DetectorMaps((labels > 0).astype(np.float32), depth)


def volume_of(hu, affine, spacing) -> Volume:
    return Volume(hu, affine, tuple(SliceRef("", "", None, (0, 0, 0)) for _ in hu), Dataset(), spacing)


def located(volume: Volume, labels, limits=LIMITS):
    """Return the nodes that a detector which knows the truth finds, and how much the series shows."""
    chest = ChestAnatomy(volume)
    return locate_nodes(chest, Oracle(labels), limits), chest.coverage


@pytest.fixture(scope="module")
def made():
    settings = PhantomSettings(
        slices=(70, 70),
        thickness_mm=(2.0, 2.0),
        spacing_mm=(0.8, 0.8),
        min_nodes_per_side=2,
        max_nodes_per_side=4,
        position=Position.HFS,
        arms=Arms.UP,
        phase=Phase.VENOUS,
    )
    return phantom.make_patient(4711, 0, settings)


@pytest.fixture(scope="module")
def found(made):
    volume = volume_of(made.hu, made.affine, made.spacing)
    return located(volume, made.labels)


def matched(made, nodes):
    """True node and located node by largest overlap of the representative slice's box."""
    pairs = []
    for truth in made.nodes:
        for node in nodes:
            c = np.array(node.box.centre)
            low, high = (truth.box.k0, truth.box.j0, truth.box.i0), (truth.box.k1, truth.box.j1, truth.box.i1)
            if np.all(c >= np.array(low) - 1) and np.all(c <= np.array(high)):
                pairs.append((truth, node))
    return pairs


def test_true_nodes_are_proposed_measured_and_on_their_side(made, found):
    nodes, _ = found
    pairs = matched(made, nodes)
    assert len({t.number for t, _ in pairs}) >= 0.75 * len(made.nodes)
    assert all(t.side == n.side for t, n in pairs)
    errors = [abs(t.short_axis_mm - n.short_axis.length_mm) for t, n in pairs]
    assert np.median(errors) < 1.0


def test_nodes_are_numbered_right_first_and_from_the_head_down(found):
    nodes, coverage = found
    assert [n.number for n in nodes] == list(range(1, len(nodes) + 1))
    assert {n.side for n in nodes} == set(Side)
    keys = [(n.side is Side.LEFT, -n.slice_index) for n in nodes]
    assert keys == sorted(keys)
    assert [c.side for c in coverage] == [Side.RIGHT, Side.LEFT]


TURNS = [
    (rows, columns)
    for x, y in itertools.product((1, -1), repeat=2)
    for rows, columns in (((0, y, 0), (x, 0, 0)), ((x, 0, 0), (0, y, 0)))
]


@pytest.mark.parametrize(("rows", "columns"), TURNS, ids=str)
def test_nodes_of_one_slice_have_the_same_numbers_in_every_patient_position(rows, columns) -> None:
    """Rows and columns of a prone or decubitus series run in other directions of the patient."""
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = (0, 0, 1), rows, columns
    affine[:3, 3] = -100 * (affine[:3, 1] + affine[:3, 2])
    some, places = analysis(1).findings[0].node, [(x, y) for y in (-30, 5) for x in (-60, -40)]  # front to back, from the right
    nodes = []
    for x, y in places:
        _, j, i = (round(float(v)) for v in np.linalg.solve(affine, [x, y, 0, 1])[:3])
        nodes.append(replace(some, side=Side.RIGHT, slice_index=3, box=Box(2, j - 3, i - 3, 5, j + 4, i + 4)))
    numbered = number_nodes(nodes[::-1], affine)
    assert [node.box for node in numbered] == [node.box for node in nodes]
    assert [node.number for node in numbered] == [1, 2, 3, 4]


def transformed(made, how):
    """The same patient stored in other rows and columns, with the affine that says so."""
    hu, labels, affine = made.hu, made.labels, made.affine.copy()
    spacing = made.spacing
    if how in ("mirrored", "prone"):
        hu, labels = hu[:, :, ::-1], labels[:, :, ::-1]
        affine[:3, 3] += affine[:3, 2] * (hu.shape[2] - 1)
        affine[:3, 2] *= -1
    if how in ("upside down", "prone"):
        hu, labels = hu[:, ::-1], labels[:, ::-1]
        affine[:3, 3] += affine[:3, 1] * (hu.shape[1] - 1)
        affine[:3, 1] *= -1
    if how == "on the side":
        hu, labels = hu.transpose(0, 2, 1), labels.transpose(0, 2, 1)
        affine = affine[:, [0, 2, 1, 3]]
        spacing = (spacing[0], spacing[2], spacing[1])
    return np.ascontiguousarray(hu), np.ascontiguousarray(labels), affine, spacing


@pytest.mark.parametrize("how", ["prone", "on the side"])
def test_storing_the_patient_otherwise_changes_nothing_in_patient_space(made, found, how):
    hu, labels, affine, spacing = transformed(made, how)
    volume = volume_of(hu, affine, spacing)
    nodes, _ = located(volume, labels)
    original = volume_of(made.hu, made.affine, made.spacing)
    assert len(nodes) == len(found[0])
    for new, old in zip(
        sorted(nodes, key=lambda n: (n.side, n.slice_index, n.volume_mm3)),
        sorted(found[0], key=lambda n: (n.side, n.slice_index, n.volume_mm3)),
        strict=True,
    ):
        assert new.side is old.side
        assert volume.patient_point(*new.box.centre) == pytest.approx(original.patient_point(*old.box.centre), abs=0.01)
        assert new.short_axis.length_mm == pytest.approx(old.short_axis.length_mm, abs=0.02)
        assert new.score == pytest.approx(old.score, abs=0.02)


def test_the_same_volume_gives_the_same_nodes(made, found):
    volume = volume_of(made.hu, made.affine, made.spacing)
    assert located(volume, made.labels) == found


def test_limits_are_kept(made, found):
    volume = volume_of(made.hu, made.affine, made.spacing)
    few, _ = located(volume, made.labels, SearchLimits(6.0, 2, 0.5))
    assert len(few) == 2
    assert all(n.short_axis.length_mm >= 6 and n.score >= 0.5 for n in few)
    none, _ = located(volume, made.labels, SearchLimits(3.0, 40, 1.0))
    assert none == []


def test_an_axilla_cut_off_at_the_side_is_said_to_be(made):
    coarse = coarsen(made.hu, made.spacing)
    chest = anatomy.find_chest(coarse)
    wall = int(np.flatnonzero(chest.thorax.any(axis=(0, 1)))[0]) * coarse.step[2]
    cut = wall - round(25 / made.spacing[2])  # 25 mm of the patient's right are left beside the lung
    affine = made.affine.copy()
    affine[:3, 3] += affine[:3, 2] * cut
    volume = volume_of(np.ascontiguousarray(made.hu[:, :, cut:]), affine, made.spacing)
    right, left = ChestAnatomy(volume).coverage
    assert not right.covered
    assert "side" in right.remark
    assert "side" not in left.remark


def test_a_short_stack_says_what_is_missing(made):
    volume = volume_of(made.hu[20:32].copy(), made.affine, made.spacing)
    coverage = ChestAnatomy(volume).coverage
    assert all(not c.covered and "below" in c.remark and "above" in c.remark for c in coverage)


def test_without_lungs_nothing_is_claimed():
    hu = np.full((20, 64, 64), -1000, np.int16)
    hu[:, 10:50, 10:50] = 40
    volume = volume_of(hu, np.diag([1.0, 1, 1, 1])[[2, 1, 0, 3]] * np.array([3, 3, 3, 1]), (3.0, 3.0, 3.0))
    nodes, coverage = located(volume, np.zeros(hu.shape, np.uint16), SearchLimits(4, 5))
    assert nodes == []
    assert all(not c.covered and "lungs" in c.remark for c in coverage)


def test_suppression_keeps_the_best_reading_of_a_place(made):
    volume = volume_of(made.hu, made.affine, made.spacing)
    found = propose_candidates(search_grids(ChestAnatomy(volume))[0])
    double = [found[0], replace(found[0], threshold=1.0), found[-1]]
    kept = suppress_overlaps(double, np.array([0.5, 0.8, 0.6], np.float32), 0.3)
    assert [c for c, _ in kept] == [double[1], double[2]]


def test_soft_tissue_around_a_clip_is_no_reading(made):
    volume = volume_of(made.hu.copy(), made.affine, made.spacing)
    grid = search_grids(ChestAnatomy(volume))[0]
    reading = min((c for c in propose_candidates(grid) if c.volume_mm3 > 200), key=lambda c: c.volume_mm3)
    z, y, x = (round(c) for c in reading.centre)
    clipped = replace(grid, hu=grid.hu.copy())
    clipped.hu[z - 2 : z + 3, y - 2 : y + 3, x - 2 : x + 3] = 300.0
    near = [c for c in propose_candidates(clipped) if c.mask.shape == reading.mask.shape and c.offset == reading.offset]
    assert near == []


class Blurred(Oracle):
    """Sees the truth with a wide border, as a network does: its probability falls from the node outwards."""

    def predict(self, grid):
        depth = super().predict(grid).depth
        return DetectorMaps(ndimage.gaussian_filter((depth > 0).astype(np.float32), 4.0), depth)


def test_the_threshold_decides_which_nodes_are_returned_not_what_they_are(made):
    """Candidates were proposed where the map exceeds half of the threshold, so that a lower threshold changed the nodes with a high score."""
    chest = ChestAnatomy(volume_of(made.hu, made.affine, made.spacing))
    few, many = (
        {
            (node.side, node.slice_index, node.box, node.score)
            for node in locate_nodes(chest, Blurred(made.labels), SearchLimits(3.0, 40, threshold))
            if node.score >= 0.5
        }
        for threshold in (0.5, 0.05)
    )
    assert len(few) > 2
    assert few == many


class Notched(Oracle):
    """Sees a valley through the middle of each large node, as between two touching ones."""

    def predict(self, grid):
        maps = super().predict(grid)
        for box in ndimage.find_objects(ndimage.label(maps.node)[0]):
            part = maps.depth[box]
            if np.count_nonzero(part) > 600:
                axis = int(np.argmax(part.shape))
                middle = part.shape[axis] // 2
                part[tuple(slice(middle - 1, middle + 1) if a == axis else slice(None) for a in range(3))] *= 0.2
        return maps


def test_a_node_with_a_valley_in_the_networks_depth_becomes_two(made):
    chest = ChestAnatomy(volume_of(made.hu, made.affine, made.spacing))
    whole, parts = (locate_nodes(chest, detector(made.labels), SearchLimits(3.0, 40, 0.05)) for detector in (Oracle, Notched))
    large = max(whole, key=lambda node: node.volume_mm3)
    inside = [
        node
        for node in parts
        if all(low - 1 <= c <= high for low, c, high in zip(large.box.low, node.box.centre, large.box.high, strict=True))
    ]
    assert large.volume_mm3 > 600
    assert len(inside) == 2
    assert len({node.score for node in inside}) == 1
