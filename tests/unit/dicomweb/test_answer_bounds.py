"""One request for much, and one object with much, cost the HTTP service a limited amount of memory, at the default settings."""

import asyncio
import io
import json
import struct

import pytest
from allocated import MIB, at_most
from dicom_objects import STUDY, ct
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import ImplicitVRLittleEndian, RLELossless
from web_service import part10, service, stow
from workitem import workitem

from alnnode.dicomweb import wado, wado_frames, wado_metadata
from alnnode.http.content_negotiation import AcceptedMediaType
from alnnode.http.openapi_operation import OCTETS
from alnnode.imaging.stored_image import StoredImage, open_image
from alnnode.worklist import workitem_resource, worklist

SERIES = f"{STUDY}.1"


def implicit(number=2, **changes) -> bytes:
    dataset = ct(number, **changes)
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True, implicit_vr=True, little_endian=True)
    return buffer.getvalue()


def enlarged(tag: int, size: int) -> bytes:
    """An image in Implicit VR Little Endian, in which a short text has ``size`` bytes: no length of 16 bits limits it."""
    raw, head = implicit(), struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    at = raw.index(head, 300)
    (length,) = struct.unpack_from("<L", raw, at + 4)
    return raw[:at] + head + struct.pack("<L", size) + b"A" * size + raw[at + 8 + length :]


def with_private(size: int) -> bytes:
    """An image with a private binary value of ``size`` bytes."""
    raw = implicit()
    at = raw.rindex(b"\xe0\x7f\x10\x00")
    private = struct.pack("<HHL", 0x7FDF, 0x0010, 4) + b"TEST" + struct.pack("<HHL", 0x7FDF, 0x1001, size) + bytes(size)
    return raw[:at] + private + raw[at:]


@pytest.mark.parametrize("tag", [0x00100010, 0x0008103E])
def test_a_huge_text_is_left_out_of_searches_and_metadata(tmp_path, tag) -> None:
    with service(tmp_path) as (client, opened):
        assert stow(client, part10(ct(1)), enlarged(tag, 24 * MIB)).status_code == 200
        opened.acceptor.close()
        with at_most(12 * MIB):
            for path in ("studies", "series", "instances", f"studies/{STUDY}/metadata"):
                answer = client.get(f"/dicom-web/{path}")
                assert answer.status_code == 200
                assert len(answer.content) < MIB
        found = {item["00080018"]["Value"][0]: item for item in client.get(f"/dicom-web/studies/{STUDY}/metadata").json()}
        assert "Value" not in found[f"{SERIES}.2"][f"{tag:08X}"]
        assert "Value" in found[f"{SERIES}.1"][f"{tag:08X}"]


def test_many_long_texts_in_a_sequence_are_left_out_of_searches(tmp_path) -> None:
    item = Dataset()
    item.ScheduledProcedureStepDescription = "A" * 60_000
    with service(tmp_path) as (client, opened):
        assert stow(client, part10(ct(1, RequestAttributesSequence=[item] * 100))).status_code == 200
        opened.acceptor.close()
        answer = client.get("/dicom-web/series?includefield=00400275")
        assert answer.json()[0]["00400275"] == {"vr": "SQ"}


def test_metadata_reference_a_large_private_value_without_reading_it(tmp_path) -> None:
    with service(tmp_path) as (client, opened):
        assert stow(client, with_private(24 * MIB)).status_code == 200
        opened.acceptor.close()
        with at_most(8 * MIB):
            (found,) = client.get(f"/dicom-web/studies/{STUDY}/metadata").json()
        assert found["7FDF1001"]["vr"] == "UN"
        answer = client.get(found["7FDF1001"]["BulkDataURI"], headers={"Accept": OCTETS})
        assert answer.content == bytes(24 * MIB)


def stored(path, **changes) -> StoredImage:
    path.write_bytes(implicit(**changes))
    return open_image(path)


def test_native_pixel_data_are_read_in_pieces(tmp_path) -> None:
    pixels = bytes(24 * MIB)
    image = stored(tmp_path / "one.dcm", side=1024, NumberOfFrames="12", PixelData=pixels)
    with at_most(8 * MIB):
        count, values = wado_metadata._values(image.path, ["7FE00010"])
        (value,) = values
        assert count == 1
        assert sum(map(len, value)) == len(pixels)


