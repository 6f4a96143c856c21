"""The client library dicomweb-client stores, searches and retrieves over a real connection."""

import io
import os
import re
import subprocess
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from dicom_objects import STUDY, ct
from dicomweb_client.api import DICOMwebClient
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless
from web_service import part10, server, service, stow

from alnnode.dicomweb.attribute_index import AttributeIndex
from alnnode.dicomweb.indexer import Indexer
from alnnode.settings import Web, WebToken
from alnnode.spool.spool import Spool

TOKEN = "a-token-of-the-tests"

SERIES = f"{STUDY}.1"


def images():
    changes = {"StudyDate": "20260301", "StudyTime": "101500", "AccessionNumber": "ACC-1", "SeriesNumber": 3, "StudyID": "7"}
    plain = [ct(n, **changes) for n in (1, 2, 3)]
    compressed = [ct(n, series=f"{STUDY}.2", **{**changes, "SeriesNumber": 4}) for n in (1, 2)]
    compressed[0].compress(RLELossless, generate_instance_uid=False)
    compressed[1].compress(JPEG2000Lossless, generate_instance_uid=False)
    other = ct(1, series="1.2.826.0.1.3680043.10.2.1", **{**changes, "StudyDate": "20260405", "PatientName": "Other^Name"})
    other.StudyInstanceUID = "1.2.826.0.1.3680043.10.2"
    return plain, compressed, other


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    token = WebToken(name="CLIENT", roles=("send", "read"), sha256=sha256(TOKEN.encode()).hexdigest())
    with server(tmp_path_factory.mktemp("node"), web=Web(tokens=(token,))) as (url, opened):
        client = DICOMwebClient(f"{url}/dicom-web", headers={"Authorization": f"Bearer {TOKEN}"})
        client.host = url.removeprefix("http://")  # dicomweb-client omits the port in the Host header
        plain, compressed, other = images()
        answer = client.store_instances([*plain, *compressed, other])
        assert len(answer.ReferencedSOPSequence) == 6
        assert "FailedSOPSequence" not in answer
        opened.acceptor.close()
        yield SimpleNamespace(client=client, url=url, opened=opened, plain=plain, compressed=compressed, other=other)


def value(item, tag):
    return item[tag].get("Value", [None])[0]


def test_search_at_each_level(node) -> None:
    found = node.client.search_for_studies()
    assert len(found) == 2
    (study,) = node.client.search_for_studies(search_filters={"PatientName": "secret^*"})
    assert (value(study, "0020000D"), value(study, "00201206"), value(study, "00201208")) == (STUDY, 2, 5)
    assert (study["00080061"]["Value"], value(study, "00100010")) == (["CT"], {"Alphabetic": "SECRET^NAME"})
    assert value(study, "00081190") == f"{node.url}/dicom-web/studies/{STUDY}"
    series = node.client.search_for_series(STUDY)
    assert {value(item, "0020000E"): value(item, "00201209") for item in series} == {SERIES: 3, f"{STUDY}.2": 2}
    instances = node.client.search_for_instances(STUDY, SERIES)
    assert {value(item, "00080018") for item in instances} == {str(image.SOPInstanceUID) for image in node.plain}
    assert {value(item, "00280010") for item in instances} == {64}
    assert len(node.client.search_for_instances()) == 6


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({"StudyDate": "20260301"}, 1),
        ({"StudyDate": "20260101-20260331"}, 1),
        ({"StudyDate": "20260301-"}, 2),
        ({"StudyDate": "-20260228"}, 0),
        ({"StudyTime": "1000-1100"}, 2),
        ({"AccessionNumber": "ACC-?"}, 2),
        ({"AccessionNumber": "acc-1"}, 0),
        ({"PatientName": "OTHER^NAME"}, 1),
        ({"PatientID": "SECRET-ID"}, 2),
        ({"StudyInstanceUID": f"{STUDY},1.2.826.0.1.3680043.10.2"}, 2),
        ({"0020000D": f"{STUDY}\\1.2.3"}, 1),
        ({"ModalitiesInStudy": "CT"}, 2),
        ({"ModalitiesInStudy": "MR"}, 0),
        ({"PatientName": "*"}, 2),
        ({"SeriesNumber": "4"}, 1),
    ],
)
def test_matching(node, filters, count) -> None:
    assert len(node.client.search_for_studies(search_filters=filters)) == count


def test_paging_and_fields(node) -> None:
    everything = node.client.search_for_instances()
    pages = [node.client.search_for_instances(limit=2, offset=offset) for offset in (0, 2, 4, 6)]
    assert [item for page in pages for item in page] == everything
    (first,) = node.client.search_for_instances(STUDY, SERIES, limit=1, fields=["SliceThickness", "KVP"])
    assert value(first, "00180050") == 1.5
    assert "00180060" not in first


