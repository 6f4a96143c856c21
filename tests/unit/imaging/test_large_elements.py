"""Sequences of very many items, and values of megabytes: what the analysis reads of such objects needs little memory."""

import io
import random
import struct
import tracemalloc

import ct_series
import dicom_objects
import marked
import numpy as np
import pytest
from analyses import analysis
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, EncapsulatedPDFStorage, ImplicitVRLittleEndian

from alnnode.errors import NotAnalysable
from alnnode.imaging import part10, pixel_identity
from alnnode.imaging.large_elements import LargeElement, WithoutElements
from alnnode.imaging.series import read_volume
from alnnode.locate.marks.reading import read_marks

MIB = 1 << 20
ITEMS = 30_000  # pydicom needs 20 MB for them
EMPTY = b"\xfe\xff\x00\xe0\0\0\0\0" * ITEMS
END = b"\xfe\xff\xdd\xe0\0\0\0\0"
PIXELS = b"\xe0\x7f\x10\x00"


def element(group: int, number: int, vr: bytes, value: bytes, *, undefined: bool = False) -> bytes:
    length = 0xFFFFFFFF if undefined else len(value)
    return struct.pack("<HH2sHI", group, number, vr, 0, length) + value + (END if undefined else b"")


CREATOR = struct.pack("<HH2sH", 0x0041, 0x0010, b"LO", 4) + b"TEST"
# For each object: its further elements, and the attribute that a remark names.
LARGE = {
    "a sequence with a length": (element(0x0040, 0x0275, b"SQ", EMPTY), "Request Attributes Sequence"),
    "a sequence without one": (element(0x0040, 0x0275, b"SQ", EMPTY, undefined=True), "Request Attributes Sequence"),
    "a private sequence": (CREATOR + element(0x0041, 0x1001, b"SQ", EMPTY, undefined=True), ""),
    "an unknown sequence": (CREATOR + element(0x0041, 0x1001, b"UN", EMPTY, undefined=True), ""),
    "functional groups": (element(0x5200, 0x9230, b"SQ", EMPTY), "Per-Frame Functional Groups Sequence"),
    "a private value": (CREATOR + element(0x0041, 0x1001, b"OB", bytes(12 * MIB)), ""),
}


def series(folder, elements: bytes = b"", *, behind: bytes = b""):
    """Write a series whose first image has further elements before, or behind, its pixel data."""
    paths = ct_series.write([ct_series.ct_slice(number) for number in range(6)], folder)
    data = paths[0].read_bytes()
    at = data.rindex(PIXELS)
    paths[0].write_bytes(data[:at] + elements + data[at:] + behind)
    return paths


def read(paths):
    tracemalloc.start()
    try:
        volume = read_volume(paths)
        return volume, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(autouse=True)
def small_limit(monkeypatch) -> None:
    monkeypatch.setattr(part10, "MAX_BUILT", 5000)  # 20 times as much takes half a minute


@pytest.mark.parametrize("kind", LARGE)
def test_a_large_element_is_left_out_and_changes_nothing_else(tmp_path, kind) -> None:
    elements, name = LARGE[kind]
    plain, _ = read(series(tmp_path / "plain"))
    volume, peak = read(series(tmp_path / "large", elements))
    assert peak < 8 * MIB
    assert np.array_equal(volume.voxels, plain.voxels)
    assert volume.header == plain.header
    remarks = (f"values in the image header that cannot be used were left out: {name}",) if name else ()
    assert volume.notes == (*remarks, *plain.notes)


def test_a_large_sequence_behind_the_pixel_data_is_left_out(tmp_path) -> None:
    volume, peak = read(series(tmp_path, behind=element(0xFFFA, 0xFFFA, b"SQ", EMPTY, undefined=True)))
    assert peak < 8 * MIB
    assert volume.notes == ()


def test_pixel_data_that_are_a_sequence_are_not_read(tmp_path) -> None:
    (path,) = ct_series.write([ct_series.ct_slice(1, PixelData=None)], tmp_path)
    with path.open("ab") as file:
        file.write(element(0x7FE0, 0x0010, b"UN", EMPTY, undefined=True))
    assert "PixelData" not in part10.read(path, pixels=True)


def test_a_long_list_of_numbers_is_left_out(tmp_path) -> None:
    """In Implicit VR, a value of numbers can have any length."""
    paths = []
    for number in range(6):
        one = ct_series.ct_slice(number)
        one.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        paths += ct_series.write([one], tmp_path / str(number))
        data = paths[-1].read_bytes()
        value = b"1\\" * (2 * MIB)
        at = data.rindex(PIXELS)
        paths[-1].write_bytes(data[:at] + struct.pack("<HHI", 0x0028, 0x3006, len(value)) + value + data[at:])
    _, peak = read(paths)
    assert peak < 8 * MIB