def test_compressed_pixel_data_are_read_frame_by_frame(tmp_path) -> None:
    frames = [bytes([number]) * 2 * MIB for number in range(12)]
    image = ct(1, NumberOfFrames="12", PixelData=encapsulate(frames))
    image.file_meta.TransferSyntaxUID = RLELossless
    image["PixelData"].VR, image["PixelData"].is_undefined_length = "OB", True
    image.save_as(tmp_path / "one.dcm", enforce_file_format=True)
    with at_most(10 * MIB):
        count, values = wado_metadata._values(tmp_path / "one.dcm", ["7FE00010"])
        assert count == 12
        for number, value in enumerate(values):
            assert b"".join(value)[:1] == bytes([number])


def test_a_frame_that_is_requested_a_thousand_times_is_decoded_when_it_is_sent(tmp_path, monkeypatch) -> None:
    image, decoded = stored(tmp_path / "one.dcm"), []
    uncompressed = StoredImage.uncompressed
    monkeypatch.setattr(StoredImage, "uncompressed", lambda self, number: decoded.append(number) or uncompressed(self, number))
    monkeypatch.setattr(wado_frames, "AHEAD", 3 * image.frame_bytes)
    answer = wado_frames._frames_as(image, [1] * 1000, AcceptedMediaType(OCTETS, multipart=True, syntax=None))
    assert len(decoded) == 3

    async def taken() -> int:
        return sum([len(piece) async for piece in answer.body_iterator])

    assert asyncio.run(taken()) > 1000 * image.frame_bytes
    assert len(decoded) == 1000


@pytest.mark.parametrize("region", ["0,0,65536,65536", "0,0,13000,13000", "5000,5000,4097,4097"])
def test_a_region_larger_than_a_picture_may_be_is_refused(tmp_path, region) -> None:
    with service(tmp_path) as (client, opened):
        assert stow(client, part10(ct(1))).status_code == 200
        opened.acceptor.close()
        url = f"/dicom-web/studies/{STUDY}/series/{SERIES}/instances/{SERIES}.1/rendered"
        assert client.get(url, params={"viewport": f"64,64,{region}"}).status_code == 400
        assert client.get(url, params={"viewport": "64,64,0,0,64,64"}).status_code == 200


def test_an_object_too_large_to_convert_is_available_as_stored(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(wado, "MAX_CONVERTED", 10_000)
    with service(tmp_path) as (client, opened):
        assert stow(client, implicit(1, side=128), implicit(2, side=32)).status_code == 200
        opened.acceptor.close()
        answer = client.get(f"/dicom-web/studies/{STUDY}")
        assert answer.status_code == 200
        assert answer.content.count(b"DICM") == 1
        large = f"/dicom-web/studies/{STUDY}/series/{SERIES}/instances/{SERIES}.1"
        assert client.get(large).status_code == 406
        as_stored = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
        assert client.get(large, headers=as_stored).content.count(b"DICM") == 1


def test_a_search_for_workitems_reads_only_what_it_returns(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(workitem_resource, "MAX_ANSWER", 20_000)
    headers = {"Content-Type": "application/dicom+json"}
    text = {"vr": "LT", "Value": ["A" * 8_000]}
    with service(tmp_path) as (client, opened):
        for _ in range(6):
            document = json.dumps(workitem(codes=("L:OTHER",), CommentsOnTheScheduledProcedureStep=text))
            assert client.post("/dicom-web/workitems", content=document, headers=headers).status_code == 201
        read = []
        documents = opened.worklist.documents
        load = documents.read
        monkeypatch.setattr(documents, "read", lambda path: read.append(path) or load(path))
        assert len(client.get("/dicom-web/workitems?limit=1").json()) == 1
        assert len(read) == 2  # the second one shows that there are more
        everything = client.get("/dicom-web/workitems")
        assert len(everything.json()) == 3
        assert "additional results" in everything.headers["warning"]
        assert len(client.get("/dicom-web/workitems?offset=3").json()) == 3


def test_beyond_the_maximum_of_unfinished_workitems_no_more_are_created(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(worklist, "MAX_UNFINISHED", 2)
    headers = {"Content-Type": "application/dicom+json"}
    with service(tmp_path) as (client, _):
        given = [
            client.post("/dicom-web/workitems", content=json.dumps(workitem(codes=("L:OTHER",))), headers=headers)
            for _ in range(3)
        ]
        assert [one.status_code for one in given] == [201, 201, 503]
        huge = json.dumps(workitem(CommentsOnTheScheduledProcedureStep={"vr": "LT", "Value": ["A" * 300_000]}))
        assert client.post("/dicom-web/workitems", content=huge, headers=headers).status_code == 413
