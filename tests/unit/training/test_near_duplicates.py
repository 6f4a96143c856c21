"""Copies of an image under two names of patients are found although their bytes differ; phantoms of different patients are not."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from alnnode.imaging.crop import CropSettings
from alnnode.phantom import PhantomSettings, Surroundings
from training.data import cohort as cohorts
from training.data import near_duplicates
from training.data.near_duplicates import check_cohort

SOURCE = cohorts.PhantomSource(
    31, PhantomSettings(slices=(24, 24), min_nodes_per_side=3, surroundings=Surroundings.AXILLA), CropSettings()
)


@pytest.fixture(scope="module")
def clean() -> cohorts.Cohort:
    """Return the nodes of eight phantoms."""
    return cohorts.join_cohorts(cohorts.cohort_of_patient(SOURCE, index) for index in range(8))


def jpeg(crop: np.ndarray) -> np.ndarray:
    """Compress and decompress an image with loss."""
    sink = io.BytesIO()
    Image.fromarray(crop).save(sink, "JPEG", quality=60)
    return np.asarray(Image.open(sink))


def noisy(crop: np.ndarray) -> np.ndarray:
    """Add noise of 6 HU in a window of 400 HU."""
    return np.clip(crop + np.random.default_rng(1).normal(0, 4, crop.shape), 0, 255).astype(np.uint8)


WAYS = {
    "copied": lambda crop: crop.copy(),
    "recompressed": jpeg,
    "shifted": lambda crop: np.roll(crop, (3, -4), (0, 1)),
    "shifted by part of a pixel": lambda crop: ndimage.shift(crop.astype(float), (1.5, 0.5), order=1, mode="nearest").astype(
        np.uint8
    ),
    "noisy": noisy,
    "another kernel": lambda crop: ndimage.gaussian_filter(crop.astype(float), 0.6).astype(np.uint8),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_under_another_name_is_found_in_twenty_of_twenty_runs(clean, way) -> None:
    found = 0
    for run in range(20):
        row = int(np.random.default_rng([run, 5]).integers(len(clean)))
        copy = cohorts.select_nodes(clean, np.array([row]))
        copy = replace(copy, patient=np.array(["another name"], clean.patient.dtype), fsc=copy.fsc.copy())
        copy.fsc[0, 0, 0] = WAYS[way](copy.fsc[0, 0, 0])
        with pytest.raises(cohorts.LeakageError, match="different patient names show nearly the same image"):
            check_cohort(cohorts.join_cohorts([clean, copy]))
        found += 1
    assert found == 20


def test_a_clean_cohort_passes_with_room_to_spare(clean) -> None:
    check_cohort(clean)
    alike = near_duplicates.near_duplicates(clean.fsc[:, 0, 0], clean.patient, alike=0.0)
    assert len(alike) > 100
    assert max(correlation for _, _, correlation in alike) < near_duplicates.ALIKE - 0.05


def test_nodes_of_one_patient_may_show_the_same_image(clean) -> None:
    check_cohort(cohorts.join_cohorts([clean, clean]))


def test_crops_without_structure_are_no_copies_of_each_other() -> None:
    flat = np.full((3, 64, 64), 90, np.uint8)
    assert near_duplicates.near_duplicates(flat, np.array(["a", "b", "c"])) == []
    assert near_duplicates.near_duplicates(flat[:0], np.array([], "U1")) == []
