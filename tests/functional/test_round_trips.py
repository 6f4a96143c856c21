"""Every kind of result, sent to Orthanc and DCMTK and retrieved from them, is unchanged."""

import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from analyses import CONTEXT, EVERYTHING, variants
from programs import PROGRAMS, system
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian, JPEGLSLossless
from viewers import PLUGIN, free_port, orthanc

from alnnode import report
from alnnode.deliver.cstore import CStoreDestination
from alnnode.deliver.destination import OutboxFile
from alnnode.deliver.stow_client import StowDestination
from alnnode.errors import DeliveryError
from alnnode.records import CaptureForm, MapFrames, ResultObject, SRClass
from alnnode.report.sr import prior_record
from alnnode.settings import DestinationCStore, DestinationStow

# What neither the default nor the other has.
FURTHER = replace(
    EVERYTHING,
    options=replace(
        EVERYTHING.options, sr_class=SRClass.COMPREHENSIVE, captures=CaptureForm.SINGLE, map_frames=MapFrames.NODES
    ),
)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, tuple[ResultObject, Path]]:
    """All kinds of results, for a source with Greek text and a multi-frame source, by SOP Instance UID."""
    folder, made = tmp_path_factory.mktemp("results"), {}
    for name in ("greek", "enhanced"):
        for context in (CONTEXT, EVERYTHING, FURTHER):
            # An input of its own, so that every object has a UID of its own.
            own = replace(context, input_digest=f"{len(made):064x}")
            for item in report.build(variants()[name], own):
                path = folder / f"{len(made)}.dcm"
                path.write_bytes(item.data)
                made[item.sop_instance_uid] = item, path
    return made


def data_set(data: bytes) -> bytes:
    """Return what follows group 0002 of a Part 10 file (PS3.10 7.1)."""
    return data[144 + int.from_bytes(data[140:144], "little") :]


def cstore(port: int) -> CStoreDestination:
    return CStoreDestination(
        DestinationCStore(name="peer", ae_title="PEER", host="127.0.0.1", port=port, timeout=30), "ALNNODE"
    )


def send(results: dict[str, tuple[ResultObject, Path]], destination: CStoreDestination | StowDestination) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            destination.echo()
            break
        except DeliveryError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    destination.send(
        [OutboxFile(i.sop_class_uid, i.sop_instance_uid, i.transfer_syntax_uid, path) for i, path in results.values()]
    )


@pytest.mark.skipif(system("Orthanc") is None or not PLUGIN.exists(), reason="NO ORTHANC: apt install orthanc orthanc-dicomweb")
@pytest.mark.parametrize("over", ["C-STORE", "STOW-RS"])
def test_orthanc_gives_back_the_same_bytes(results, tmp_path: Path, over: str) -> None:
    import json
    from urllib.request import urlopen

    with orthanc(tmp_path) as (root, port):
        stow = DestinationStow(name="peer", url=f"{root}/dicom-web", timeout=30)
        send(results, cstore(port) if over == "C-STORE" else StowDestination(stow))
        names = json.load(urlopen(f"{root}/instances"))
        assert len(names) == len(results)
        for name in names:
            data = urlopen(f"{root}/instances/{name}/file").read()
            uid = json.load(urlopen(f"{root}/instances/{name}/simplified-tags"))["SOPInstanceUID"]
            assert data_set(data) == data_set(results[uid][0].data)


@pytest.mark.dcmtk
@pytest.mark.skipif(system("storescp") is None, reason="NO DCMTK: apt install dcmtk")
@pytest.mark.parametrize("peer", ["storescp", "storescp --max-pdu 4096", "storescp --implicit", "dcmqrscp"])
def test_dcmtk_keeps_what_it_was_given(results, tmp_path: Path, peer: str) -> None:
    """Also with small PDUs, and with a peer that accepts only the default transfer syntax."""
    port, area = free_port(), tmp_path / "area"
    area.mkdir()
    if peer != "dcmqrscp":
        command = [*peer.split(), *(["--accept-all"] if peer == "storescp" else []), "--output-directory", str(area), str(port)]
    else:
        config = tmp_path / "dcmqrscp.cfg"
        config.write_text(
            f"NetworkTCPPort = {port}\nMaxPDUSize = 131072\nMaxAssociations = 4\nHostTable BEGIN\nHostTable END\n"
            f"VendorTable BEGIN\nVendorTable END\nAETable BEGIN\nPEER {area} RW (9, 1024mb) ANY\nAETable END\n",
            encoding="ascii",
        )
        command = ["dcmqrscp", "--config", str(config)]
    process = subprocess.Popen(
        command, env={"PATH": PROGRAMS, "TCP_NODELAY": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        send(results, cstore(port))
    finally:
        process.terminate()
        process.wait(20)
    found = [dcmread(path) for path in area.rglob("*") if path.is_file() and path.name != "index.dat"]
    assert sorted(d.SOPInstanceUID for d in found) == sorted(results)
    for dataset in found:
        assert (dataset.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian) == ("implicit" in peer)
        sent = dcmread(results[dataset.SOPInstanceUID][1])
        if sent.file_meta.TransferSyntaxUID == JPEGLSLossless != dataset.file_meta.TransferSyntaxUID:
            sent.decompress(generate_instance_uid=False)  # a peer without JPEG-LS gets the same pixels
        if "implicit" in peer and (prior_record.GROUP, 0x1000 + prior_record.ELEMENT) in sent:
            # The VRs of a private element and of pixels are not in the data set then.
            assert prior_record.read(dataset) == prior_record.read(sent) is not None
            del (
                dataset[prior_record.GROUP, 0x1000 + prior_record.ELEMENT],
                sent[prior_record.GROUP, 0x1000 + prior_record.ELEMENT],
            )
        if "implicit" in peer and "PixelData" in sent:
            dataset["PixelData"].VR = sent["PixelData"].VR
        assert dataset == sent
