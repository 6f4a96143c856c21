"""Round brushes on single slices: the same as the distance transforms and the filters of SciPy that they stand in for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from alnnode.locate.plane_morphology import below, closed, disk_brush, gaps, near, opened, round_brush, without_holes

SHAPES = [(1, 1), (1, 30), (30, 1), (5, 300), (300, 5), (61, 47)]


def masks(shape: tuple[int, int]):
    rng = np.random.default_rng(shape)
    noise = ndimage.gaussian_filter(rng.normal(size=shape), 2)
    yield np.zeros(shape, bool)
    yield np.ones(shape, bool)
    yield rng.random(shape) < 0.02
    yield noise > 0
    yield noise < noise.mean() + noise.std()


def disk(radius: int) -> np.ndarray:
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return y * y + x * x <= radius * radius + 0.5


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spacing", [(2.0, 2.0), (1.6, 1.5), (0.7, 2.3)])
@pytest.mark.parametrize("radius", [4.0, 28.0, 34.0])
def test_near_is_what_a_distance_transform_finds(shape, spacing, radius: float) -> None:
    for mask in masks(shape):
        if not mask.any():
            assert not near(gaps(mask), round_brush(radius, spacing)).any()
            continue
        distance = ndimage.distance_transform_edt(~mask, spacing)
        assert np.array_equal(near(gaps(mask), round_brush(radius, spacing)), distance <= radius)
        assert np.array_equal(near(gaps(mask), below(radius, spacing)), distance < radius)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("radius", [1, 3, 4])
def test_opening_and_dilating_by_a_disk_are_those_of_scipy(shape, radius: int) -> None:
    for mask in masks(shape):
        assert np.array_equal(opened(mask, disk_brush(radius)), ndimage.binary_opening(mask, disk(radius)))
        assert np.array_equal(near(gaps(mask), disk_brush(radius)), ndimage.binary_dilation(mask, disk(radius)))


@pytest.mark.parametrize("shape", SHAPES)
def test_closing_fills_what_a_disk_cannot_reach_from_outside(shape) -> None:
    for mask in masks(shape):
        wide = np.pad(mask, 12)
        want = ndimage.binary_closing(wide, disk(5))[12:-12, 12:-12]
        assert np.array_equal(closed(mask, disk_brush(5)), want)


@pytest.mark.parametrize("shape", SHAPES)
def test_holes_are_those_of_scipy(shape) -> None:
    for mask in masks(shape):
        assert np.array_equal(without_holes(mask), ndimage.binary_fill_holes(mask))
