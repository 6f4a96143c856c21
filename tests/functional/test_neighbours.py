"""A damaged object does not break responses about other objects: with default settings, every response is strict JSON with the others."""

import json

import pytest
from dicom_objects import STUDY, ct
from odd_objects import BAD, text_number
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit
from web_service import part10, service, stow
from workitem import workitem

from alnnode.dicomweb import dicom_json
from alnnode.settings import Worklist

SERIES = f"{STUDY}.1"
SEARCHES = [
    "/dicom-web/studies?includefield=all",
    "/dicom-web/studies?includefield=00081140",
    "/dicom-web/series?includefield=00400275",
    "/dicom-web/instances?includefield=00081140&includefield=00280030&includefield=00189087&includefield=00180050",
    f"/dicom-web/studies/{STUDY}/metadata",
    f"/dicom-web/studies/{STUDY}/series/{SERIES}/metadata",
]


def strict(text: str):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("bad", BAD)
def test_one_bad_object_leaves_strict_json_for_the_others(tmp_path, bad) -> None:
    with service(tmp_path) as (client, opened):
        assert stow(client, part10(ct(1)), BAD[bad]()).status_code == 200
        opened.acceptor.close()
        for path in SEARCHES * 2:  # first from the objects, then from the index
            answer = client.get(path)
            assert answer.status_code == 200, path
            found = strict(answer.text)
            assert found, path
            if "metadata" in path:
                assert f"{SERIES}.1" in [item["00080018"]["Value"][0] for item in found], path
        instances = strict(client.get("/dicom-web/instances").text)
        assert f"{SERIES}.1" in [item["00080018"]["Value"][0] for item in instances]


def test_a_number_that_is_not_finite_becomes_null_and_the_others_keep_their_positions(tmp_path) -> None:
    with service(tmp_path) as (client, opened):
        assert stow(client, text_number(b"nan")).status_code == 200
        opened.acceptor.close()
        (found,) = strict(client.get(f"/dicom-web/studies/{STUDY}/metadata").text)
    assert found["00280030"] == {"vr": "DS", "Value": [None, 0.7]}


def test_an_object_that_cannot_be_converted_is_left_out_of_a_study(tmp_path) -> None:
    damaged = ct(2)
    damaged.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    damaged.PixelData = encapsulate([b"\xff\xd8\xff\xe0 no JPEG \xff\xd9"])
    damaged["PixelData"].VR = "OB"
    with service(tmp_path) as (client, opened):
        assert stow(client, part10(ct(1)), part10(damaged), part10(ct(3))).status_code == 200
        opened.acceptor.close()
        answer = client.get(f"/dicom-web/studies/{STUDY}", headers={"Accept": 'multipart/related; type="application/dicom"'})
        assert answer.status_code == 200
        assert answer.content.count(b"DICM") == 2
        assert answer.content.rstrip().endswith(b"--")
        as_stored = 'multipart/related; type="application/dicom"; transfer-syntax=*'
        assert client.get(f"/dicom-web/studies/{STUDY}", headers={"Accept": as_stored}).content.count(b"DICM") == 3


def test_a_workitem_with_what_json_does_not_know_is_refused(tmp_path) -> None:
    deep: dict = {"vr": "SQ"}
    for _ in range(80):
        deep = {"vr": "SQ", "Value": [{"00400275": deep}]}
    bad = [
        json.dumps(workitem(PatientWeight={"vr": "DS", "Value": [float("nan")]})),
        json.dumps(workitem(PatientWeight={"vr": "DS", "Value": [7]})).replace("[7]", "[1e999]"),
        json.dumps(workitem(PatientWeight={"vr": "DS", "Value": ["NaN"]})),
        json.dumps(workitem(RequestAttributesSequence=deep)),
    ]
    headers = {"Content-Type": "application/dicom+json"}
    with service(tmp_path, worklist=Worklist(perform=False)) as (client, _):
        assert client.post("/dicom-web/workitems", content=json.dumps(workitem()), headers=headers).status_code == 201
        for one in bad:
            assert client.post("/dicom-web/workitems", content=one, headers=headers).status_code == 400
        answer = client.get("/dicom-web/workitems")
        assert answer.status_code == 200
        assert strict(answer.text)


def test_includefield_converts_only_the_requested_attributes(tmp_path, monkeypatch) -> None:
    converted = []
    element = dicom_json._element
    monkeypatch.setattr(dicom_json, "_element", lambda found, *rest: converted.append(str(found.tag)) or element(found, *rest))
    item = Dataset()
    item.ReferencedSOPInstanceUID = "1.2.3"
    with service(tmp_path) as (client, opened):
        assert stow(client, part10(ct(1, ReferencedImageSequence=[item] * 12_000))).status_code == 200
        opened.acceptor.close()
        client.get("/dicom-web/instances")
        converted.clear()
        (found,) = strict(client.get("/dicom-web/instances?includefield=PixelSpacing").text)
        assert found["00280030"]["Value"] == [0.7, 0.7]
        assert converted == ["(0028,0030)"]
        (found,) = strict(client.get("/dicom-web/instances?includefield=00081140").text)
        assert found["00081140"] == {"vr": "SQ"}, "more elements than a search response contains"
