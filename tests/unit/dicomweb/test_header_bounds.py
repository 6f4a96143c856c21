"""A deflated object, and an object with many items, cost the HTTP service little memory; their attributes and pixels stay available."""

import struct
import zlib

import pytest
from allocated import MIB, at_most
from dicom_objects import STUDY, ct, data_set
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian
from web_service import part10, service, stow

from alnnode.http.openapi_operation import OCTETS
from alnnode.imaging import inflating, stored_data_set, stored_image
from alnnode.imaging.header_reading import Selection
from alnnode.imaging.pixel_identity import same
from alnnode.receive import file_meta

SERIES = f"{STUDY}.1"
LARGE = f"/dicom-web/studies/{STUDY}/series/{SERIES}/instances/{SERIES}.2"


def with_elements(elements: bytes, **changes) -> bytes:
    """The data set of an image, Explicit VR Little Endian, with further elements before the pixel data."""
    plain = data_set(ct(2, **changes))
    at = plain.rindex(b"\xe0\x7f\x10\x00")
    return plain[:at] + elements + plain[at:]


def private(size: int) -> bytes:
    block = struct.pack("<HH2sH", 0x7FDF, 0x0010, b"LO", 4) + b"TEST"
    return block + struct.pack("<HH2sHL", 0x7FDF, 0x1001, b"OB", 0, size) + bytes(size)


def deflated(plain: bytes) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    return file_of(packer.compress(plain) + packer.flush(), DeflatedExplicitVRLittleEndian)


def file_of(encoded: bytes, syntax: str) -> bytes:
    return file_meta.head(str(ct(2).SOPClassUID), f"{SERIES}.2", str(syntax), "A", "0" * 64) + encoded


def test_a_deflated_object_is_searched_described_and_shown_in_little_memory(tmp_path) -> None:
    with service(tmp_path) as (client, opened):
        assert stow(client, part10(ct(1)), deflated(with_elements(private(48 * MIB)))).status_code == 200
        opened.acceptor.close()
        with at_most(12 * MIB):
            assert len(client.get("/dicom-web/instances").json()) == 2
            assert client.get("/dicom-web/series?includefield=00281052").json()[0]["00281052"]["Value"] == [-1024]
            found = {one["00080018"]["Value"][0]: one for one in client.get(f"/dicom-web/studies/{STUDY}/metadata").json()}
            assert found[f"{SERIES}.2"]["7FDF1001"]["BulkDataURI"]
            frame = client.get(f"{LARGE}/frames/1", headers={"Accept": f"{OCTETS}; transfer-syntax={ExplicitVRLittleEndian}"})
            pixels = client.get(found[f"{SERIES}.2"]["7FE00010"]["BulkDataURI"], headers={"Accept": OCTETS})
            assert client.get(f"{LARGE}/rendered").status_code == 200
        assert frame.content == pixels.content == ct(2).PixelData
        value = client.get(found[f"{SERIES}.2"]["7FDF1001"]["BulkDataURI"], headers={"Accept": OCTETS})
        assert value.content == bytes(48 * MIB)


def test_a_deflated_object_is_converted_by_its_inflated_size(tmp_path, monkeypatch) -> None:
    with service(tmp_path) as (client, opened):
        assert stow(client, deflated(with_elements(private(2 * MIB)))).status_code == 200
        opened.acceptor.close()
        assert client.get(LARGE).status_code == 200
        monkeypatch.setattr("alnnode.dicomweb.wado.MAX_CONVERTED", MIB)
        assert client.get(LARGE).status_code == 406


MANY_ITEMS = b"\x00\x52\x30\x92SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\0\0\0\0" * 150_000 + b"\xfe\xff\xdd\xe0\0\0\0\0"


