"""What a series shows of the axillae: cut at every side, above and below, in every position; what is lost is never called covered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from pydicom import Dataset

from alnnode import phantom
from alnnode.locate import anatomy
from alnnode.locate.axillary_level import ORDER, PLACES, TERMS, LevelModel
from alnnode.locate.candidates import Candidate, propose_candidates
from alnnode.locate.chest_anatomy import ChestAnatomy
from alnnode.locate.coverage import nothing_shown
from alnnode.locate.search_grid import search_grids
from alnnode.phantom import Arms, Phantom, PhantomSettings, Position
from alnnode.records import AxillaCoverage, Side, SliceRef, Volume

SLICES, SIZE = 42, 128
WHOLE = ((0, SLICES), (0, SIZE), (0, SIZE))
SURE = LevelModel((0.0,) * PLACES, (1.0,) * PLACES, ((9.0, *(0.0,) * (TERMS - 1)), (0.0,) * TERMS, (0.0,) * TERMS))


def volume_of(hu, affine, spacing) -> Volume:
    return Volume(hu, affine, tuple(SliceRef("", "", None, (0, 0, 0)) for _ in hu), Dataset(), spacing)


def readings(chest: ChestAnatomy) -> list[Candidate]:
    return [reading for grid in search_grids(chest) for reading in propose_candidates(grid)]


@dataclass(frozen=True)
class Patient:
    """A phantom as it is stored, and the boxes of its nodes: first and one past the last voxel of each axis."""

    made: Phantom
    volume: Volume
    nodes: tuple[tuple[Side, tuple[tuple[int, int], ...]], ...]

    def cut(self, *box: tuple[int, int]) -> ChestAnatomy:
        affine = self.volume.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ [low for low, _ in box]
        voxels = self.volume.voxels[tuple(slice(*part) for part in box)]
        return ChestAnatomy(volume_of(np.ascontiguousarray(voxels), affine, self.volume.spacing))

    def lost(self, side: Side, *box: tuple[int, int]) -> bool:
        """Whether a node of this side lies, in part at least, outside the box."""
        return any(
            of is side and any(a < low or b > high for (a, b), (low, high) in zip(where, box, strict=True))
            for of, where in self.nodes
        )


def patient(index: int, position: Position, arms: Arms, *, padding: bool = False, on_the_side: bool = False) -> Patient:
    settings = PhantomSettings(
        size=SIZE,
        slices=(SLICES, SLICES),
        thickness_mm=(5.0, 5.0),
        spacing_mm=(3.2, 3.2),
        min_nodes_per_side=4,
        max_nodes_per_side=7,
        position=position,
        arms=arms,
        padding=padding,
    )
    made = phantom.make_patient(123, index, settings)
    boxes = [(n.side, ((n.box.k0, n.box.k1), (n.box.j0, n.box.j1), (n.box.i0, n.box.i1))) for n in made.nodes]
    volume = volume_of(made.hu, made.affine, made.spacing)
    if on_the_side:
        volume = volume_of(np.ascontiguousarray(made.hu.transpose(0, 2, 1)), made.affine[:, [0, 2, 1, 3]], made.spacing)
        boxes = [(side, (k, i, j)) for side, (k, j, i) in boxes]
    return Patient(made, volume, tuple(boxes))


@pytest.fixture(scope="module")
def supine() -> Patient:
    return patient(0, Position.HFS, Arms.UP)


def shown(chest: ChestAnatomy) -> tuple[AxillaCoverage, AxillaCoverage]:
    axillae = chest.axillae
    return (axillae[0].coverage, axillae[1].coverage) if axillae else nothing_shown()


def cuts(step: tuple[int, int, int]):
    """Boxes that leave something out at one of the six sides."""
    for axis, (low, high) in enumerate(WHOLE):
        for at in range(step[axis], high - 3, step[axis]):
            yield (*WHOLE[:axis], (at, high), *WHOLE[axis + 1 :])
            yield (*WHOLE[:axis], (low, high - at), *WHOLE[axis + 1 :])


@pytest.mark.parametrize(
    ("of", "step"),
    [
        (patient(0, Position.HFS, Arms.UP), (6, 21, 7)),
        (patient(4, Position.FFS, Arms.UP, padding=True), (9, 33, 17)),
        (patient(2, Position.HFP, Arms.DOWN), (9, 33, 17)),
        (patient(3, Position.HFS, Arms.DOWN, padding=True, on_the_side=True), (9, 17, 33)),
    ],
    ids=["head first", "feet first", "prone, arms down", "on the side, arms down"],
)
def test_an_axilla_of_which_a_node_is_cut_off_is_never_called_covered(of: Patient, step: tuple[int, int, int]) -> None:
    assert [axilla.covered for axilla in shown(of.cut(*WHOLE))] == [True, True]
    middle = of.made.patient.shift[0]
    wrong, lost = [], 0
    for box in cuts(step):
        chest = of.cut(*box)
        for axilla in shown(chest):
            gone = of.lost(axilla.side, *box)
            lost += gone
            if gone and axilla.covered:
                wrong.append((box, axilla))
        # What is searched for nodes of one side lies on that side, whatever of the other is left.
        for axilla in chest.axillae or ():
            columns = np.flatnonzero(axilla.mask.any(axis=(0, 1)))
            if columns.size:
                flip = chest.frame.flip_x and (chest.volume.voxels.shape[2] - 1) * chest.volume.affine[0, 2]
                x = chest.volume.affine[0, 3] + flip + columns * of.volume.spacing[2] - middle
                if (x.max() > 15) if axilla.side is Side.RIGHT else (x.min() < -15):
                    wrong.append((box, axilla.side, x.min(), x.max()))
    assert not wrong
    assert lost > 25


def test_a_margin_without_axilla_may_be_cut_off(supine: Patient) -> None:
    for box in (((3, SLICES), (6, SIZE), (6, SIZE)), ((0, SLICES), (0, SIZE - 16), (0, SIZE - 6))):
        assert [axilla.covered for axilla in shown(supine.cut(*box))] == [True, True], box


@pytest.mark.parametrize("collapsed", list(Side))
def test_one_collapsed_lung_hides_no_axilla_and_no_cut(supine: Patient, collapsed: Side) -> None:
    chest = supine.cut(*WHOLE)
    lungs = anatomy.lung_mask(chest.coarse.hu, chest.chest.body, chest.coarse.spacing)
    half = np.arange(SIZE) < chest.chest.midline
    hu = supine.volume.voxels.copy()
    hu[lungs & (half if collapsed is Side.RIGHT else ~half)] = 30
    sick = Patient(supine.made, volume_of(hu, supine.volume.affine, supine.volume.spacing), supine.nodes)
    assert [axilla.covered for axilla in shown(sick.cut(*WHOLE))] == [True, True]
    for at in range(16, SIZE - 16, 16):
        for box in ((*WHOLE[:2], (at, SIZE)), (*WHOLE[:2], (0, SIZE - at))):
            for axilla in shown(sick.cut(*box)):
                assert not (axilla.covered and sick.lost(axilla.side, *box)), box


def test_what_is_missing_is_said(supine: Patient) -> None:
    right, left = shown(supine.cut(*WHOLE[:2], (0, 88)))
    assert right.covered
    assert left.remark == "cut off at the side of the image"
    for part, remark in (
        (((14, SLICES), *WHOLE[1:]), "lower part below the bottom slice"),
        (((0, 28), *WHOLE[1:]), "upper part above the top slice"),
        ((WHOLE[0], (50, SIZE), WHOLE[2]), "cut off at the front of the image"),
        ((WHOLE[0], (0, 60), WHOLE[2]), "cut off at the back of the image"),
    ):
        for axilla in shown(supine.cut(*part)):
            assert axilla.shown
            assert remark in axilla.remark


def test_the_padding_of_a_couch_between_cut_arms_is_no_lung() -> None:
    made = phantom.make_patient(9001, 3, PhantomSettings(size=SIZE, spacing_mm=(2.4, 3.6)))
    chest = ChestAnatomy(volume_of(made.hu, made.affine, made.spacing))
    assert made.patient.arms is Arms.DOWN
    assert {axilla.remark for axilla in shown(chest)} == {"cut off at the side of the image"}
    assert chest.chest.sight.landmarks


def lungs_of(of: Patient) -> np.ndarray:
    chest = of.cut(*WHOLE)
    return anatomy.lung_mask(chest.coarse.hu, chest.chest.body, chest.coarse.spacing)


def test_lungs_that_are_joined_and_open_to_the_edge_are_lungs(supine: Patient) -> None:
    """Bronchi join both lungs: a cut through the right one made both disappear, and the levels changed."""
    whole, hu = supine.cut(*WHOLE).chest.thorax, supine.volume.voxels.copy()
    hu[whole] = -850
    joined = Patient(supine.made, volume_of(hu, supine.volume.affine, supine.volume.spacing), supine.nodes)
    first = int(np.flatnonzero(whole.any(axis=(0, 1)))[0])
    chest = joined.cut(*WHOLE[:2], (first + 6, SIZE))
    assert np.array_equal(chest.chest.thorax.any(axis=(1, 2)), whole.any(axis=(1, 2)))
    assert chest.chest.sight.wall_cut(Side.RIGHT).sum() > 10
    assert not chest.chest.sight.landmarks


def test_without_lungs_in_some_of_its_slices_no_axilla_is_covered(supine: Patient) -> None:
    lungs, hu = lungs_of(supine), supine.volume.voxels.copy()
    hu[22:25][lungs[22:25]] = 30
    chest = ChestAnatomy(volume_of(hu, supine.volume.affine, supine.volume.spacing))
    assert [axilla.remark for axilla in chest.coverage] == ["the chest wall cannot be found in every slice"] * 2
    assert not chest.chest.sight.landmarks


def test_a_series_whose_uppermost_slice_shows_the_tips_of_the_lungs_does_not_cover_the_axillae() -> None:
    chest = patient(1, Position.FFS, Arms.UP, padding=True).cut(*WHOLE)
    assert chest.chest.thorax[-1].any()
    assert {axilla.remark for axilla in chest.coverage} == {"upper part above the top slice"}


def test_a_side_that_is_not_in_the_image_is_not_searched(supine: Patient) -> None:
    chest = supine.cut(*WHOLE[:2], (0, 64))
    right, left = shown(chest)
    assert right.shown
    assert not left.shown
    assert not chest.axillae[1].mask.any()


def test_of_an_abdomen_with_the_lower_end_of_the_lungs_nothing_is_searched(supine: Patient) -> None:
    hu = supine.volume.voxels[:18].copy()
    hu[:6][hu[:6] < -400] = 40
    hu[:6][supine.volume.voxels[:6] < -950] = -1000
    chest = ChestAnatomy(volume_of(hu, supine.volume.affine, supine.volume.spacing))
    assert chest.chest is not None
    coverage = chest.coverage
    assert readings(chest) == []
    assert [(axilla.shown, axilla.remark) for axilla in coverage] == [(False, "above the top slice")] * 2


def test_an_axilla_without_fat_has_no_candidates_and_is_no_error(supine: Patient) -> None:
    hu = supine.volume.voxels.copy()
    hu[(hu > -250) & (hu < 40)] = 40
    chest = ChestAnatomy(volume_of(hu, supine.volume.affine, supine.volume.spacing))
    assert chest.axillae[0].mask.any()
    assert readings(chest) == []


@pytest.mark.parametrize(
    ("box", "told"),
    [
        (WHOLE, True),
        (((14, SLICES), *WHOLE[1:]), False),
        (((6, SLICES), *WHOLE[1:]), False),
        (((0, 28), *WHOLE[1:]), False),
        ((*WHOLE[:2], (0, 88)), False),
        ((WHOLE[0], (50, SIZE), WHOLE[2]), False),
    ],
    ids=["whole", "begins in the axilla", "begins below it", "ends in it", "one chest wall cut off", "front cut off"],
)
def test_a_level_is_told_only_where_the_images_hold_the_landmarks(supine: Patient, box, told: bool) -> None:
    landmarks = supine.cut(*box).landmarks
    assert landmarks.level(SURE, landmarks.place(10, 40, 30)) is (ORDER[0] if told else None)


def test_the_level_is_not_told_in_an_axilla_that_the_side_of_the_image_cuts_off(supine: Patient) -> None:
    """A node lateral of the pectoral muscles of NLST 101287, whose images end in both axillae, was told to be of level III."""
    chest = supine.cut(*WHOLE[:2], (0, 112))
    right, left = chest.coverage
    assert (right.remark, left.remark) == ("", "cut off at the side of the image")
    assert chest.landmarks.level(SURE, chest.landmarks.place(10, 40, 30)) is ORDER[0], "no landmark is missing"
    assert [chest.level(SURE, (20, 60, column)) for column in (20, 108)] == [ORDER[0], None]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_slices_cover_no_axilla(supine: Patient, count: int) -> None:
    for first in range(0, SLICES - count, 8):
        coverage = supine.cut((first, first + count), *WHOLE[1:]).coverage
        assert not any(axilla.covered for axilla in coverage)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 90), (30, 64, 64)])
@pytest.mark.parametrize("value", [-1024, -850, 0, 3000])
def test_a_volume_of_one_value_is_an_answer(shape: tuple[int, int, int], value: int) -> None:
    affine = np.eye(4)[[2, 1, 0, 3]] * 3.0
    chest = ChestAnatomy(volume_of(np.full(shape, value, np.int16), affine, (3.0, 3.0, 3.0)))
    coverage = chest.coverage
    assert readings(chest) == []
    assert not any(axilla.covered or axilla.shown for axilla in coverage)
