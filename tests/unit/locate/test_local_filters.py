"""Filters near a mask: they say what the general filters say, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage
from skimage.feature import peak_local_max

from alnnode.locate.candidate_shape import fat_contacts
from alnnode.locate.local_filters import SLAB, TRUNCATE, gaussian_near, peaks

SHAPES = array_shapes(min_dims=3, max_dims=3, max_side=12)


@pytest.mark.parametrize("sigma", [0.8, 1.0, 1.1])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.02])
def test_a_gaussian_near_a_mask_is_that_of_the_whole_volume(sigma, share):
    noise = np.random.default_rng(3)
    values = noise.normal(0, 60, (2 * SLAB + 5, 23, 31)).astype(np.float32)
    mask = noise.random(values.shape) < share
    whole = ndimage.gaussian_filter(values, sigma, truncate=TRUNCATE)
    near = gaussian_near(values, sigma, mask, -np.inf)
    needed = ndimage.maximum_filter(mask, 2 * int(TRUNCATE * sigma + 0.5) + 1, mode="constant")
    assert near[needed].tobytes() == whole[needed].tobytes()
    assert np.isin(near, [-np.inf, *whole.ravel()]).all()
    if share == 0:
        assert np.isneginf(near).all()


@given(values=arrays(np.float32, SHAPES, elements=st.integers(0, 9).map(float)), least=st.integers(0, 8))
def test_peaks_are_those_of_the_general_search(values, least):
    expected = peak_local_max(values, min_distance=3, threshold_abs=least, exclude_border=False)
    if np.ptp(values) == 0:  # the general search finds none in a constant volume
        expected = expected[:0]
        values = np.zeros_like(values)
    np.testing.assert_array_equal(peaks(values, float(least), 3), expected)


@given(labels=arrays(np.int32, SHAPES, elements=st.integers(0, 3)), seed=st.integers(0, 99))
def test_fat_contact_is_the_share_of_free_faces(labels, seed):
    soft = (labels > 0) | (np.random.default_rng(seed).random(labels.shape) < 0.5)
    faces, free = np.zeros(4), np.zeros(4)
    for place in np.ndindex(labels.shape):
        for axis in range(3):
            for step in (-1, 1):
                beside = list(place)
                beside[axis] += step
                if 0 <= beside[axis] < labels.shape[axis] and labels[tuple(beside)] != labels[place]:
                    faces[labels[place]] += 1
                    free[labels[place]] += not soft[tuple(beside)]
    chosen = np.flatnonzero(labels > 1)
    expected = np.where(np.arange(4) > 1, free / np.maximum(faces, 1), 0)
    np.testing.assert_array_equal(fat_contacts(labels, soft, chosen, 4), expected)
