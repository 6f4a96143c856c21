"""Decompression bombs are refused before memory is allocated, and the panic of a decoder is caught."""

import struct
import tracemalloc
import zlib
from contextlib import nullcontext

import ct_series
import dicom_objects
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1, RLELossless

from alnnode.dicomweb import wado
from alnnode.errors import NotAnalysable, RejectedObject
from alnnode.imaging import stored_image
from alnnode.imaging.series import read_volume
from alnnode.receive import deflated as deflated_data
from alnnode.receive import header

SIDE = 65535  # the largest value of Rows and Columns: 8 GiB of 16-bit pixels


def deflated(size: int) -> bytes:
    """A deflated data set whose pixel data are ``size`` zeros."""
    plain = dicom_objects.data_set(dicom_objects.ct(1))
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    head = plain[: plain.rindex(b"\xe0\x7f\x10\x00")] + b"\xe0\x7f\x10\x00OW\0\0" + struct.pack("<I", size)
    return packer.compress(head) + b"".join(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)) + packer.flush()


@pytest.mark.parametrize(("size", "taken"), [(8 << 20, True), (48 << 20, False)])
def test_a_deflated_bomb_is_refused_at_the_door_and_never_held(monkeypatch, size, taken) -> None:
    monkeypatch.setattr(deflated_data, "MAX_INFLATED", 16 << 20)
    bomb = deflated(size)
    assert len(bomb) < 100_000
    tracemalloc.start()
    with nullcontext() if taken else pytest.raises(RejectedObject, match="0xA700: the deflated data set is larger than 16 MB"):
        header.read(bomb, str(DeflatedExplicitVRLittleEndian), "AE")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20


def lossless_jpeg() -> bytes:
    frame = b"\xff\xc3" + struct.pack(">HBHHB", 11, 16, SIDE, SIDE, 1) + b"\1\x11\0"
    return b"\xff\xd8" + frame + b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0, 1, 0, 0) + bytes(100) + b"\xff\xd9"


def codestream() -> bytes:
    size = b"\xff\x51" + struct.pack(">HH8IH", 41, 0, SIDE, SIDE, 0, 0, SIDE, SIDE, 0, 0, 1) + b"\x0f\1\1"
    return b"\xff\x4f" + size + bytes(100) + b"\xff\xd9"


def run_length(*segments: bytes) -> bytes:
    """A frame of RLE (PS3.5 Annex G)."""
    offsets = [64 + sum(map(len, segments[:number])) for number in range(len(segments))]
    return struct.pack("<16I", len(segments), *offsets, *([0] * (15 - len(segments)))) + b"".join(segments)


def compressed(tmp_path, syntax, frame: bytes, dataset, **changes):
    for name, value in changes.items():
        setattr(dataset, name, value)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    path = tmp_path / "image.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


# Refused by their size, or because the pixel data cannot hold what the attributes claim.
NOT_CONVERTED = (stored_image.DamagedImageError, wado.TooLargeToConvertError)
BOMBS = {
    JPEGLosslessSV1: lossless_jpeg(),
    JPEG2000Lossless: codestream(),
    RLELossless: run_length(b"\x81\0" * 64, b"\x81\0" * 64),
}


@pytest.mark.parametrize("syntax", BOMBS, ids=lambda uid: uid.name)
def test_an_image_that_claims_gigabytes_is_decoded_by_nobody(tmp_path, syntax) -> None:
    path = compressed(tmp_path, syntax, BOMBS[syntax], ct_series.ct_slice(0), Rows=SIDE, Columns=SIDE)
    with pytest.raises(NotAnalysable):
        read_volume([path])
    with pytest.raises(stored_image.DamagedImageError):
        stored_image.open_image(path).pixels(1)
    with pytest.raises(NOT_CONVERTED):
        wado._explicit(path)


def test_many_frames_are_as_much_as_one_large_one(tmp_path) -> None:
    frame = run_length(b"\x81\0" * 4096, b"\x81\0" * 4096)
    dataset = dicom_objects.ct(1)
    path = compressed(tmp_path, RLELossless, frame, dataset, Rows=512, Columns=512, NumberOfFrames=100_000)
    with pytest.raises(NOT_CONVERTED):
        wado._explicit(path)


def test_pixels_that_make_a_decoder_panic_are_damaged_pixels(tmp_path) -> None:
    frame = run_length(b"\x81\0" * 33, b"\x81\0" * 33)  # 4224 bytes for 64 x 64 pixels
    path = compressed(tmp_path, RLELossless, frame, ct_series.ct_slice(0), Rows=64, Columns=64)
    others = ct_series.write([ct_series.ct_slice(k) for k in range(1, 6)], tmp_path / "series")
    with pytest.raises(NotAnalysable, match="damaged"):
        read_volume([path, *others])
    with pytest.raises(stored_image.DamagedImageError):
        stored_image.open_image(path).pixels(1)
    with pytest.raises(RuntimeError, match="a decoder gave up"):
        wado._explicit(path)
