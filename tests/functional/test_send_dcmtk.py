"""The C-STORE SCU with DCMTK's storescp, an independent implementation."""

import os
import socket
import subprocess
import time

import pytest
from programs import PROGRAMS, system
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ComprehensiveSRStorage, ExplicitVRLittleEndian, RLELossless, SecondaryCaptureImageStorage, generate_uid

from alnnode.deliver.cstore import CStoreDestination
from alnnode.deliver.destination import OutboxFile
from alnnode.errors import DeliveryError
from alnnode.settings import DestinationCStore

pytestmark = [pytest.mark.dcmtk, pytest.mark.skipif(system("storescp") is None, reason="NO DCMTK: apt install dcmtk")]


def after_meta(data: bytes) -> bytes:
    """Return the data set of a Part 10 file: what follows group 0002 (PS3.10 7.1)."""
    return data[144 + int.from_bytes(data[140:144], "little") :]


@pytest.fixture
def storescp(tmp_path):
    folder = tmp_path / "received"
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        ["storescp", "--bit-preserving", "--accept-all", "--output-directory", str(folder), "--aetitle", "PACS", str(port)],
        env={**os.environ, "PATH": PROGRAMS},
    )
    destination = CStoreDestination(
        DestinationCStore(name="dcmtk", ae_title="PACS", host="127.0.0.1", port=port, timeout=20), "ALNNODE"
    )
    deadline = time.monotonic() + 20
    while True:
        try:
            destination.echo()
            break
        except DeliveryError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    yield destination, folder
    process.terminate()
    process.wait()


def test_data_sets_arrive_byte_for_byte(tmp_path, storescp) -> None:
    destination, folder = storescp
    objects, sent = [], {}
    for sop_class, syntax, size in [
        (ComprehensiveSRStorage, ExplicitVRLittleEndian, 10),
        (SecondaryCaptureImageStorage, ExplicitVRLittleEndian, 3_000_001),
        (SecondaryCaptureImageStorage, RLELossless, 70_000),
    ]:
        uid = generate_uid()
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = sop_class, uid, syntax
        data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = sop_class, uid
        data.add_new(0x00091010, "OB", bytes(range(256)) * (size // 256))
        path = tmp_path / f"{len(objects)}.dcm"
        data.save_as(path, enforce_file_format=True)
        objects.append(OutboxFile(sop_class, uid, syntax, path))
        sent[uid] = after_meta(path.read_bytes())
    destination.send(objects)
    received = [after_meta(path.read_bytes()) for path in folder.iterdir()]
    assert sorted(received) == sorted(sent.values())
