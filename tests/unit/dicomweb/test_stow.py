"""STOW-RS: what is stored, what is refused, and with which status (PS3.18 section 10.5)."""

import pytest
from dicom_objects import STUDY, ct
from pydicom.uid import CTImageStorage, MRImageStorage
from web_service import BOUNDARY, body, content_type, part10, service, stow

from alnnode.dicomweb import part_storage
from alnnode.errors import RejectedObject
from alnnode.receive import file_meta
from alnnode.settings import Internal, Listener, Retention, Web

FAILED, STORED = "00081198", "00081199"


def reasons(answer):
    return [item["00081197"]["Value"][0] for item in answer.json().get(FAILED, {}).get("Value", [])]


def stored(answer):
    return {item["00081155"]["Value"][0] for item in answer.json().get(STORED, {}).get("Value", [])}


@pytest.fixture
def node(tmp_path):
    with service(tmp_path) as (client, opened):
        yield client, opened


def test_each_stored_image_is_referenced_in_the_response(node, tmp_path):
    client, opened = node
    images = [ct(number) for number in (1, 2, 3)]
    answer = stow(client, *map(part10, images))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/dicom+json"
    assert stored(answer) == {str(image.SOPInstanceUID) for image in images}
    assert answer.json()["00081190"]["Value"] == [f"http://127.0.0.1:8124/dicom-web/studies/{STUDY}"]
    opened.acceptor.close()
    held = opened.catalogue.instances()
    assert {item.sop_instance_uid for item in held} == stored(answer)
    kept = opened.spool.path(held[0].path).read_bytes()
    assert kept.endswith(images[0].PixelData)


def test_a_duplicate_is_accepted_and_another_image_with_its_uid_is_refused(node):
    client, _ = node
    assert stow(client, part10(ct(1))).status_code == 200
    assert stow(client, part10(ct(1))).status_code == 200
    conflict = stow(client, part10(ct(1, Rows=32, Columns=128)))
    assert (conflict.status_code, reasons(conflict)) == (409, [0xC004])


def test_some_stored_and_some_refused_is_202_with_both_lists(node):
    client, _ = node
    other_class = ct(2)
    other_class.SOPClassUID = other_class.file_meta.MediaStorageSOPClassUID = MRImageStorage
    cut = part10(ct(3))[:-100]
    answer = stow(client, part10(ct(1)), part10(other_class), cut, b"no DICOM at all" * 100)
    assert answer.status_code == 202
    assert stored(answer) == {str(ct(1).SOPInstanceUID)}
    assert sorted(reasons(answer)) == [0x0122, 0xC000, 0xC000]
    named = [item for item in answer.json()[FAILED]["Value"] if "00081155" in item]
    assert len(named) == 2  # a part that is not DICOM has no UID


def test_file_meta_information_without_a_length_is_not_read_to_its_end(monkeypatch):
    seen = []
    data_set_offset = file_meta.data_set_offset
    monkeypatch.setattr(part_storage.file_meta, "data_set_offset", lambda data: seen.append(len(data)) or data_set_offset(data))
    endless = bytes(128) + b"DICM" + b"\x02\x00\x02\x00UI\x00\x00" * 50_000
    with pytest.raises(RejectedObject, match="not a DICOM Part 10 file"):
        part_storage._head(memoryview(endless))
    assert seen == [part_storage.META_LIMIT + 1]


def test_an_instance_of_another_study_than_the_url_is_refused(node):
    client, _ = node
    answer = stow(client, part10(ct(1)), path="/dicom-web/studies/1.2.3")
    assert (answer.status_code, reasons(answer)) == (409, [0xA901])
    answer = stow(client, part10(ct(1)), path=f"/dicom-web/studies/{STUDY}")
    assert answer.status_code == 200