def test_retrieved_objects_equal_the_stored_ones(node) -> None:
    found = {str(image.SOPInstanceUID): image for image in node.client.retrieve_study(STUDY)}
    assert set(found) == {str(image.SOPInstanceUID) for image in (*node.plain, *node.compressed)}
    (plain,) = (found[str(image.SOPInstanceUID)] for image in node.plain[:1])
    assert plain == node.plain[0]
    for image in node.compressed:
        explicit = (("application/dicom", ExplicitVRLittleEndian),)
        back = node.client.retrieve_instance(STUDY, f"{STUDY}.2", image.SOPInstanceUID, media_types=explicit)
        assert not back.file_meta.TransferSyntaxUID.is_encapsulated
        assert (back.pixel_array == image.pixel_array).all()
        syntax = str(image.file_meta.TransferSyntaxUID)
        kept = node.client.retrieve_instance(
            STUDY, f"{STUDY}.2", image.SOPInstanceUID, media_types=(("application/dicom", "*"),)
        )
        assert str(kept.file_meta.TransferSyntaxUID) == syntax
        assert kept.PixelData == image.PixelData


def test_metadata_contain_everything_but_the_pixel_data(node) -> None:
    (first, *others) = node.client.retrieve_series_metadata(STUDY, SERIES)
    assert len(others) == 2
    assert value(first, "00181210") == "B31f"
    assert first["7FE00010"] == {
        "vr": "OW",
        "BulkDataURI": f"{node.url}/dicom-web/studies/{STUDY}/series/{SERIES}/instances/{SERIES}.1/bulkdata/7FE00010",
    }
    (pixels,) = node.client.retrieve_bulkdata(first["7FE00010"]["BulkDataURI"])
    assert pixels == node.plain[0].PixelData


def test_frames_are_sent_in_the_requested_transfer_syntax(node) -> None:
    (frame,) = node.client.retrieve_instance_frames(STUDY, SERIES, f"{SERIES}.1", [1])
    assert frame == node.plain[0].PixelData
    for image, kind in zip(node.compressed, ("image/dicom-rle", "image/jp2"), strict=True):
        where = STUDY, f"{STUDY}.2", str(image.SOPInstanceUID)
        (raw,) = node.client.retrieve_instance_frames(*where, [1], media_types=("application/octet-stream",))
        assert np.frombuffer(raw, "<i2").reshape(64, 64).tolist() == image.pixel_array.tolist()
        (stored,) = node.client.retrieve_instance_frames(
            *where, [1], media_types=((kind, str(image.file_meta.TransferSyntaxUID)),)
        )
        assert stored.rstrip(b"\0") in image.PixelData
    answer = node.client._http_get(
        f"{node.url}/dicom-web/studies/{STUDY}/series/{SERIES}/instances/{SERIES}.1/frames/1",
        headers={"Accept": "application/octet-stream"},
    )
    assert answer.content == node.plain[0].PixelData


def test_rendered_images_and_thumbnails(node) -> None:
    where = STUDY, SERIES, f"{SERIES}.1"
    picture = Image.open(io.BytesIO(node.client.retrieve_instance_rendered(*where, media_types=("image/png",))))
    assert (picture.format, picture.size, picture.mode) == ("PNG", (64, 64), "L")
    hu = node.plain[0].pixel_array.astype(float) - 1024
    params = {"window": "40,400,linear", "viewport": "32,32"}
    small = Image.open(io.BytesIO(node.client.retrieve_instance_rendered(*where, media_types=("image/jpeg",), params=params)))
    assert (small.format, small.size) == ("JPEG", (32, 32))
    windowed = np.array(
        Image.open(
            io.BytesIO(
                node.client.retrieve_instance_frames_rendered(
                    *where, [1], media_types=("image/png",), params={"window": "40,400"}
                )
            )
        )
    )
    assert (windowed[hu < -161] == 0).all()
    assert (windowed[hu > 240] == 255).all()
    assert abs(int(windowed[np.abs(hu - 40) < 1].mean()) - 127) <= 1


def test_unknown_objects_and_invalid_parameters(node) -> None:
    def status(path, accept="*/*"):
        headers = {"Accept": accept, "Authorization": f"Bearer {TOKEN}"}
        return httpx.get(f"{node.url}/dicom-web{path}", headers=headers).status_code

    instance = f"/studies/{STUDY}/series/{SERIES}/instances/{SERIES}.1"
    assert status("/studies/1.2.3") == 404
    assert status("/studies?NoSuchKeyword=1") == 400
    assert status("/studies?limit=-1") == 400
    assert status(f"{instance}/frames/2") == 404
    assert status(f"{instance}/frames/0") == 400
    assert status(f"{instance}/frames/1", 'multipart/related; type="image/jpeg"') == 406
    assert status(f"{instance}/rendered?window=1") == 400
    assert status(f"{instance}/rendered", "video/mp4") == 406
    assert status(f"{instance}/bulkdata/00100010") == 404
    assert status(f"{instance}/bulkdata/../../x") == 404
    assert (
        status(f"/studies/{STUDY}", 'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.50')
        == 406
    )
    assert status("/studies", "multipart/related; type=application/dicom+xml") == 406
    answer = node.client._http_get(f"{node.url}/dicom-web/studies?fuzzymatching=true&Rows=64")
    assert "fuzzymatching" in answer.headers["warning"]
    assert "Rows" in answer.headers["warning"]


