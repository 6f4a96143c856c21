"""Cohorts: the crops equal those of the node, no patient is in two parts, and crops are cached."""

import dataclasses

import numpy as np
import pytest

from alnnode import phantom
from alnnode.imaging.crop import CropSettings, crop_box
from alnnode.imaging.series import read_volume
from alnnode.phantom import PhantomSettings
from alnnode.records import Box
from training.data import cohort as cohorts

SOURCE = cohorts.PhantomSource(
    4, PhantomSettings(min_nodes_per_side=1, max_nodes_per_side=3, slices=(20, 20)), CropSettings(pixels=32)
)


@pytest.fixture(scope="module")
def part() -> cohorts.Cohort:
    return cohorts.cohort_of_patient(SOURCE, 0)


def test_cached_bytes_are_exactly_what_the_node_computes(part: cohorts.Cohort) -> None:
    made = phantom.make_patient(SOURCE.seed, 0, SOURCE.phantoms)
    assert len(part) == len(made.nodes) > 0
    for n, node in enumerate(made.nodes):
        pair = crop_box(cohorts.as_volume(made), node.box, node.slice_index, SOURCE.crops)
        np.testing.assert_array_equal(part.fsc[n, 0].astype(np.float32) / np.float32(255), pair.fsc)
        np.testing.assert_array_equal(part.asc[n, 0].astype(np.float32) / np.float32(255), pair.asc)


def test_other_boxes_give_other_crops(part: cohorts.Cohort) -> None:
    assert (part.asc[:, 0] != part.asc[:, 1]).any()


def test_jittered_boxes_stay_near_and_are_never_empty() -> None:
    box, rng = Box(3, 10, 20, 6, 22, 40), np.random.default_rng(0)
    for _ in range(200):
        moved, k = cohorts.jitter_box(box, 4, rng)
        assert box.k0 <= k < box.k1
        assert abs(moved.j0 - box.j0) <= 2
        assert abs(moved.i1 - box.i1) <= 3
        assert moved.j1 - moved.j0 >= 2
        assert moved.i1 - moved.i0 >= 2


def test_a_shared_patient_is_refused(part: cohorts.Cohort) -> None:
    drawn = 255 - part.fsc
    other = dataclasses.replace(part, fsc=drawn, asc=255 - part.asc, patient=np.array(["9:0"] * len(part), "U24"))
    cohorts.check_leakage(train=part, test=other)
    with pytest.raises(cohorts.LeakageError, match=r"1 patient.* train and test"):
        cohorts.check_leakage(train=cohorts.join_cohorts([part, other]), test=part)


def test_the_same_pixels_under_another_name_are_refused(part: cohorts.Cohort) -> None:
    renamed = dataclasses.replace(part, patient=np.array(["9:0"] * len(part), "U24"))
    with pytest.raises(
        cohorts.LeakageError, match=rf"{2 * len(part)} crop.* validation and test under different patient names"
    ):
        cohorts.check_leakage(validation=part, test=renamed)
    one = cohorts.select_nodes(renamed, np.array([0]))
    with pytest.raises(cohorts.LeakageError, match="2 crop"):
        cohorts.check_leakage(train=part, test=one)


def test_crops_from_files_are_those_of_training(tmp_path, part: cohorts.Cohort) -> None:
    """The node reads DICOM files, training uses the drawn phantom: both must give byte-identical crops."""
    made = phantom.make_patient(SOURCE.seed, 0, SOURCE.phantoms)
    phantom.write_series(made, tmp_path / "series")
    volume = read_volume(sorted((tmp_path / "series").iterdir(), reverse=True))
    assert len(made.nodes) > 0
    for n, node in enumerate(made.nodes):
        pair = crop_box(volume, node.box, node.slice_index, SOURCE.crops)
        assert np.rint(pair.fsc * 255).astype(np.uint8).tobytes() == part.fsc[n, 0].tobytes()
        assert np.rint(pair.asc * 255).astype(np.uint8).tobytes() == part.asc[n, 0].tobytes()
        assert (part.fsc[n, 0].astype(np.float32) / np.float32(255)).tobytes() == pair.fsc.tobytes()


def test_a_cohort_is_made_once_and_then_read(tmp_path, part: cohorts.Cohort) -> None:
    steps: list[int] = []
    first = cohorts.collect_cohort(SOURCE, 1, tmp_path, lambda: steps.append(1), processes=1)
    kept = next(tmp_path.rglob("*.npz"))
    written = kept.stat().st_mtime_ns
    again = cohorts.collect_cohort(SOURCE, 1, tmp_path, lambda: steps.append(1), processes=1)
    assert kept.stat().st_mtime_ns == written
    assert len(steps) == 2
    for one in (first, again):
        for field in dataclasses.fields(part):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(part, field.name))


def test_other_phantoms_or_crops_have_another_cache(tmp_path) -> None:
    others = [
        dataclasses.replace(SOURCE, seed=5),
        dataclasses.replace(SOURCE, phantoms=PhantomSettings()),
        dataclasses.replace(SOURCE, crops=CropSettings(pixels=48)),
    ]
    assert len({source.folder(tmp_path) for source in [SOURCE, *others]}) == 4
