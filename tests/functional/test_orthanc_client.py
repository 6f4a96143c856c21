"""The DICOMweb plugin of Orthanc as a client of the node: it stores, searches and retrieves. Its settings contain the Authorization header."""

import json
import os
import subprocess
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from dicom_objects import STUDY, ct
from listening import free_port, wait_for
from programs import PROGRAMS, system
from pydicom.uid import JPEG2000Lossless
from web_service import part10, server

from alnnode.settings import Web, WebToken

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
SERIES, TOKEN = f"{STUDY}.1", "a-token-for-orthanc"
pytestmark = pytest.mark.skipif(
    system("Orthanc") is None or not PLUGIN.exists(), reason="NO ORTHANC: apt-get install orthanc orthanc-dicomweb"
)


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    token = WebToken(name="ORTHANC", roles=("send", "read"), sha256=sha256(TOKEN.encode()).hexdigest())
    with server(tmp_path_factory.mktemp("node"), web=Web(tokens=(token,))) as node:
        yield node


@pytest.fixture(scope="module")
def orthanc(node, tmp_path_factory):
    """A client of an Orthanc whose settings name the node "node"."""
    folder, port = tmp_path_factory.mktemp("orthanc"), free_port()
    known = {"Url": f"{node[0]}/dicom-web/", "HttpHeaders": {"Authorization": f"Bearer {TOKEN}"}}
    settings = {
        "HttpPort": port, "DicomServerEnabled": False, "RemoteAccessAllowed": False, "AuthenticationEnabled": False,
        "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"), "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "Servers": {"node": known}},
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings), encoding="utf-8")
    environment = {**os.environ, "PATH": PROGRAMS, "TCP_NODELAY": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["Orthanc", str(folder / "orthanc.json")], cwd=folder, env=environment, stdout=log, stderr=log
        )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:

        def answers() -> bool:
            assert process.poll() is None, (folder / "log").read_text()
            try:
                return client.get("/dicom-web/servers").json() == ["node"]
            except httpx.TransportError:
                return False

        try:
            wait_for(answers, 120)
            yield client
        finally:
            process.terminate()
            process.wait(60)


def images():
    compressed = ct(3)
    compressed.compress(JPEG2000Lossless, generate_instance_uid=False)
    return [ct(1), ct(2), compressed]


def local(orthanc, dataset) -> str | None:
    """The Orthanc id of an instance."""
    return next(iter(orthanc.post("/tools/lookup", content=str(dataset.SOPInstanceUID)).json()), {}).get("ID")


def test_orthanc_stores_searches_and_retrieves(node, orthanc) -> None:
    _, opened = node
    for image in images():
        assert orthanc.post("/instances", content=part10(image)).status_code == 200
    ids = [local(orthanc, image) for image in images()]
    stored = orthanc.post("/dicom-web/servers/node/stow", json={"Resources": ids, "Synchronous": True})
    assert stored.status_code == 200, stored.text
    wait_for(lambda: len(opened.catalogue.instances()) == 3)
    kept = {item.sop_instance_uid: item.transfer_syntax_uid for item in opened.catalogue.instances()}
    assert kept[str(images()[2].SOPInstanceUID)] == JPEG2000Lossless

    found = orthanc.post("/dicom-web/servers/node/qido", json={"Uri": "/studies", "Arguments": {"PatientID": "SECRET-ID"}})
    (study,) = found.json()
    # The plugin omits values that are JSON numbers, such as counts.
    assert (study["0020000D"]["Value"], study["00100010"]["Value"]) == (STUDY, "SECRET^NAME")
    nothing = orthanc.post("/dicom-web/servers/node/qido", json={"Uri": "/studies", "Arguments": {"PatientID": "ANOTHER"}})
    assert nothing.json() == []

    for image in images():
        orthanc.delete(f"/instances/{local(orthanc, image)}")
    assert not any(local(orthanc, image) for image in images())
    resource = {"Resources": [{"Study": STUDY, "Series": SERIES}], "Synchronous": True}
    retrieved = orthanc.post("/dicom-web/servers/node/retrieve", json=resource)
    assert retrieved.status_code == 200, retrieved.text
    assert all(local(orthanc, image) for image in images())
    metadata = orthanc.post("/dicom-web/servers/node/get", json={"Uri": f"/studies/{STUDY}/series/{SERIES}/metadata"}).json()
    assert {item["00080018"]["Value"][0] for item in metadata} == {str(image.SOPInstanceUID) for image in images()}
