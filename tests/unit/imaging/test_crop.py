"""Crops: invertible geometry, size kept under FSC, shape kept under ASC, sides kept in every position."""

import itertools

import numpy as np
import pytest
from pydicom import Dataset

from alnnode.imaging.crop import CropSettings, asc_geometry, crop_box, from_voxel, fsc_geometry, sample, to_voxel
from alnnode.imaging.orientation import in_plane
from alnnode.locate.grid import Frame
from alnnode.records import Box, Crop, Heatmap, SliceRef, Volume
from alnnode.report.capture.canvas import View, orientation, overlay
from alnnode.report.objects.parametric_map import on_raster

SETTINGS = CropSettings(pixels=80, fsc_mm=48.0, windows=((40.0, 400.0), (40.0, 160.0)))


def make_volume(spacing=(2.0, 0.7, 0.9), shape=(5, 120, 110), prone=False) -> Volume:
    sign = -1.0 if prone else 1.0
    affine = np.eye(4)
    affine[:3, :3] = 0
    affine[2, 0], affine[1, 1], affine[0, 2] = spacing[0], sign * spacing[1], sign * spacing[2]
    refs = tuple(SliceRef("1.2", f"1.2.{k}", None, (0.0, 0.0, k * spacing[0])) for k in range(shape[0]))
    return Volume(np.full(shape, -100, np.int16), affine, refs, Dataset(), spacing)


@pytest.mark.parametrize("prone", [False, True])
@pytest.mark.parametrize("make", [fsc_geometry, asc_geometry])
def test_geometry_inverts(make, prone) -> None:
    geometry = make(make_volume(prone=prone), Box(1, 40, 50, 4, 61, 63), 2, SETTINGS)
    for v, u in ((0.0, 0.0), (79.0, 0.0), (12.25, 66.5)):
        assert from_voxel(geometry, *to_voxel(geometry, v, u)) == pytest.approx((v, u), abs=1e-9)


def test_the_box_centre_is_the_crop_centre() -> None:
    box = Box(1, 40, 50, 4, 61, 63)
    for make in (fsc_geometry, asc_geometry):
        assert to_voxel(make(make_volume(), box, 2, SETTINGS), 39.5, 39.5) == pytest.approx((50.0, 56.0))


def test_fsc_keeps_millimetres_and_asc_fits_the_box() -> None:
    volume = make_volume()
    small, large = Box(1, 50, 50, 4, 56, 56), Box(1, 40, 40, 4, 70, 70)
    for box in (small, large):
        geometry = fsc_geometry(volume, box, 2, SETTINGS)
        assert geometry.step_row * geometry.size * volume.spacing[1] == pytest.approx(48.0)
        assert geometry.step_column * geometry.size * volume.spacing[2] == pytest.approx(48.0)
    sides = [asc_geometry(volume, box, 2, SETTINGS).step_column * SETTINGS.pixels * volume.spacing[2] for box in (small, large)]
    assert sides[0] == pytest.approx(6 * 0.9 + 2 * 2.5)  # the smallest margin rules
    assert sides[1] == pytest.approx(27 * 1.7)


def test_prone_and_supine_show_the_networks_the_same_picture() -> None:
    supine = make_volume()
    supine.voxels[2, 50:60, 50:58] = 60
    supine.voxels[2, 50:53, 50:52] = 300  # a corner that tells front from back and left from right
    turned = make_volume(prone=True)
    turned.voxels[:] = supine.voxels[:, ::-1, ::-1]
    rows, columns = supine.voxels.shape[1:]
    box, mirrored = Box(1, 50, 50, 4, 60, 58), Box(1, rows - 60, columns - 58, 4, rows - 50, columns - 50)
    ours, theirs = crop_box(supine, box, 2, SETTINGS), crop_box(turned, mirrored, 2, SETTINGS)
    np.testing.assert_allclose(ours.fsc, theirs.fsc, atol=1 / 254)
    np.testing.assert_allclose(ours.asc, theirs.asc, atol=1 / 254)


