"""What a series is and where its voxels lie."""

import io
import os
from dataclasses import replace

import numpy as np
import pytest
from analyses import CONTEXT, analysis
from ct_series import ROOT, ct_slice, enhanced, pixels, position, write
from pydicom import Dataset, dcmread
from pydicom.uid import BasicTextSRStorage, JPEGLSNearLossless, SecondaryCaptureImageStorage

from alnnode import report
from alnnode.errors import NotAnalysable
from alnnode.imaging.series import candidate_series, read_header, read_volume

HU = np.stack([pixels(k).astype(np.int16) - 1024 for k in range(6)])


def test_slices_are_ordered_by_place_not_by_number_or_file(tmp_path):
    paths = write((ct_slice(k) for k in (3, 0, 5, 1, 4, 2)), tmp_path)
    volume = read_volume(paths)
    assert volume.voxels.dtype == np.int16
    assert volume.voxels.flags.c_contiguous
    np.testing.assert_array_equal(volume.voxels, HU)
    assert [s.sop_instance_uid for s in volume.slices] == [f"{ROOT}.1.{k + 1}" for k in range(6)]
    assert {s.frame_number for s in volume.slices} == {None}
    np.testing.assert_allclose(volume.spacing, (2.0, 0.8, 0.8))
    assert volume.slice_thickness == 2.0
    assert volume.notes == ()
    np.testing.assert_array_equal(read_volume(paths[::-1]).voxels, volume.voxels)


def test_centre_of_the_first_voxel_is_image_position(tmp_path):
    volume = read_volume(write((ct_slice(k) for k in range(6)), tmp_path))
    for k in range(6):
        np.testing.assert_allclose(volume.patient_point(k, 0, 0), position(k), atol=1e-5)
        assert volume.slices[k].position == tuple(position(k))
    a, b = np.array(volume.patient_point(2, 10, 20)), np.array(volume.patient_point(2, 10, 21))
    np.testing.assert_allclose(b - a, (0.8, 0, 0), atol=1e-9)


ORIENTATIONS = {
    "head first supine": (1, 0, 0, 0, 1, 0),
    "head first prone": (-1, 0, 0, 0, -1, 0),
    "feet first supine": (-1, 0, 0, 0, 1, 0),
    "feet first prone": (1, 0, 0, 0, -1, 0),
    "decubitus": (0, 1, 0, -1, 0, 0),
    "oblique": (np.cos(0.2), 0, np.sin(0.2), 0, 1, 0),
}


@pytest.mark.parametrize("orientation", ORIENTATIONS.values(), ids=ORIENTATIONS)
@pytest.mark.parametrize("patient_position", ["HFS", "FFS", None])
def test_patient_left_is_plus_x_however_the_patient_lies(tmp_path, orientation, patient_position):
    """A bright spot 15 mm to the patient's left, 5 mm to the back, in the slice at z = -100 + 3 * 2 mm."""
    orientation = tuple(float(v) for v in orientation)
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    slices = [ct_slice(k, orientation=orientation, PatientPosition=patient_position or "") for k in range(6)]
    target = np.array([15.0, 5.0, 0.0])
    origin = np.array(position(3, orientation=orientation))
    i, j = (round(float((target - origin) @ axis) / 0.8) for axis in (row, column))
    bright = pixels(3)
    bright[j, i] = 4000
    slices[3].PixelData = bright.tobytes()
    volume = read_volume(write(slices, tmp_path))
    k, j, i = np.unravel_index(volume.voxels.argmax(), volume.voxels.shape)
    x, y, z = volume.patient_point(k, j, i)
    tolerance = 25 if orientation[2] else 0.8  # an oblique normal carries the slice sideways
    assert abs(x - 15) < tolerance
    assert x > 0
    assert abs(y - 5) < 0.8
    assert np.diff([s.position[2] for s in volume.slices]).min() > 0
    assert z == pytest.approx(-94, abs=6)


def test_gantry_tilt_is_a_shear(tmp_path):
    tilt = np.radians(12)
    orientation = (1, 0, 0, 0, float(np.cos(tilt)), float(-np.sin(tilt)))
    slices = [ct_slice(k, orientation=orientation, ImagePositionPatient=[-25, -25, -100 + 2.0 * k]) for k in range(6)]
    volume = read_volume(write(slices, tmp_path))
    assert volume.notes == ("gantry tilt 12 degrees",)
    np.testing.assert_allclose(volume.affine[:3, 0], (0, 0, 2), atol=1e-6)
    assert volume.spacing[0] == pytest.approx(2 * np.cos(tilt), abs=1e-4)
    assert np.dot(volume.affine[:3, 0], volume.affine[:3, 1]) != pytest.approx(0, abs=0.1)


def test_oblique_stack_is_noted(tmp_path):
    orientation = (float(np.cos(0.2)), 0.0, float(np.sin(0.2)), 0.0, 1.0, 0.0)
    volume = read_volume(write((ct_slice(k, orientation=orientation) for k in range(6)), tmp_path))
    assert volume.notes == ("slices oblique by 11 degrees",)


def test_localizers_and_other_planes_and_screenshots_are_left_out(tmp_path):
    slices = [ct_slice(k) for k in range(6)]
    slices.append(ct_slice(20, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]))
    slices.append(ct_slice(21, orientation=(1.0, 0.0, 0.0, 0.0, 0.0, -1.0)))
    shot = ct_slice(22, SOPClassUID=SecondaryCaptureImageStorage)
    volume = read_volume(write([*slices, shot], tmp_path))
    np.testing.assert_array_equal(volume.voxels, HU)
    assert volume.notes == (
        "1 localizer image left out",
        "1 non-CT object left out",
        "1 non-axial image left out",
    )


