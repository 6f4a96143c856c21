"""The evaluation of coverage on cut images: the cuts, what they lose, and that a wrong answer is counted."""

from dataclasses import replace

import numpy as np
import pytest
from pydicom import Dataset

from alnnode import phantom
from alnnode.imaging.orientation import in_plane
from alnnode.locate.axillary_level import PLACES, TERMS, LevelModel
from alnnode.locate.grid import Frame, coarsen
from alnnode.phantom import Arms, PhantomSettings
from alnnode.records import AxillaCoverage, Side, SliceRef, Volume
from training.detection import coverage_cuts
from training.detection.coverage_cuts import CutCount, WholeSeries
from training.detection.evaluate_coverage import coverage_table, refusal_table
from training.detection.image_cuts import Cut, CutSide, CuttableSeries, turned_copies
from training.detection.reference import MarkedPlace, Reference, pair_readers

SURE = LevelModel((0.0,) * PLACES, (1.0,) * PLACES, ((9.0, *(0.0,) * (TERMS - 1)), (0.0,) * TERMS, (0.0,) * TERMS))

PLACE, UNIQUE = (3, 5, 9), 2000


def volume_of(hu: np.ndarray, affine: np.ndarray, spacing: tuple[float, float, float]) -> Volume:
    return Volume(hu, affine, tuple(SliceRef("", "", None, (0, 0, 0)) for _ in hu), Dataset(), spacing)


@pytest.fixture(scope="module")
def noise() -> Volume:
    """A volume whose coarse voxels have 2 x 2 x 3 voxels, with a remainder on each axis."""
    hu = np.random.default_rng(1).integers(-1100, 1100, (11, 31, 35)).astype(np.int16)
    hu[PLACE] = UNIQUE
    return volume_of(hu, np.diag([1.0, 0.8, 0.7, 1.0])[[2, 1, 0, 3]], (1.0, 0.8, 0.7))


@pytest.fixture(scope="module")
def whole() -> WholeSeries:
    settings = PhantomSettings(size=112, slices=(42, 42), thickness_mm=(5.0, 5.0), spacing_mm=(3.6, 3.6), arms=Arms.UP)
    made = phantom.make_patient(123, 0, settings)
    boxes = [node.box for node in made.nodes]
    places = tuple(
        MarkedPlace(((b.k0 + b.k1 - 1) / 2, (b.j0 + b.j1 - 1) / 2, (b.i0 + b.i1 - 1) / 2), 10.0, 8.0, 2) for b in boxes
    )
    reference = Reference(made.spacing, places, (), (), {Side.RIGHT: (18.0, 30.0)})
    return WholeSeries(volume_of(made.hu, made.affine, made.spacing), reference, SURE)


@pytest.mark.parametrize("side", list(CutSide))
def test_the_coarse_volume_of_a_cut_is_that_of_what_is_left(noise: Volume, side: CutSide) -> None:
    series = CuttableSeries(noise, Frame.of(noise))
    for removed in range(1, 8):
        cut = Cut(side, removed)
        expected, found = coarsen(series.cut(cut), series.spacing), series.coarse(cut)
        assert np.array_equal(found.hu, expected.hu), cut
        assert (found.step, found.spacing) == (expected.step, expected.spacing)


@pytest.mark.parametrize("side", [side for side in CutSide if not side.low])
def test_cuts_with_equal_blocks_have_equal_coarse_volumes(noise: Volume, side: CutSide) -> None:
    series = CuttableSeries(noise, Frame.of(noise))
    found = {}
    for removed in range(1, 8):
        hu = series.coarse(Cut(side, removed)).hu
        assert np.array_equal(found.setdefault(series.blocks(Cut(side, removed)), hu), hu)
    assert len(found) < 7


def test_turned_copies_are_stored_in_all_orientations_and_show_the_same_patient(noise: Volume) -> None:
    frame = Frame.of(noise)
    copies = list(turned_copies(noise))
    assert len({in_plane(copy.affine) for copy in copies}) == 8
    for copy in copies:
        assert np.array_equal(Frame.of(copy).canonical(copy.voxels), frame.canonical(noise.voxels))
        (place,) = np.argwhere(copy.voxels == UNIQUE)
        np.testing.assert_allclose(copy.patient_point(*place), noise.patient_point(*PLACE))


def test_a_cut_loses_an_axilla_at_its_region_its_marks_and_the_readers_slices(whole: WholeSeries) -> None:
    losses = whole.first_loss
    assert 0 < losses[Side.RIGHT, CutSide.RIGHT] < 56 < losses[Side.LEFT, CutSide.RIGHT]
    assert 0 < losses[Side.LEFT, CutSide.LEFT] < 56 < losses[Side.RIGHT, CutSide.LEFT]
    assert losses[Side.RIGHT, CutSide.BOTTOM] <= 19
    assert losses[Side.RIGHT, CutSide.TOP] <= 42 - 30


@pytest.mark.parametrize(("side", "step"), [(CutSide.RIGHT, 18), (CutSide.BOTTOM, 12), (CutSide.TOP, 8)])
def test_no_lost_axilla_of_a_phantom_is_called_covered_and_no_level_changes(
    whole: WholeSeries, side: CutSide, step: int
) -> None:
    count = CutCount()
    whole.judge(side, step, count)
    assert (count.wrong, count.other_side, count.changed) == ([], [], [])
    assert count.cuts * 2 == count.lost + count.kept
    assert count.lost > 0


def test_a_lost_axilla_that_is_called_covered_is_counted(whole: WholeSeries, monkeypatch: pytest.MonkeyPatch) -> None:
    found = coverage_cuts.find_axillae

    def boast(coarse, chest):
        return tuple(replace(axilla, coverage=AxillaCoverage(axilla.side, True)) for axilla in found(coarse, chest))

    monkeypatch.setattr(coverage_cuts, "find_axillae", boast)
    count = CutCount()
    whole.judge(CutSide.RIGHT, 20, count)
    assert count.lost > 0
    assert "right 20: right" in count.wrong
    assert not count.refused


def test_the_tables_add_up() -> None:
    one = CutCount(cuts=3, lost=4, wrong=["top 3: left"], kept=2, refused={CutSide.TOP: [4.0, 8.0]}, told=5)
    table = coverage_table({"a": one, "b": replace(one, wrong=[])})
    assert table.splitlines()[-3:] == [
        "| a | 3 | 4 | 1 | 2 | 2 | 5 | 0 |",
        "| b | 3 | 4 | 0 | 2 | 2 | 5 | 0 |",
        "| all | 6 | 8 | 1 | 4 | 4 | 10 | 0 |",
    ]
    assert refusal_table({"a": one}).splitlines()[-1] == "| top | 2 | 6 mm | 8 mm |"


def test_the_reference_has_the_slices_that_both_readers_count_to_an_axilla() -> None:
    marks = {"spacing": [1, 1, 1], "nodes": []}
    reference = pair_readers(marks | {"axilla_range": {"R": [3, 9], "L": [1, 5]}}, marks | {"axilla_range": {"R": [4, 8.5]}})
    assert reference.slices == {Side.RIGHT: (4.0, 8.5)}
