"""Both axillae are worked on at the same time, and candidates that have no room for a notch are found without a convex hull."""

import threading

import numpy as np
import pytest

from alnnode.locate.both_sides import on_both_sides
from alnnode.locate.candidate_shape import around, filled_notch
from alnnode.locate.grid import coarsen


def test_both_sides_run_at_the_same_time_and_the_results_are_in_order() -> None:
    meeting = threading.Barrier(2)

    def work(side: str) -> tuple[str, int]:
        meeting.wait(timeout=60)  # one after the other, they would not meet
        return side, threading.get_ident()

    (right, first), (left, second) = on_both_sides(work, ["right", "left"])
    assert (right, left) == ("right", "left")
    assert first == threading.get_ident() != second


def test_a_series_may_show_one_axilla_or_none() -> None:
    assert on_both_sides(str.upper, []) == []
    assert on_both_sides(str.upper, ["left"]) == ["LEFT"]


@pytest.mark.parametrize("failing", ["right", "left"])
def test_an_error_on_one_side_is_raised(failing) -> None:
    def work(side: str) -> None:
        if side == failing:
            raise ValueError(side)

    with pytest.raises(ValueError, match=failing):
        on_both_sides(work, ["right", "left"])


def test_the_octagon_holds_the_convex_hull() -> None:
    rng = np.random.default_rng(6)
    for _ in range(40):
        mask = rng.random((4, *rng.integers(1, 14, 2))) < rng.uniform(0.05, 0.5)
        held = around(mask)
        assert not (filled_notch(mask) & ~held).any()
        assert (held.any(axis=(1, 2)) == mask.any(axis=(1, 2))).all()
    disc = np.hypot(*(np.mgrid[-9:10, -9:10])) <= 8
    assert around(disc[None]).sum() < 1.2 * disc.sum()  # its box holds 1.47 times as many pixels
    assert not around(np.zeros((2, 3, 3), bool)).any()


def test_the_coarse_grid_is_the_mean_of_its_blocks_to_the_bit() -> None:
    hu = np.random.default_rng(3).integers(-1024, 3000, (5, 47, 52)).astype(np.int16)
    found = coarsen(hu, (1.5, 0.7, 0.65)).hu
    (nz, ny, nx), clipped = coarsen(hu, (1.5, 0.7, 0.65)).step, np.clip(hu, -1000, 1000).astype(np.float32)
    rows, columns = hu.shape[1] // ny, hu.shape[2] // nx
    blocks = clipped[::nz, : rows * ny, : columns * nx].reshape(-1, rows, ny, columns, nx)
    assert ny > 1
    np.testing.assert_array_equal(found, blocks.mean(axis=(2, 4)))