def test_the_index_file_is_deleted_with_its_object(node) -> None:
    node.client.search_for_instances()
    spool = node.opened.spool
    notes = [path for path in spool.root.rglob("*.jsonl") if b"Other^Name" in path.read_bytes()]
    assert len(notes) == 1
    assert notes[0].stat().st_mode & 0o077 == 0
    (held,) = node.opened.catalogue.instances(studies=[str(node.other.StudyInstanceUID)])
    spool.delete([held.path])
    assert not notes[0].parent.exists()
    assert len(node.client.search_for_studies()) == 1
    spool.note(held.path, "series", b"late")  # by a search that began before the deletion
    assert not notes[0].parent.exists()
    for path in (spool.root.parent).glob("alnnode.db*"):
        assert b"SECRET" not in path.read_bytes()


def test_the_curl_examples_of_the_readme_work(node, tmp_path) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    section = readme.split("## Query it over HTTP (DICOMweb)", 1)[1].split("\n## ", 1)[0]
    (block,) = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    commands = block.replace("$ ", "").replace("curl ", "curl --fail --silent --show-error ")
    ct(9, series=f"{STUDY}.9").save_as(tmp_path / "image.dcm", enforce_file_format=True)
    uids = {"STUDY": STUDY, "SERIES": SERIES, "INSTANCE": f"{SERIES}.1"}
    environment = {**os.environ, **uids, "TOKEN": TOKEN, "NODE": f"{node.url}/dicom-web"}
    commands = re.sub(r"^NODE=.*\n", "", commands, flags=re.MULTILINE)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        check=False,
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert commands.count("curl") >= 7
    assert '"00081199"' in done.stdout  # Referenced SOP Sequence: it was stored
    assert Image.open(tmp_path / "image.png").size == (64, 64)
    assert (tmp_path / "pixels.raw").stat().st_size == 64 * 64 * 2
    assert (tmp_path / "study.multipart").read_bytes().count(b"DICM") == 5


def test_the_indexer_indexes_new_objects_before_the_first_search(tmp_path) -> None:
    with service(tmp_path) as (client, opened):
        assert stow(client, *(part10(ct(n)) for n in (1, 2, 3))).status_code == 200
        opened.acceptor.close()
        Indexer(opened.catalogue, opened.attributes).once()
        (notes,) = opened.spool.root.rglob("instances.jsonl")
        assert notes.read_bytes().count(b"\n") == 3
        opened.attributes._instances._cache.clear()
        assert opened.attributes.instance_attributes(opened.catalogue.instances())[0]["00280010"]["Value"] == [64]
        assert notes.read_bytes().count(b"\n") == 3, "each object is indexed once"


def test_a_damaged_object_spoils_no_search_for_the_others(tmp_path) -> None:
    sound, damaged = part10(ct(1)), part10(ct(2))
    rows = damaged.index(b"\x28\x00\x10\x00US\x02\x00")
    damaged = damaged[: rows + 6] + b"\x01\x00\x40" + damaged[rows + 10 :]  # one byte for a value of two bytes
    with service(tmp_path) as (client, opened):
        assert stow(client, sound, damaged).status_code == 200
        opened.acceptor.close()
        found = client.get("/dicom-web/instances?includefield=PixelSpacing&includefield=Rows").json()
    assert sorted(item.get("00280010", {}).get("Value", []) for item in found) == [[], [64]]
    assert [item["00280030"]["vr"] for item in found] == ["DS", "DS"], "the other attributes of the object are in the response"


def test_a_search_reads_a_file_once_and_again_after_it_was_replaced(tmp_path) -> None:
    spool, at = Spool(tmp_path), datetime.now(UTC)
    path = Spool.object_path("1.2.3", "1.2.3.4")
    file = spool.path(path)
    file.parent.mkdir(parents=True)
    held, attributes = [SimpleNamespace(path=path, stored_at=at)], AttributeIndex(spool)
    file.write_bytes(part10(ct(1, PatientID="FIRST")))

    def number(held):
        return [found and found["00100020"]["Value"][0] for found in attributes.series_attributes(held)]

    assert number(held) == ["FIRST"]
    file.unlink()
    assert number(held) == ["FIRST"], "the cache is valid while the database has the same time"
    again = [SimpleNamespace(path=path, stored_at=at + timedelta(seconds=1))]
    assert number(again) == [None]
    file.write_bytes(part10(ct(1, PatientID="SECOND")))
    assert number(again) == ["SECOND"]
    assert spool.notes(path.rpartition("/")[0], "series").count(b"\n") == 2