@pytest.mark.parametrize("encode", [deflated, lambda plain: file_of(plain, ExplicitVRLittleEndian)], ids=["deflated", "plain"])
def test_a_sequence_of_too_many_items_is_left_out(tmp_path, encode) -> None:
    with service(tmp_path) as (client, opened):
        assert stow(client, part10(ct(1)), encode(with_elements(MANY_ITEMS))).status_code == 200
        opened.acceptor.close()
        assert len(client.get("/dicom-web/instances").json()) == 2
        assert "52009230" not in client.get(f"/dicom-web/series?includefield=52009230&SeriesInstanceUID={SERIES}").json()[0]
        found = {one["00080018"]["Value"][0]: one for one in client.get(f"/dicom-web/studies/{STUDY}/metadata").json()}
        assert "52009230" not in found[f"{SERIES}.2"]
        assert found[f"{SERIES}.2"]["00281052"]["Value"] == [-1024]
        assert client.get(f"{LARGE}/rendered").status_code == 200


def test_a_long_value_in_a_sequence_without_a_length_is_not_read(tmp_path) -> None:
    value = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + private(65 * MIB) + b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    plain = with_elements(b"\x00\x52\x30\x92SQ\0\0\xff\xff\xff\xff" + value)
    with service(tmp_path) as (client, opened):
        assert stow(client, file_of(plain, ExplicitVRLittleEndian)).status_code == 200
        opened.acceptor.close()
        with at_most(12 * MIB):
            (found,) = client.get(f"/dicom-web/studies/{STUDY}/metadata").json()
        assert "52009230" not in found


def test_an_object_with_too_many_items_is_compared_with_no_other(tmp_path) -> None:
    files = [tmp_path / "one.dcm", tmp_path / "two.dcm"]
    for file in files:
        file.write_bytes(file_of(with_elements(MANY_ITEMS), ExplicitVRLittleEndian))
    assert not same(*files)


def test_a_large_private_value_behind_a_sequence_is_referenced(tmp_path) -> None:
    sequence = b"\x00\x52\x30\x92SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    with service(tmp_path) as (client, opened):
        assert stow(client, file_of(with_elements(sequence + private(2 * MIB)), ExplicitVRLittleEndian)).status_code == 200
        opened.acceptor.close()
        (found,) = client.get(f"/dicom-web/studies/{STUDY}/metadata").json()
        value = client.get(found["7FDF1001"]["BulkDataURI"], headers={"Accept": OCTETS})
        assert value.content == bytes(2 * MIB)


def test_an_object_with_too_many_items_is_not_converted(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("alnnode.dicomweb.wado.MAX_ITEMS", 100_000)
    with service(tmp_path) as (client, opened):
        assert stow(client, deflated(with_elements(MANY_ITEMS))).status_code == 200
        opened.acceptor.close()
        assert client.get(LARGE).status_code == 406


def test_every_frame_of_a_deflated_image_is_the_one_of_the_plain_image(tmp_path) -> None:
    image = ct(2, side=8, NumberOfFrames="5", PixelData=bytes(range(128)) * 5)
    (tmp_path / "one.dcm").write_bytes(deflated(data_set(image)))
    opened = stored_image.open_image(tmp_path / "one.dcm")
    assert [opened.stored(number) for number in (5, 1, 3)] == [bytes(range(128))] * 3
    assert opened.header.RescaleIntercept == -1024


def test_a_value_that_was_not_read_has_no_place_in_a_deflated_file(tmp_path) -> None:
    path = tmp_path / "one.dcm"
    path.write_bytes(deflated(with_elements(private(MIB))))
    with (opened := stored_data_set.open_data_set(path)).stream:
        header = stored_data_set.read_header(opened, Selection(defer_size=1000))
    with pytest.raises(OSError, match="filename"):
        header[0x7FDF1001]
    assert header.PatientName == dcmread(path).PatientName


def test_a_stream_that_goes_back_again_and_again_ends(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(inflating, "MAX_WORK", 10 * MIB)
    path = tmp_path / "one.dcm"
    path.write_bytes(deflated(with_elements(private(3 * MIB))))
    with (opened := stored_data_set.open_data_set(path)).stream as stream:
        for _ in range(3):  # 9 MiB
            stream.seek(3 * MIB)
            stream.seek(0)
            assert stream.read(2) == b"\x08\0"
        with pytest.raises(OSError, match="takes too long"):
            stream.seek(3 * MIB)
    assert opened.deflated