def test_file_meta_information_that_differs_from_the_data_set_is_refused(node):
    client, _ = node
    other_uid, other_class = part10(ct(1)), part10(ct(2))
    assert reasons(stow(client, other_uid.replace(b".10.1.1.1", b".10.1.1.9", 1))) == [0xC001]
    enhanced = b"1.2.840.10008.5.1.4.1.1.88.22\0"
    # The SOP Class UID in the File Meta Information grows by four bytes, and so does the group length.
    meta = other_class.replace(b"\x1a\0" + CTImageStorage.encode() + b"\0", b"\x1e\0" + enhanced, 1)
    length = int.from_bytes(meta[140:144], "little") + 4
    assert reasons(stow(client, meta[:140] + length.to_bytes(4, "little") + meta[144:])) == [0xA900]


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (
            body(part10(ct(1)), part10(ct(2)), end=False)[:-20],
            content_type(),
            202,
        ),  # the first object is stored, the client must send the rest in a new request
        (body(part10(ct(1)), end=False), content_type(), 400),
        (body(part10(ct(1))), content_type("another"), 400),
        (b"", content_type(), 400),
        (body(), content_type(), 400),
        (body(part10(ct(1))), {"Content-Type": "application/dicom"}, 415),
        (body(part10(ct(1))), {"Content-Type": f'multipart/related; type="application/dicom+xml"; boundary={BOUNDARY}'}, 415),
        (body(part10(ct(1))), {"Content-Type": 'multipart/related; type="application/dicom"'}, 400),
        (body(part10(ct(1))), {**content_type(), "Accept": "text/html"}, 406),
        (body(b"text", kind="text/plain"), content_type(), 409),
        (b"--a-boundary\r\n" + b"X: y\r\n" * 10_000 + b"\r\n", content_type(), 400),
    ],
)
def test_malformed_bodies(node, content, headers, status):
    client, _ = node
    assert client.post("/dicom-web/studies", content=content, headers=headers).status_code == status


def test_a_body_or_part_that_is_too_large_is_refused(tmp_path):
    with service(tmp_path, internal=Internal(web_request_mb=1), listener=Listener(max_object_mb=1)) as (client, _):
        assert stow(client, part10(ct(1, side=1024))).status_code == 413  # because of the Content-Length header
        pieces = iter([body(part10(ct(1, side=1024)))])
        assert client.post("/dicom-web/studies", content=pieces, headers=content_type()).status_code == 413


def test_a_full_disk_is_503(tmp_path):
    with service(tmp_path, retention=Retention(min_free_mb=1 << 40)) as (client, _):
        answer = stow(client, part10(ct(1)))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "300")


def test_large_parts_are_written_to_a_file(node, monkeypatch):
    client, opened = node
    monkeypatch.setattr("alnnode.multipart.IN_MEMORY", 1000)
    image = ct(1, side=512)
    assert stow(client, part10(image)).status_code == 200
    opened.acceptor.close()
    (held,) = opened.catalogue.instances()
    assert opened.spool.path(held.path).read_bytes().endswith(image.PixelData)
    assert list((opened.spool.root / "incoming").iterdir()) == []


def test_the_name_of_the_token_is_the_sender_for_routes(tmp_path):
    from hashlib import sha256

    from sqlalchemy import select

    from alnnode.db.tables import Series
    from alnnode.settings import WebToken

    web = Web(tokens=(WebToken(name="ROUTER", roles=("send",), sha256=sha256(b"secret").hexdigest()),))
    with service(tmp_path, web=web) as (client, opened):
        assert stow(client, part10(ct(1)), headers={"Authorization": "Bearer secret"}).status_code == 200
        opened.acceptor.close()
        with opened.engine.connect() as connection:
            assert connection.execute(select(Series.calling_ae)).scalars().all() == ["ROUTER"]


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/related; type*=utf-8''application%2Fdicom; boundary*=utf-8''a-boundary",
        "multipart/related; type=application/dicom; boundary*=nonsense''a%FF",
        "multipart/related; type=application/dicom; boundary*0*=utf-8''a; boundary*1=b",
        "multipart/related; boundary*=x",
    ],
)
def test_parameters_in_the_encoding_of_rfc_2231_are_refused_without_a_server_error(node, kind):
    client, _ = node
    answer = client.post("/dicom-web/studies", content=body(part10(ct(1))), headers={"Content-Type": kind})
    assert answer.status_code == 400, answer.text
    assert client.get("/dicom-web/studies", headers={"Accept": "multipart/related; type*=utf-8''x, */*"}).status_code == 200
