"""Real CT series: what is read, and what is refused in which words."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from scipy import ndimage

from alnnode.errors import NotAnalysable
from alnnode.imaging.series import candidate_series, read_volume
from alnnode.locate.axillary_level import ORDER, PLACES, TERMS, LevelModel
from alnnode.locate.chest_anatomy import ChestAnatomy
from alnnode.locate.detector import Detector
from alnnode.locate.search import SearchLimits, locate_nodes
from alnnode.model import bundle
from alnnode.records import Side

pytestmark = pytest.mark.data
DATA = Path(os.environ.get("ALNNODE_TEST_DATA") or Path(__file__).parents[4] / "shared" / "data")


def only_series(folder):
    if not (DATA / folder).exists():
        pytest.skip(f"REAL DATA ABSENT: {DATA / folder} (set ALNNODE_TEST_DATA)")
    ((_, paths),) = candidate_series(DATA / folder).items()
    return paths


@pytest.mark.parametrize(
    ("folder", "shape", "spacing"),
    [
        ("ct_acrin_flt_breast_001_F", (99, 512, 512), (4.25, 0.976562, 0.976562)),
        ("ct_nlst_101287_F", (143, 512, 512), (2.0, 0.54, 0.54)),
        ("ct_lidc_partial/LIDC-IDRI-0001", (16, 512, 512), (2.5, 0.703125, 0.703125)),
        ("ct_lidc_partial/LIDC-IDRI-0002", (12, 512, 512), (1.25, 0.681641, 0.681641)),
        ("ct_lidc_partial/LIDC-IDRI-0003", (11, 512, 512), (2.5, 0.820312, 0.820312)),
    ],
)
def test_geometry(folder, shape, spacing):
    volume = read_volume(only_series(folder))
    assert volume.voxels.shape == shape
    np.testing.assert_allclose(volume.spacing, spacing, atol=1e-4)
    assert np.diff([s.position[2] for s in volume.slices]).min() > 0
    body = volume.voxels[:, 128:384, 128:384]
    assert 0.05 < (body < -500).mean() < 0.9, "lung or air"
    assert ((body > -200) & (body < 300)).mean() > 0.1, "soft tissue"


def test_feet_first_series_has_the_heart_on_the_left_and_the_spine_at_the_back():
    """LIDC-IDRI-0314 is feet first, and each slice names a frame of reference of its own."""
    volume = read_volume(only_series("ct_lidc_0314_F"))
    assert volume.notes == ("the images have different Frame of Reference UIDs; positions are assumed comparable",)
    assert volume.voxels.shape == (275, 512, 512)
    # The apices are narrow and the bases wide: the lungs' cross-section falls towards the head.
    body = ndimage.binary_opening(volume.voxels[:, ::4, ::4] > -300, iterations=2)
    lung = (volume.voxels[:, ::4, ::4] < -600) & ndimage.binary_fill_holes(body.any(axis=0))
    bone = np.argwhere(volume.voxels[120:160, ::4, ::4] > 300)
    _, j, i = bone.mean(axis=0)
    assert volume.patient_point(140, 4 * j, 4 * i)[1] > volume.patient_point(140, 255, 255)[1], "more bone at the back"
    assert lung[40:140].sum() > lung[-100:].sum()


def test_thick_slices_are_refused_with_their_distance():
    paths = only_series("ct_lungdx_A0002_F")
    with pytest.raises(NotAnalysable, match=r"slices are 8 mm apart; the analysis needs 5 mm or less.*thin reconstruction"):
        read_volume(paths)
    assert read_volume(paths, max_spacing_mm=8).spacing[0] == pytest.approx(8)


def test_missing_slices_are_named():
    paths = only_series("ct_lidc_partial/LIDC-IDRI-0001")
    ordered = {s.sop_instance_uid: s for s in read_volume(paths).slices}
    by_place = sorted(paths, key=lambda p: ordered[dcmread(p, specific_tags=["SOPInstanceUID"]).SOPInstanceUID].position[2])
    with pytest.raises(NotAnalysable, match=r"Slices are missing between z = .* mm, 3 of 16"):
        read_volume(by_place[:5] + by_place[8:])


@pytest.mark.parametrize(
    ("folder", "threshold"), [("ct_lidc_partial/LIDC-IDRI-0001", 0.003), ("ct_lidc_partial/LIDC-IDRI-0002", 0.03)]
)
def test_nodes_of_a_feet_first_stack_lie_on_their_side_and_what_it_does_not_show_is_said(folder, threshold):
    volume = read_volume(only_series(folder))
    assert volume.header.PatientPosition == "FFS"
    detector = Detector.from_bundle(bundle.load(bundle.resolve("demo")))
    # A low threshold: sides are asked for, not whether these are nodes.
    chest = ChestAnatomy(volume)
    nodes, coverage = locate_nodes(chest, detector, SearchLimits(4, 20, threshold)), chest.coverage
    assert [c.side for c in coverage] == [Side.RIGHT, Side.LEFT]
    assert all(not c.covered and "above the top slice" in c.remark and "below the bottom slice" in c.remark for c in coverage)
    # Patient coordinates grow to the left (PS3.3 C.7.6.2.1.1); the middle of the bone is near the spine.
    _, _, column = np.argwhere(volume.voxels > 300).mean(axis=0)
    middle = volume.patient_point(0, 0, column)[0]
    assert {node.side for node in nodes} == {Side.RIGHT, Side.LEFT}
    for node in nodes:
        x = volume.patient_point(*node.box.centre)[0]
        assert abs(x - middle) > 40, "beside the chest"
        assert node.side is (Side.LEFT if x > middle else Side.RIGHT)


def coverage(volume):
    return [(axilla.coverage.covered, axilla.coverage.remark) for axilla in ChestAnatomy(volume).axillae]


@pytest.mark.parametrize("folder", ["ct_acrin_nsclc_042_M", "ct_4dlung_113_M", "ct_lidc_0314_F"])
def test_whole_axillae_are_covered_and_those_without_a_chest_wall_are_not(folder):
    volume = read_volume(only_series(folder))
    assert coverage(volume) == [(True, ""), (True, "")]
    if folder == "ct_lidc_0314_F":
        return
    for cut in (136, 184):
        right, left = coverage(replace(volume, voxels=volume.voxels[:, :, :-cut]))
        assert right in {(True, ""), (False, "the chest is not shown from side to side")}
        assert left == (False, "cut off at the side of the image")


@pytest.mark.parametrize(
    ("folder", "right", "left"),
    [
        ("ct_acrin_flt_breast_001_F", "lower part below the bottom slice", "lower part below the bottom slice"),
        ("ct_nlst_101287_F", "cut off at the side of the image", "cut off at the side of the image"),
        ("ct_lidc_0001_F", "cut off at the side of the image", ""),
    ],
)
def test_what_a_series_does_not_show_of_the_axillae_is_said(folder, right, left):
    assert coverage(read_volume(only_series(folder))) == [(not right, right), (not left, left)]


def test_the_levels_of_a_series_that_begins_in_the_axilla_are_not_determined():
    """Node 6 of ACRIN-FLT-Breast_001, far to the side in the lowest slice, was told to be of level III."""
    chest = ChestAnatomy(read_volume(only_series("ct_acrin_flt_breast_001_F")))
    sure = LevelModel((0.0,) * PLACES, (1.0,) * PLACES, ((9.0, *(0.0,) * (TERMS - 1)), *((0.0,) * TERMS,) * 2))
    place = chest.landmarks.place(0, 246.5, 77.5)
    assert sure.level(place) is ORDER[0]
    assert chest.landmarks.level(sure, place) is None


@pytest.mark.parametrize(
    ("folder", "kept"),
    [
        ("ct_acrin_flt_breast_001_F", np.s_[:, :, 256:]),
        ("ct_acrin_flt_breast_001_F", np.s_[:, :, 258:]),
        ("ct_lidc_0001_F", np.s_[:, :-336]),
    ],
)
def test_of_a_part_of_the_chest_no_axilla_beyond_its_midline_is_searched(folder, kept):
    """Where half of the chest is outside the images, the middle of the visible lungs is not the midline."""
    volume = read_volume(only_series(folder))
    middle = ChestAnatomy(volume).chest.midline
    chest = ChestAnatomy(replace(volume, voxels=np.ascontiguousarray(volume.voxels[kept])))
    removed = (volume.voxels.shape[2] - chest.volume.voxels.shape[2]) / chest.coarse.step[2]
    right, left = (np.flatnonzero(axilla.mask.any(axis=(0, 1))) + removed for axilla in chest.axillae)
    assert (right < middle).all(), right
    assert (left > middle).all(), left
    assert not all(axilla.coverage.covered for axilla in chest.axillae)