def lying(turn: tuple[bool, bool, bool], noise: float = 0.0) -> tuple[Volume, Box]:
    """The same patient in one of eight positions in the plane, each component of the directions off by ``noise``, and the box of a node."""
    upright = make_volume(spacing=(2.0, 0.7, 0.9), shape=(5, 120, 110))
    upright.voxels[:] = np.random.default_rng(3).integers(-150, 200, upright.voxels.shape)
    voxels, affine, low, high = upright.voxels, upright.affine.copy(), [50, 44], [63, 52]
    transposed, flip_y, flip_x = turn
    for axis, flip in ((1, flip_y), (2, flip_x)):
        if flip:
            count = voxels.shape[axis]
            affine[:3, 3] += (count - 1) * affine[:3, axis]
            affine[:3, axis] *= -1
            voxels = np.flip(voxels, axis)
            low[axis - 1], high[axis - 1] = count - high[axis - 1], count - low[axis - 1]
    spacing = upright.spacing
    if transposed:
        voxels, affine = voxels.transpose(0, 2, 1), affine[:, [0, 2, 1, 3]]
        spacing, low, high = (spacing[0], spacing[2], spacing[1]), low[::-1], high[::-1]
    affine[:2, 1:3] += noise
    return Volume(np.ascontiguousarray(voxels), affine, upright.slices, Dataset(), spacing), Box(1, *low, 4, *high)


TURNS = list(itertools.product((False, True), repeat=3))


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("noise", [0.0, 1e-12, -1e-12])
def test_however_the_patient_lies_the_networks_see_the_same_picture(turn, noise) -> None:
    volume, box = lying(turn, noise)
    ours, upright = crop_box(volume, box, 2, SETTINGS), crop_box(*lying((False, False, False)), 2, SETTINGS)
    np.testing.assert_allclose(ours.fsc, upright.fsc, atol=1 / 254)
    np.testing.assert_allclose(ours.asc, upright.asc, atol=1 / 254)
    for v, u in ((0.0, 0.0), (79.0, 0.0), (12.25, 66.5)):
        place = to_voxel(ours.fsc_geometry, v, u)
        assert from_voxel(ours.fsc_geometry, *place) == pytest.approx((v, u), abs=1e-9)
        # Down is to the back, and across is to the left of the patient.
        down, right = (to_voxel(ours.fsc_geometry, *p) for p in ((v + 1, u), (v, u + 1)))
        x, y = 0, 1
        assert volume.patient_point(2, *down)[y] > volume.patient_point(2, *place)[y]
        assert volume.patient_point(2, *right)[x] > volume.patient_point(2, *place)[x]


@pytest.mark.parametrize("turn", TURNS)
def test_crop_search_and_captures_turn_a_slice_alike(turn) -> None:
    volume, box = lying(turn, -1e-12)
    geometry = fsc_geometry(volume, box, 2, SETTINGS)
    frame, view = Frame.of(volume), View.centred(volume, (2.0, *box.centre[1:]), SETTINGS.fsc_mm, SETTINGS.pixels)
    assert (frame.transposed, frame.flip_y, frame.flip_x) == turn
    assert orientation(volume, view) == ("R", "L", "A", "P")
    rows, columns = view.grid()
    for v, u in ((0, 0), (79, 0), (12, 66)):
        assert to_voxel(geometry, v, u) == pytest.approx((rows[v, u], columns[v, u]), abs=1e-6)
    # A heatmap lies where its crop was taken, in the map and in the captures.
    values = np.zeros((SETTINGS.pixels, SETTINGS.pixels), np.float32)
    values[20, 60] = 1.0
    heatmap = Heatmap(Crop.FSC, values, geometry)
    hottest = np.unravel_index(on_raster(heatmap, volume.voxels.shape[1:]).argmax(), volume.voxels.shape[1:])
    assert hottest == pytest.approx(to_voxel(geometry, 20, 60), abs=1.0)
    drawn = overlay(np.zeros((SETTINGS.pixels, SETTINGS.pixels, 3), np.uint8), view, heatmap)
    assert np.unravel_index(drawn.sum(axis=2).argmax(), drawn.shape[:2]) == (20, 60)


