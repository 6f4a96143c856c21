"""Attributes are read in bounded memory, and as pydicom reads them, whatever sequences are beside them."""

import io
import struct
import tracemalloc

import pytest
from dicom_objects import ct, data_set
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian, KeyObjectSelectionDocumentStorage

from alnnode.errors import RejectedObject
from alnnode.imaging import header_reading
from alnnode.imaging.element_walk import StructureError
from alnnode.imaging.header_reading import Encoding, Selection, read_attributes
from alnnode.receive import header

UNDEFINED_ITEM, ITEM_END = b"\xfe\xff\x00\xe0\xff\xff\xff\xff", b"\xfe\xff\x0d\xe0\0\0\0\0"
EMPTY_ITEM, END = b"\xfe\xff\x00\xe0\0\0\0\0", b"\xfe\xff\xdd\xe0\0\0\0\0"
ITEMS = 1 << 16  # pydicom needs 40 MB for them
PER_FRAME = b"\x00\x52\x30\x92"


def sequence(tag: bytes, content: bytes, vr: bytes = b"SQ", length: int | None = None) -> bytes:
    """An element in Explicit VR Little Endian; of undefined length unless ``length`` says otherwise."""
    return (
        tag + vr + struct.pack("<HI", 0, 0xFFFFFFFF if length is None else length) + content + (END if length is None else b"")
    )


def before_pixels(*elements: bytes) -> bytes:
    whole = data_set(ct(1, side=16))
    at = whole.rindex(b"\xe0\x7f\x10\x00")
    return whole[:at] + b"".join(elements) + whole[at:]


def peak(call) -> int:
    tracemalloc.start()
    try:
        call()
    finally:
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return highest


ATTACKS = {
    "empty items": sequence(PER_FRAME, EMPTY_ITEM * ITEMS),
    "empty items of UN": sequence(b"\x41\x00\x01\x10", EMPTY_ITEM * ITEMS, b"UN"),
    "elements of one item": sequence(
        PER_FRAME,
        UNDEFINED_ITEM
        + b"".join(struct.pack("<HH2sH", 0x0041 + 2 * (n >> 16), n & 0xFFFF, b"CS", 0) for n in range(ITEMS))
        + ITEM_END,
    ),
    "items within items": sequence(
        PER_FRAME,
        (UNDEFINED_ITEM + sequence(b"\x18\x00\x14\x91", EMPTY_ITEM * 2) + ITEM_END) * (ITEMS // 3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ATTACKS)
def test_the_header_of_an_object_costs_little_memory_whatever_sequences_it_has(kind) -> None:
    data = before_pixels(ATTACKS[kind])
    assert peak(lambda: header.read(data, ExplicitVRLittleEndian, "A")) < 8 << 20


@pytest.mark.parametrize("length", [None, ITEMS * len(EMPTY_ITEM)])
def test_the_references_of_marks_cost_little_memory(length) -> None:
    marks = ct(1, SOPClassUID=KeyObjectSelectionDocumentStorage, PixelData=None)
    data = data_set(marks) + sequence(b"\x40\x00\x75\xa3", EMPTY_ITEM * ITEMS, length=length)
    found = []
    assert peak(lambda: found.append(header.read(data, ExplicitVRLittleEndian, "A"))) < 12 << 20
    assert found[0].refers == ()


def test_an_object_of_more_elements_than_any_image_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(header_reading, "MAX_ELEMENTS", 1000)
    for attack in (
        sequence(PER_FRAME, EMPTY_ITEM * 1001),
        sequence(b"\x41\x00\x01\x10", b"", b"UN") * 60,
        struct.pack("<HH2sH", 0x0041, 0x1001, b"CS", 0) * 1001,
    ):
        with pytest.raises(RejectedObject, match="0xC000: the data set has too many elements"):
            header.read(before_pixels(bytes(0), attack), ExplicitVRLittleEndian, "A")


def test_a_sequence_that_is_cut_off_or_too_deep_is_refused() -> None:
    begin = b"\x00\x52\x30\x92SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    for attack in (sequence(PER_FRAME, b"")[: -len(END)], begin * 300 + b"\xfe\xff\x0d\xe0\0\0\0\0" * 300):
        with pytest.raises(RejectedObject, match="0xC000"):
            header.read(data_set(ct(1, PixelData=None)) + attack, ExplicitVRLittleEndian, "A")


def item(depth: int, undefined: bool) -> Dataset:
    found = Dataset()
    found.CodeValue, found.Rows = "A" * depth, depth
    if depth:
        found.ContentSequence = [item(depth - 1, not undefined), item(depth - 1, undefined)]
        found["ContentSequence"].is_undefined_length = undefined
        found.private_block(0x0041, "TEST", create=True).add_new(1, "UN", b"\xfe\xff\x00\xe0")
    found.is_undefined_length_sequence_item = undefined
    return found


@pytest.mark.parametrize("encoding", [Encoding(False, True), Encoding(True, True), Encoding(False, False)])
def test_attributes_are_those_that_pydicom_reads(encoding) -> None:
    whole = Dataset()
    whole.SpecificCharacterSet, whole.PatientName, whole.InstitutionName = "ISO_IR 100", "M\xfcller", "H\xf4pital"
    whole.ReferencedImageSequence = [item(4, True)]
    whole.RequestAttributesSequence = [item(3, False), item(2, True)]
    whole.ContentSequence = []
    whole.SOPInstanceUID, whole.StudyInstanceUID, whole.NumberOfFrames = "1.2", "1.2.3", "7"
    for keyword in ("ReferencedImageSequence", "RequestAttributesSequence", "ContentSequence"):
        whole[keyword].is_undefined_length = keyword != "RequestAttributesSequence"
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = encoding
    write_dataset(buffer, whole, parent_encoding="latin_1")
    data = buffer.getvalue()

    def no(*_: object) -> bool:
        return False

    expected = read_dataset(io.BytesIO(data), *encoding)
    assert read_attributes(io.BytesIO(data), encoding, no, Selection()) == expected
    wanted = [0x00080005, 0x00080018, 0x00100010, 0x0020000D, 0x00400275]
    assert read_attributes(io.BytesIO(data), encoding, no, Selection(wanted)) == read_dataset(
        io.BytesIO(data), *encoding, specific_tags=wanted
    )


def test_sequences_that_are_too_large_are_left_out_and_the_others_are_read() -> None:
    small, large = (Dataset() for _ in range(2))
    small.Rows = large.Rows = 1
    whole = Dataset()
    whole.ReferencedImageSequence, whole.PatientID, whole.ContentSequence = [large] * 60, "P", [small]
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    for undefined in (False, True):
        buffer.seek(0)
        whole["ReferencedImageSequence"].is_undefined_length = undefined
        write_dataset(buffer, whole)
        found = read_attributes(
            io.BytesIO(buffer.getvalue()), Encoding(False, True), lambda *_: False, Selection(max_built=100)
        )
        assert "ReferencedImageSequence" not in found
        assert found.PatientID == "P"


def test_the_walk_raises_for_a_stream_that_ends() -> None:
    with pytest.raises(StructureError):
        read_attributes(
            io.BytesIO(sequence(PER_FRAME, EMPTY_ITEM)[:-8]), Encoding(False, True), lambda *_: False, Selection([0x00100010])
        )