def test_multi_frame_with_its_own_intercepts(tmp_path):
    volume = read_volume(write([enhanced(6)], tmp_path))
    np.testing.assert_array_equal(volume.voxels, HU)
    assert [s.frame_number for s in volume.slices] == [6, 5, 4, 3, 2, 1]
    assert volume.slice_thickness == 2.0
    assert "PerFrameFunctionalGroupsSequence" not in volume.header


def test_rounded_positions_are_no_gap(tmp_path):
    slices = [ct_slice(k, ImagePositionPatient=[-25, -25, round(0.625 * k, 1)]) for k in range(9)]
    assert read_volume(write(slices, tmp_path)).spacing[0] == pytest.approx(0.625, abs=0.01)


def test_exact_doubles_are_dropped_with_a_note(tmp_path):
    slices = [ct_slice(k) for k in range(6)] + [ct_slice(2, SOPInstanceUID=f"{ROOT}.1.9"), ct_slice(4)]
    volume = read_volume(write(slices, tmp_path))
    np.testing.assert_array_equal(volume.voxels, HU)
    assert volume.notes == ("2 duplicate images left out",)


def test_header_has_what_a_report_copies_and_nothing_else(tmp_path):
    slices = [ct_slice(k) for k in range(6)]
    block = slices[0].private_block(0x0099, "VENDOR", create=True)
    block.add_new(1, "LO", "private")
    slices[0].IconImageSequence = [Dataset()]
    slices[0].add_new(0x60003000, "OW", b"\1\2")
    header = read_volume(write(slices, tmp_path)).header
    assert header.PatientID == "SECRET-ID"
    assert header.SOPInstanceUID == f"{ROOT}.1.1"
    assert header.FrameOfReferenceUID == f"{ROOT}.5"
    assert not [e for e in header if e.tag.is_private or e.tag.group in {2, 0x6000, 0x7FE0} or e.keyword == "IconImageSequence"]


def test_every_slice_keeps_its_frame_of_reference_and_one_lossy_image_marks_the_series(tmp_path):
    slices = [ct_slice(k) for k in range(6)]
    for k, dataset in enumerate(slices):
        dataset.FrameOfReferenceUID = f"{ROOT}.5.{k}"
    slices[3].LossyImageCompression, slices[3].LossyImageCompressionRatio = "01", "8"
    slices[3].LossyImageCompressionMethod = "ISO_15444_1"
    volume = read_volume(write(slices, tmp_path))
    assert [s.frame_of_reference for s in volume.slices] == [f"{ROOT}.5.{k}" for k in range(6)]
    header = volume.header
    assert (header.LossyImageCompression, header.LossyImageCompressionRatio) == ("01", 8)
    assert header.LossyImageCompressionMethod == "ISO_15444_1"


@pytest.mark.parametrize(
    ("compressed", "said", "ratio"),
    [((2,), {}, None), (range(6), {"LossyImageCompression": "01", "LossyImageCompressionRatio": "4.5"}, 4.5)],
    ids=["one image, no attribute", "no method"],
)
def test_an_encoding_with_loss_marks_the_series_whatever_its_header_says(tmp_path, compressed, said, ratio):
    """Encoders forget the attributes; then the captures said that no image was ever compressed with loss."""
    slices = [ct_slice(k, **said) for k in range(6)]
    for k in compressed:
        slices[k].compress(JPEGLSNearLossless, jls_error=3, generate_instance_uid=False)
    paths = write(slices, tmp_path)
    volume = read_volume(paths)
    header = volume.header
    assert (header.LossyImageCompression, header.LossyImageCompressionMethod) == ("01", "ISO_14495_1")
    stored = slices[2].Rows * slices[2].Columns * 2 / paths[2].stat().st_size
    assert header.LossyImageCompressionRatio == pytest.approx(ratio or stored, abs=0.05)
    assert volume.notes == ("images were compressed with loss",)
    items = report.build(replace(analysis(1), header=header), CONTEXT)
    assert {dcmread(io.BytesIO(item.data)).get("LossyImageCompression") for item in items} == {None, "01"}


def test_header_of_a_series_that_cannot_be_analysed(tmp_path):
    paths = write([ct_slice(1), ct_slice(0)], tmp_path)
    (tmp_path / "noise").write_bytes(b"noise")
    paths.append(tmp_path / "noise")
    with pytest.raises(NotAnalysable):
        read_volume(paths)
    assert read_header(paths).SOPInstanceUID == read_header(paths[::-1]).SOPInstanceUID == f"{ROOT}.1.1"
    with pytest.raises(NotAnalysable, match="None of the files"):
        read_header([tmp_path / "noise", tmp_path / "absent"])


def test_candidates_pass_over_everything_else(tmp_path):
    first = write((ct_slice(k) for k in range(2)), tmp_path / "b")
    second = write([ct_slice(7, SeriesInstanceUID=f"{ROOT}.40")], tmp_path / "a")
    write([ct_slice(8, SOPClassUID=BasicTextSRStorage, PixelData=None)], tmp_path / "sr")
    write([ct_slice(9)], tmp_path / ".hidden")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "notes.txt").write_text("no DICOM")
    (tmp_path / "empty.dcm").touch()
    os.mkfifo(tmp_path / "pipe")
    assert candidate_series(tmp_path) == {f"{ROOT}.4": first, f"{ROOT}.40": second}
    assert candidate_series(tmp_path / "absent") == {}