def test_half_way_between_two_positions_rounding_does_not_choose() -> None:
    for noise in (0.0, 1e-12, -1e-12):
        affine = np.zeros((4, 4))
        affine[:2, 1], affine[:2, 2], affine[2, 0] = (-0.5 - noise, 0.5), (0.5, 0.5 + noise), 1.0
        assert in_plane(affine) == (False, False, False)


def test_samples_are_the_voxels_where_pixels_meet_voxels() -> None:
    volume = make_volume(spacing=(2.0, 0.6, 0.6))
    volume.voxels[:] = np.random.default_rng(0).integers(-150, 200, volume.voxels.shape)
    geometry = fsc_geometry(volume, Box(1, 40, 40, 4, 60, 60), 2, CropSettings(pixels=80, fsc_mm=48.0))
    found = sample(volume, geometry, ((40.0, 400.0),))[0]
    top, left = round(geometry.top), round(geometry.left)
    expected = (volume.voxels[2, top : top + 80, left : left + 80] - (40 - 0.5 - 399 / 2)) / 399
    np.testing.assert_allclose(found, np.clip(expected, 0, 1), atol=2.1e-3)


def test_beyond_the_image_is_air() -> None:
    crops = crop_box(make_volume(), Box(0, 0, 0, 3, 4, 4), 1, SETTINGS)
    assert crops.fsc.shape == crops.asc.shape == (2, 80, 80)
    assert crops.fsc.dtype == np.float32
    assert crops.fsc[0, 0, 0] == 0.0
    assert crops.fsc[0, 79, 79] > 0.0


def test_further_slices_are_millimetres_apart_in_every_series() -> None:
    settings = CropSettings(pixels=32, windows=((0.0, 510.0),), slices=3, slice_step_mm=3.0)
    for spacing in (1.0, 1.5, 2.0, 5.0):
        volume = make_volume(spacing=(spacing, 0.7, 0.9), shape=(31, 60, 60))
        height = (np.arange(31) - 15) * spacing
        volume.voxels[:] = np.rint(4 * height)[:, None, None].astype(np.int16)  # HU tell the height
        fsc = crop_box(volume, Box(10, 20, 20, 20, 40, 40), 15, settings).fsc
        assert fsc.shape == (3, 32, 32)
        middle, below, above = ((plane[16, 16] * 255 - 127.5) * 2 / 4 for plane in fsc)
        assert (middle, below, above) == pytest.approx((0.0, -3.0, 3.0), abs=0.3)
    edge = crop_box(volume, Box(0, 20, 20, 2, 40, 40), 0, settings).fsc
    np.testing.assert_array_equal(edge[0], edge[1])  # below the first slice there is none


@pytest.mark.parametrize(
    ("blood", "level"), [(None, 0.0), (-30.0, 1 / 255), (40.0, 26 / 255), (200.0, 128 / 255), (900.0, 1.0)]
)
def test_the_last_channel_tells_the_attenuation_of_the_blood(blood, level) -> None:
    settings = CropSettings(pixels=32, blood_pool=True)
    pair = crop_box(make_volume(), Box(0, 40, 40, 3, 60, 60), 2, settings, blood)
    plain = crop_box(make_volume(), Box(0, 40, 40, 3, 60, 60), 2, CropSettings(pixels=32))
    assert settings.channels == 4
    for found, before in ((pair.fsc, plain.fsc), (pair.asc, plain.asc)):
        np.testing.assert_array_equal(found[:3], before)
        assert found[3].min() == found[3].max() == pytest.approx(level)
