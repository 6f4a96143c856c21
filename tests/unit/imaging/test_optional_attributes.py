"""An optional attribute of the source header that cannot be used is absent, with a remark; it never costs the report."""

from dataclasses import replace

import analyses
import ct_series
import dicom_objects
import pytest
from pydicom import dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.uid import ImplicitVRLittleEndian

from alnnode import report
from alnnode.dicomweb import wado
from alnnode.follow_up.choice import slice_thickness_mm
from alnnode.imaging import series
from alnnode.receive.library_logging import silence_libraries
from alnnode.records import Analysis

NINES = b"9" * 60_000


def nested(levels: int) -> bytes:
    """A value of Procedure Code Sequence that holds itself."""
    inner, tag = b"", b"\x08\0\x32\x10SQ\0\0"
    for _ in range(levels):
        item = b"\xfe\xff\x00\xe0" + len(inner).to_bytes(4, "little") + inner
        inner = tag + len(item).to_bytes(4, "little") + item
    return inner[12:]


def slices(folder, keyword: str, value: bytes):
    """Write a series whose images have these bytes as the value of an attribute."""
    tag = tag_for_keyword(keyword)
    vr = dictionary_VR(tag).encode()
    key = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little")
    paths = []
    for number in range(6):
        path = folder / f"{number}.dcm"
        ct_series.ct_slice(number, **{keyword: [] if vr == b"SQ" else 7}).save_as(path, enforce_file_format=True)
        old = key + (b"SQ\0\0" + bytes(4) if vr == b"SQ" else vr + (b"\x04\x007.0 " if vr == b"DS" else b"\x02\x007 "))
        size = b"SQ\0\0" + len(value).to_bytes(4, "little") if vr == b"SQ" else vr + len(value).to_bytes(2, "little")
        data = path.read_bytes()
        assert data.count(old) == 1
        path.write_bytes(data.replace(old, key + size + value))
        paths.append(path)
    return paths


@pytest.mark.parametrize(
    ("keyword", "value", "name"),
    [
        ("SliceThickness", b"nan ", "Slice Thickness"),
        ("SliceThickness", b"abc ", "Slice Thickness"),
        ("SliceThickness", NINES, "Slice Thickness"),
        ("SliceThickness", b"-inf", "Slice Thickness"),
        ("SliceThickness", b"1\\2 ", "Slice Thickness"),
        ("SpacingBetweenSlices", b"1e999 ", "Spacing Between Slices"),
        ("SpacingBetweenSlices", b"0 ", "Spacing Between Slices"),
        ("InstanceNumber", NINES, "Instance Number"),
        ("SeriesNumber", b"1e999 ", "Series Number"),
        ("KVP", NINES, "KVP"),
        ("ProcedureCodeSequence", nested(1500), "Procedure Code Sequence"),
    ],
)
def test_a_bad_optional_attribute_costs_a_remark_and_not_the_report(tmp_path, keyword, value, name) -> None:
    silence_libraries()
    volume = series.read_volume(slices(tmp_path, keyword, value))
    assert keyword not in volume.header
    assert volume.notes == (f"values in the image header that cannot be used were left out: {name}",)
    analysed = Analysis(volume.header, analyses.MODEL, volume, (), analyses.COVERED)
    assert report.build(analysed, replace(analyses.EVERYTHING, created=analyses.CONTEXT.created))


def test_what_follow_up_reads_of_a_header_is_finite(tmp_path) -> None:
    silence_libraries()
    found = [
        slice_thickness_mm(dcmread(slices(tmp_path, "SliceThickness", value)[0]))
        for value in (b"nan ", b"inf ", NINES, b"abc ", b"2 ")
    ]
    assert found == [0, 0, 0, 0, 2]


def test_an_error_inside_many_sequences_is_as_short_as_any_other(tmp_path) -> None:
    """pydicom quoted it at each level anew: 12 levels took 1.2 GB, and a reader's request for the object ended the web service."""
    silence_libraries()
    path, image = tmp_path / "image.dcm", dicom_objects.ct(1, ReferencedImageSequence=[])
    image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    image.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=True)
    tag, inner = b"\x08\0\x40\x11", b"\x20\0\x13\0\x06\0\0\x001e999 "  # an Instance Number that cannot be written
    for _ in range(9):
        item = b"\xfe\xff\x00\xe0" + len(inner).to_bytes(4, "little") + inner
        inner = tag + len(item).to_bytes(4, "little") + item
    path.write_bytes(path.read_bytes().replace(tag + bytes(4), inner))
    with pytest.raises(OverflowError) as caught:
        wado._explicit(path)
    assert len(str(caught.value)) < 1000
