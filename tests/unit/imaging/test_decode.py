"""Transfer syntaxes, bit layouts and rescaling."""

import base64
import os
from pathlib import Path

import numpy as np
import pytest
from ct_series import SIDE, changed, ct_slice, enhanced, pixels, write
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import pixel_array
from pydicom.uid import (
    HTJ2K,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from alnnode.errors import NotAnalysable
from alnnode.imaging.decode import codestream_size, hounsfield
from alnnode.imaging.frames import read_frames
from alnnode.imaging.series import read_volume

DATA = Path(os.environ.get("ALNNODE_TEST_DATA") or Path(__file__).parents[4] / "shared" / "data")
HU = np.stack([pixels(k).astype(np.int16) - 1024 for k in range(6)])
# 64 x 64, value (16 * column + row) % 4096, made with OpenJPH.
HTJ2K_CODESTREAM = base64.b64decode(
    "/0//UQApQAAAAABAAAAAQAAAAAAAAAAAAAAAQAAAAEAAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQkJCQkJCQiI"
    "iI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAN0AAf+TwAArAP9/tf9t9kf2AoG0AMAAE8AAEwBIkPwCAnQAovgAA1QAwAAVMAAFQCIiIiKq"
    "cYJ1ABAA/sHJ7LUAwAAV8AAFYBAIBAKBQCDnynp6cQJ4AAgAAP79knv2Sey4AMAAFswAAV6GYRiGYRiGYRiGYRj5/wp6enp6enpwgn0AAgD+/3hn79/v3+"
    "/f7LwAwAAulgABaoDu7u7u7u7u7u7u7u7u7u7u/r/8p6enp6enp6enp6enp6enwnUBAAAAAP9/2wOuuuuuuuuuuuuuupEB/9k="
)


def real(*parts):
    path = DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"REAL DATA ABSENT: {path} (set ALNNODE_TEST_DATA)")
    return path


def hu_of(path):
    return next(hounsfield(read_frames(dcmread(path, stop_before_pixels=True), path)[0]))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_native(tmp_path, syntax):
    slices = [ct_slice(k) for k in range(6)]
    for dataset in slices:
        dataset.file_meta.TransferSyntaxUID = syntax
    np.testing.assert_array_equal(read_volume(write(slices, tmp_path)).voxels, HU)


def test_big_endian(tmp_path):
    slices = [ct_slice(k, PixelData=pixels(k).astype(">u2").tobytes()) for k in range(6)]
    paths = []
    for k, dataset in enumerate(slices):
        dataset["PixelData"].VR = "OW"
        paths.append(tmp_path / f"{k}")
        plain = Dataset({element.tag: element for element in dataset})
        plain.file_meta = dataset.file_meta
        plain.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        plain.save_as(paths[-1], enforce_file_format=True)
    np.testing.assert_array_equal(read_volume(paths).voxels, HU)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("signed", [False, True])
def test_lossless_compression(tmp_path, syntax, signed):
    slices = [ct_slice(k) for k in range(6)]
    for k, dataset in enumerate(slices):
        if signed:
            stored = pixels(k).astype(np.int16) - 1024
            changed(dataset, PixelRepresentation=1, RescaleIntercept=0, PixelData=stored.tobytes())
        dataset.compress(syntax, generate_instance_uid=False)
    np.testing.assert_array_equal(read_volume(write(slices, tmp_path)).voxels, HU)


@pytest.mark.parametrize("syntax", [JPEGLSLossless, RLELossless])
def test_compressed_multi_frame(tmp_path, syntax):
    dataset = enhanced(40)
    expected = [pixels(k).astype(np.int16) - 1024 for k in range(40)]
    dataset.compress(syntax, generate_instance_uid=False)
    np.testing.assert_array_equal(read_volume(write([dataset], tmp_path)).voxels, expected)


def test_near_lossless_keeps_within_its_bound_and_is_noted(tmp_path):
    slices = [ct_slice(k) for k in range(6)]
    for dataset in slices:
        dataset.compress(JPEGLSNearLossless, jls_error=3, generate_instance_uid=False)
        dataset.LossyImageCompression = "01"
    volume = read_volume(write(slices, tmp_path))
    difference = np.abs(volume.voxels.astype(int) - HU)
    assert 0 < difference.max() <= 3
    assert volume.notes == ("images were compressed with loss",)


@pytest.mark.parametrize("syntax", [HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL])
def test_high_throughput_jpeg_2000(tmp_path, syntax):
    slices = [ct_slice(k, PixelData=encapsulate([HTJ2K_CODESTREAM])) for k in range(6)]
    for dataset in slices:
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset["PixelData"].is_undefined_length = True
    row, column = np.mgrid[:SIDE, :SIDE]
    np.testing.assert_array_equal(read_volume(write(slices, tmp_path)).voxels[2], (16 * column + row) % 4096 - 1024)


def test_fragments_without_offset_table(tmp_path):
    dataset = enhanced(6)
    dataset.compress(JPEGLSLossless, generate_instance_uid=False)
    frames = list(generate_frames(dataset.PixelData, number_of_frames=6))
    dataset.PixelData = encapsulate(frames, fragments_per_frame=3, has_bot=False)
    dataset["PixelData"].is_undefined_length = True
    np.testing.assert_array_equal(read_volume(write([dataset], tmp_path)).voxels, HU)