def test_a_multi_frame_image_may_have_more_elements_than_others(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(part10, "MAX_BUILT", 10)
    assert read_volume(ct_series.write([ct_series.enhanced(12)], tmp_path)).voxels.shape[0] == 12
    monkeypatch.setattr(part10, "MAX_MULTI_FRAME", 50)
    with pytest.raises(NotAnalysable, match="lacks the geometry"):
        read_volume(ct_series.write([ct_series.enhanced(12)], tmp_path))


def test_a_deflated_image_with_a_large_sequence_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(part10, "MAX_BUILT", 10)
    image = ct_series.ct_slice(0)
    image.RequestAttributesSequence = [marked.code(str(number)) for number in range(10)]
    image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    (path,) = ct_series.write([image], tmp_path)
    with pytest.raises(NotAnalysable, match="more elements than are read"):
        part10.read(path, pixels=False)


def test_an_image_of_too_many_elements_is_refused(tmp_path) -> None:
    elements = b"".join(struct.pack("<HH2sH", 0x0041 + 2 * (n >> 16), n & 0xFFFF, b"CS", 0) for n in range(6000))
    with pytest.raises(NotAnalysable, match="more elements than are read"):
        read_volume(series(tmp_path, elements))


def test_marks_with_a_large_sequence_are_not_read_in_part(tmp_path, monkeypatch) -> None:
    volume = analysis(1).volume
    path = marked.write(marked.key_objects(volume, [1, 2, 3]), tmp_path)
    assert read_marks(path).sop_instance_uid
    monkeypatch.setattr(part10, "MAX_MARKS", 5)
    assert read_marks(path).remarks == ("a file of marks is damaged, or has too many elements to be read",)


def test_documents_are_compared_with_their_large_values(tmp_path) -> None:
    paths = []
    for end in (b"1", b"2"):
        document = dicom_objects.ct(
            1, SOPClassUID=EncapsulatedPDFStorage, PixelData=None, EncapsulatedDocument=bytes(2 * MIB - 1) + end
        )
        document.file_meta.MediaStorageSOPClassUID = EncapsulatedPDFStorage
        paths += ct_series.write([document], tmp_path / end.decode())
    assert pixel_identity.same(paths[0], paths[0])
    assert not pixel_identity.same(*paths)


def test_an_image_with_many_items_behind_its_pixel_data_is_compared_with_no_other(tmp_path) -> None:
    (path,) = ct_series.write([ct_series.ct_slice(1)], tmp_path)
    assert pixel_identity.same(path, path)
    with path.open("ab") as file:
        file.write(element(0xFFFA, 0xFFFA, b"SQ", EMPTY, undefined=True))
    tracemalloc.start()
    try:
        assert not pixel_identity.same(path, path)
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()


def test_an_image_without_a_transfer_syntax_is_read_as_before(tmp_path) -> None:
    (path,) = ct_series.write([ct_series.ct_slice(1)], tmp_path)
    data = path.read_bytes()
    syntax = data.index(b"\x02\0\x10\0UI")
    length = 8 + int.from_bytes(data[syntax + 6 : syntax + 8], "little")
    group = int.from_bytes(data[140:144], "little") - length
    path.write_bytes(data[:140] + group.to_bytes(4, "little") + data[144:syntax] + data[syntax + length :])
    assert part10.read(path, pixels=True) == dcmread(path)


def test_a_file_without_elements_has_all_other_bytes() -> None:
    generator = random.Random(1)
    data = generator.randbytes(5000)
    for _ in range(50):
        cuts = sorted(generator.sample(range(len(data) + 100), 2 * generator.randint(1, 6)))
        pairs = list(zip(cuts[::2], cuts[1::2], strict=True))
        kept = bytes(byte for at, byte in enumerate(data) if not any(start <= at < end for start, end in pairs))
        elements = [LargeElement(0, start, end, sequence=True) for start, end in pairs]
        stream = io.BufferedReader(WithoutElements(io.BufferedReader(io.BytesIO(data)), elements), 64)
        assert stream.read() == kept
        for _ in range(20):
            at = stream.seek(generator.randrange(len(kept) + 10))
            size = generator.randrange(300)
            assert stream.read(size) == kept[at : at + size]
        assert stream.seek(-10, io.SEEK_END) == len(kept) - 10
