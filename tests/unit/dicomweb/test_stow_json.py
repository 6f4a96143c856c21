"""STOW-RS of DICOM JSON with bulk data: the stored object equals the original one."""

import asyncio
import json
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest
from anyio import CapacityLimiter
from dicom_objects import STUDY, ct, data_set
from pydicom import dcmread
from pydicom.encaps import generate_frames
from pydicom.uid import JPEG2000Lossless, MRImageStorage
from web_service import BOUNDARY, content_type, service

from alnnode.dicomweb import stow_json
from alnnode.dicomweb.stow_request import StowRequest
from alnnode.multipart import BodyPart

KIND = "application/dicom+json"


def split(dataset, uri):
    """A data set in the DICOM JSON model, its pixel data behind a URI."""
    document = dataset.to_json_dict(bulk_data_threshold=1 << 20)
    return {**document, "7FE00010": {"vr": "OW", "BulkDataURI": uri}}


def post(client, documents, *bulk, path="/dicom-web/studies", end=True, first=KIND):
    """Send metadata, and bulk data as (Content-Location, Content-Type, bytes)."""
    content = documents if isinstance(documents, bytes) else json.dumps(documents).encode()
    parts = [f"Content-Type: {first}\r\n\r\n".encode() + content]
    parts += [f"Content-Type: {kind}\r\nContent-Location: {uri}\r\n\r\n".encode() + data for uri, kind, data in bulk]
    body = b"".join(b"--%s\r\n%s\r\n" % (BOUNDARY.encode(), part) for part in parts)
    body += f"--{BOUNDARY}--\r\n".encode() if end else b""
    return client.post(path, content=body, headers=content_type(kind=KIND))


@pytest.fixture
def node(tmp_path):
    with service(tmp_path) as node:
        yield node


def held(opened):
    opened.acceptor.close()
    return {
        found.SOPInstanceUID: found
        for item in opened.catalogue.instances()
        for found in [dcmread(opened.spool.path(item.path))]
    }


def test_objects_are_encoded_with_their_bulk_data(node) -> None:
    client, opened = node
    plain, compressed = ct(1), ct(2)
    compressed.compress(JPEG2000Lossless, generate_instance_uid=False)
    (frame,) = generate_frames(compressed.PixelData, number_of_frames=1)
    documents = [split(plain, "bulk/1"), split(compressed, "bulk/2")]
    answer = post(
        client, documents,
        ("bulk/2", f"image/jp2; transfer-syntax={JPEG2000Lossless}", frame), ("bulk/1", "application/octet-stream", plain.PixelData),
    )  # fmt: skip
    assert (answer.status_code, len(answer.json()["00081199"]["Value"])) == (200, 2), answer.text
    found = held(opened)
    assert data_set(found[plain.SOPInstanceUID]) == data_set(plain)
    back = found[compressed.SOPInstanceUID]
    assert back.file_meta.TransferSyntaxUID == JPEG2000Lossless
    assert (back.pixel_array == compressed.pixel_array).all()


def test_values_may_be_inline_in_the_metadata(node) -> None:
    client, opened = node
    document = ct(1).to_json_dict(bulk_data_threshold=1 << 20)
    assert "InlineBinary" in document["7FE00010"]
    assert post(client, [document]).status_code == 200
    assert post(client, [document]).status_code == 200, "a duplicate"
    assert data_set(held(opened)[ct(1).SOPInstanceUID]) == data_set(ct(1))


def test_each_refused_object_has_its_own_reason(node) -> None:
    client, _ = node
    good = ct(1).to_json_dict(bulk_data_threshold=1 << 20)
    other = ct(2, SOPClassUID=MRImageStorage).to_json_dict(bulk_data_threshold=1 << 20)
    documents = [
        good,
        other,
        split(ct(3), "bulk/none"),
        {"x": 1},
        7,
        {"00100010": {"vr": "PN", "Value": [{"Alphabetic": 3}]}},
    ]
    answer = post(client, documents)
    assert answer.status_code == 202
    reasons = [item["00081197"]["Value"][0] for item in answer.json()["00081198"]["Value"]]
    assert reasons == [0x0122, *[0xC000] * 4]
    elsewhere = post(client, [good], path=f"/dicom-web/studies/{STUDY}.9")
    assert (elsewhere.status_code, elsewhere.json()["00081198"]["Value"][0]["00081197"]["Value"]) == (409, [0xA901])


def test_malformed_bodies(node, monkeypatch) -> None:
    client, opened = node
    good = [ct(1).to_json_dict(bulk_data_threshold=1 << 20)]
    assert post(client, b"{").status_code == 400
    assert post(client, {"not": "an array"}).status_code == 400
    assert post(client, good, first="application/dicom").status_code == 400
    assert post(client, good, end=False).status_code == 400
    assert post(client, []).status_code == 400
    monkeypatch.setattr(stow_json, "MAX_METADATA", 1000)
    assert post(client, good).status_code == 413
    monkeypatch.setattr(stow_json, "MAX_METADATA", 1 << 20)
    monkeypatch.setattr(stow_json, "MAX_BULK", 1000)
    large = post(client, [split(ct(1), "b")], ("b", "application/octet-stream", ct(1).PixelData))
    assert large.json()["00081198"]["Value"][0]["00081197"]["Value"] == [0xA700]
    assert held(opened) == {}


def test_a_request_whose_body_is_not_complete_holds_no_parsed_metadata(tmp_path) -> None:
    """Parsed metadata need 20 times the memory of their text, and a slow client can hold them for long."""
    documents = json.dumps([{"00100020": {"vr": "LO", "Value": ["a"]}}] * 300).encode()
    seen = []

    async def parts():
        for kind, content in ((KIND, documents), ("application/octet-stream", b"a" * 100)):
            part = BodyPart({"content-type": kind})
            part.write(memoryview(content), None)
            yield part
            seen.append(tracemalloc.get_traced_memory()[0] - before)

    request = StowRequest(None, "A", None)
    before = 0

    async def run() -> None:
        nonlocal before
        before = tracemalloc.get_traced_memory()[0]
        await stow_json.store(request, parts(), tmp_path, CapacityLimiter(1))

    tracemalloc.start()
    try:
        asyncio.run(run())
    finally:
        tracemalloc.stop()
    assert max(seen) < 3 * len(documents)
    assert {failure.reason for failure in request.outcome.failed} == {0x0122}


def test_one_request_at_a_time_encodes_its_objects(node, monkeypatch) -> None:
    client, opened = node
    running, most = [], []
    store = stow_json._store_object

    def noted(*arguments):
        running.append(1)
        most.append(len(running))
        time.sleep(0.02)
        try:
            store(*arguments)
        finally:
            running.pop()

    monkeypatch.setattr(stow_json, "_store_object", noted)
    with ThreadPoolExecutor(4) as threads:
        bulk = [("b", "application/octet-stream", ct(1).PixelData)]
        answers = list(threads.map(lambda number: post(client, [split(ct(number), "b")] * 3, *bulk), range(1, 5)))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert max(most) == 1
    assert len(held(opened)) == 4
