"""Distances on the grid: the quick forms say what SciPy's general transform says, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from alnnode.locate.distances import LARGEST_RADIUS, depth_inside, dilate, erode, grown, mask_box, shrunk

MASKS = arrays(np.bool_, array_shapes(min_dims=3, max_dims=3, max_side=12)).filter(lambda m: m.any() and not m.all())


@given(mask=MASKS, radius=st.sampled_from([0.5, 1.0, 2.5, 4.0, LARGEST_RADIUS]))
def test_balls_are_those_of_the_general_transform(mask, radius):
    np.testing.assert_array_equal(dilate(mask, radius), ndimage.distance_transform_edt(~mask) <= radius)
    np.testing.assert_array_equal(erode(mask, radius), ndimage.distance_transform_edt(mask) > radius)


@given(mask=MASKS)
def test_depth_is_that_of_the_general_transform(mask):
    expected = ndimage.distance_transform_edt(mask).astype(np.float32)
    assert depth_inside(mask).tobytes() == expected.tobytes()


@given(mask=MASKS)
def test_growing_and_shrinking_by_a_face_are_the_general_ones(mask):
    np.testing.assert_array_equal(grown(mask), ndimage.binary_dilation(mask))
    np.testing.assert_array_equal(shrunk(mask), ndimage.binary_erosion(mask))


@given(mask=MASKS, steps=st.integers(0, 3))
def test_the_box_of_a_mask_with_a_margin_ends_at_the_border_of_the_grid(mask, steps):
    wide = ndimage.maximum_filter(mask, 2 * steps + 1, mode="constant")
    assert mask_box(mask, steps) == ndimage.find_objects(wide.astype(int))[0]


def test_nothing_is_near_nothing_and_a_radius_too_large_is_refused():
    nothing = np.zeros((3, 4, 5), bool)
    assert not dilate(nothing, 4.0).any()
    assert erode(~nothing, 4.0).all()
    with pytest.raises(ValueError, match="at most"):
        dilate(nothing, LARGEST_RADIUS + 1)
