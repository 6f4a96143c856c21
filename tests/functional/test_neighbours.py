"""One object that was accepted spoils no answer about its neighbours, at the default settings: every reader answers strict JSON for the others."""

import json

import pytest
from dicom_objects import STUDY, ct
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit
from web_service import part10, service, stow
from workitem import workitem

from alnnode.settings import Worklist
from alnnode.web import dicom_json

SERIES = f"{STUDY}.1"
SEARCHES = [
    "/dicom-web/studies?includefield=all",
    "/dicom-web/studies?includefield=00081140",
    "/dicom-web/series?includefield=00400275",
    "/dicom-web/instances?includefield=00081140&includefield=00280030&includefield=00189087&includefield=00180050",
    f"/dicom-web/studies/{STUDY}/metadata",
    f"/dicom-web/studies/{STUDY}/series/{SERIES}/metadata",
]


def nested(keyword: str, tag: bytes, levels: int) -> bytes:
    """An image with a sequence that holds itself ``levels`` deep, written as bytes: pydicom itself writes no such thing."""
    data = part10(ct(2, **{keyword: []}))
    empty = tag + b"SQ\0\0" + bytes(4)
    assert data.count(empty) == 1
    begin, end = (
        tag + b"SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff",
        b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0",
    )
    return data.replace(empty, begin * levels + end * levels)


def long_nested(levels: int) -> bytes:
    """The same with lengths, which a parser need not follow to find the end: the door takes any depth of it."""
    data, tag, inner = part10(ct(2, ReferencedImageSequence=[])), b"\x08\0\x40\x11SQ\0\0", b""
    for _ in range(levels):
        item = b"\xfe\xff\x00\xe0" + len(inner).to_bytes(4, "little") + inner
        inner = tag + len(item).to_bytes(4, "little") + item
    return data.replace(tag + bytes(4), inner)


def text_number(value: bytes) -> bytes:
    """An image whose Pixel Spacing has these eight bytes as its first value."""
    data = part10(ct(2, PixelSpacing=["0.700000", "0.7"]))
    assert data.count(b"0.700000\\") == 1
    return data.replace(b"0.700000\\", value.ljust(8) + b"\\")


def alone(value: bytes) -> bytes:
    data = part10(ct(2, SliceThickness="1.500000"))
    assert data.count(b"1.500000") == 1
    return data.replace(b"1.500000", value.ljust(8))


BAD = {
    "100 levels": lambda: nested("ReferencedImageSequence", b"\x08\0\x40\x11", 100),
    "2000 levels": lambda: long_nested(2000),
    "100 levels in what series show": lambda: nested("RequestAttributesSequence", b"\x40\0\x75\x02", 100),
    "NaN": lambda: text_number(b"nan"),
    "Infinity": lambda: text_number(b"1e999"),
    "one NaN": lambda: alone(b"NaN"),
    "one -Infinity": lambda: alone(b"-inf"),
    "a NaN of 8 bytes": lambda: part10(ct(2, DiffusionBValue=float("nan"))),
}


def strict(text: str):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("bad", BAD)
def test_one_bad_object_leaves_strict_json_for_the_others(tmp_path, bad) -> None:
    with service(tmp_path) as (client, opened):
        assert stow(client, part10(ct(1)), BAD[bad]()).status_code == 200
        opened.acceptor.close()
        for path in SEARCHES * 2:  # read anew, then from the notes
            answer = client.get(path)
            assert answer.status_code == 200, path
            found = strict(answer.text)
            assert found, path
            if "metadata" in path:
                assert f"{SERIES}.1" in [item["00080018"]["Value"][0] for item in found], path
        instances = strict(client.get("/dicom-web/instances").text)
        assert f"{SERIES}.1" in [item["00080018"]["Value"][0] for item in instances]


def test_a_number_that_is_not_finite_has_no_value_and_its_neighbours_in_the_element_keep_theirs(tmp_path) -> None:
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


def test_includefield_converts_what_is_asked_for_and_not_the_whole_object(tmp_path, monkeypatch) -> None:
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
        assert found["00081140"] == {"vr": "SQ"}, "more than an answer to a search holds"