def stored_as(stored, **changes):
    return [ct_slice(k, PixelData=stored(k).tobytes(), **changes) for k in range(6)]


LAYOUTS = {
    "12 bits, junk above": stored_as(lambda k: pixels(k) | np.uint16(0xA000), BitsStored=12, HighBit=11),
    "12 bits at the top": stored_as(lambda k: pixels(k) << 4, BitsStored=12, HighBit=15),
    "12 signed bits": stored_as(
        lambda k: (pixels(k).astype(np.int16) - 1024) & np.int16(0x0FFF),
        BitsStored=12,
        HighBit=11,
        PixelRepresentation=1,
        RescaleIntercept=0,
    ),
    "slope of a half": stored_as(lambda k: pixels(k) * 2, RescaleSlope=0.5),
}


@pytest.mark.parametrize("slices", LAYOUTS.values(), ids=LAYOUTS)
def test_bit_layouts(tmp_path, slices):
    np.testing.assert_array_equal(read_volume(write(slices, tmp_path)).voxels, HU)


def corner(k, value, dtype=np.int16, offset=1024):
    stored = (pixels(k).astype(np.int64) - offset).astype(dtype)
    stored[:4, :4] = np.array(value).astype(dtype)
    return stored


@pytest.mark.parametrize(("padding", "expected"), [(-2000, -1024), (5000, -1024), (0, 0)])
def test_padding_is_air_unless_it_would_erase_tissue(tmp_path, padding, expected):
    slices = stored_as(lambda k: corner(k, padding), PixelRepresentation=1, RescaleIntercept=0, PixelPaddingValue=padding)
    voxels = read_volume(write(slices, tmp_path)).voxels
    assert (voxels[:, :4, :4] == expected).all()
    np.testing.assert_array_equal(voxels[:, 4:], HU[:, 4:])


def test_hu_are_clipped(tmp_path):
    slices = stored_as(lambda k: corner(k, 65535, np.uint16, 0), RescaleIntercept=-1024)
    assert read_volume(write(slices, tmp_path)).voxels.max() == 32767
    slices = stored_as(lambda k: corner(k, 0, np.uint16, 0), RescaleIntercept=-8192)
    assert read_volume(write(slices, tmp_path)).voxels.min() == -1024


@pytest.mark.parametrize("codestream", [b"", b"\xff\xd8", b"\xff\xd8\xff\xe0\0\0", b"\xff\xd8" + b"\xff" * 50, b"abc" * 100])
def test_size_of_no_codestream(codestream):
    with pytest.raises(ValueError, match="no frame header"):
        codestream_size(codestream)


LOSSLESS = ("1.2.840.10008.1.2.dcm", "1.2.840.10008.1.2.2.dcm", "1.2.1.99", ".4.90", ".4.80", ".4.70", ".4.57", ".1.2.5")


@pytest.mark.data
@pytest.mark.parametrize("syntax", LOSSLESS)
def test_real_slice_in_every_lossless_syntax(syntax):
    folder = real("robustness", "transfer_syntaxes")
    (path,) = (p for p in folder.glob("CTImage.dcm_*") if p.name.removesuffix(".dcm").endswith(syntax.removesuffix(".dcm")))
    np.testing.assert_array_equal(hu_of(path), hu_of(folder / "CTImage.dcm"))


@pytest.mark.data
@pytest.mark.parametrize(("syntax", "bound"), [(".4.81", 10), (".4.91", 30)])
def test_real_slice_in_lossy_syntaxes(syntax, bound):
    folder = real("robustness", "transfer_syntaxes")
    (path,) = folder.glob(f"CTImage.dcm_*{syntax}.dcm")
    assert np.abs(hu_of(path).astype(int) - hu_of(folder / "CTImage.dcm")).max() <= bound


@pytest.mark.data
@pytest.mark.parametrize(("syntax", "readable"), [(".4.50", True), (".4.51", True), (".4.53", False), (".4.55", False)])
def test_real_slice_in_lossy_jpeg(syntax, readable):
    (path,) = real("robustness", "transfer_syntaxes").glob(f"CTImage.dcm_*{syntax}.dcm")
    if readable:
        assert hu_of(path).std() > 100 if syntax == ".4.51" else hu_of(path).std() > 10
    else:
        with pytest.raises(NotAnalysable, match="cannot read"):
            hu_of(path)


@pytest.mark.data
@pytest.mark.parametrize("form", ["J2KR", "JLSL", "JPLL", "RLE"])
@pytest.mark.parametrize("number", [1, 2])
def test_working_group_4_images(form, number):
    folder = real("robustness", "nema_wg04", "data", "WG04")
    lossless = hu_of(folder / form / f"CT{number}_{form}")
    np.testing.assert_array_equal(lossless, hu_of(folder / "RLE" / f"CT{number}_RLE"))
    assert lossless.min() == -1024
    assert pixel_array(folder / form / f"CT{number}_{form}", raw=True).shape == lossless.shape
