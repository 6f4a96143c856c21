"""The C-STORE SCU against a real SCP on loopback."""

import socket
import threading
from contextlib import contextmanager
from io import BytesIO

import pytest
from analyses import CONTEXT, analysis
from pydicom import Dataset, dcmread
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.uid import (
    ComprehensiveSRStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)
from pynetdicom import AE, build_context, evt
from pynetdicom.sop_class import Verification

from alnnode import report
from alnnode.deliver.cstore import CStoreDestination
from alnnode.deliver.destination import OutboxFile
from alnnode.errors import DeliveryError, DeliveryRefused
from alnnode.records import ObjectRole
from alnnode.settings import DestinationCStore


def data_set_bytes(path) -> bytes:
    """Return what follows the file meta information."""
    meta = dcmread(path, stop_before_pixels=True).file_meta
    return path.read_bytes()[128 + 4 + 12 + meta.FileMetaInformationGroupLength :]


@pytest.fixture
def make(tmp_path):
    def build(
        sop_class: str = SecondaryCaptureImageStorage, syntax: str = ExplicitVRLittleEndian, size: int = 300_000
    ) -> OutboxFile:
        uid = generate_uid()
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = sop_class, uid, syntax
        data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = sop_class, uid
        # Sequences of undefined length: decoding and encoding would not return the same bytes.
        item = Dataset()
        item.is_undefined_length_sequence_item = True
        data.ReferencedSeriesSequence = [item]
        data["ReferencedSeriesSequence"].is_undefined_length = True
        data.add_new(0x00091010, "OB", bytes(size))
        path = tmp_path / f"{uid}.dcm"
        data.save_as(path, enforce_file_format=True)
        return OutboxFile(sop_class, uid, syntax, path)

    return build


@contextmanager
def scp(
    statuses=(), *, contexts=((SecondaryCaptureImageStorage, ExplicitVRLittleEndian),), handlers=(), ae_title="PACS", **required
):
    received: list[tuple[str, bytes]] = []
    answers = list(statuses)

    def store(event: evt.Event) -> int:
        received.append((event.request.AffectedSOPInstanceUID, event.request.DataSet.getvalue()))
        return answers.pop(0) if answers else 0x0000

    entity = AE(ae_title)
    for name, value in required.items():
        setattr(entity, name, value)
    entity.add_supported_context(Verification)
    for context in contexts:
        entity.add_supported_context(*context)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store), *handlers])
    try:
        yield (
            CStoreDestination(
                DestinationCStore(name="pacs", ae_title="PACS", host="127.0.0.1", port=server.server_address[1], timeout=3),
                "NODE",
            ),
            received,
        )
    finally:
        server.shutdown()


def test_the_bytes_of_the_file_arrive(make) -> None:
    objects = [make(), make(ComprehensiveSRStorage, size=10), make(syntax=RLELossless, size=65536)]
    contexts = {(item.sop_class_uid, item.transfer_syntax_uid) for item in objects}
    with scp(contexts=contexts) as (destination, received):
        destination.send(objects)
    assert received == [(item.sop_instance_uid, data_set_bytes(item.path)) for item in objects]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_peer_without_jpeg_ls_receives_a_capture_uncompressed(tmp_path, syntax) -> None:
    item = next(item for item in report.build(analysis(1), CONTEXT) if item.role is ObjectRole.CAPTURE)
    assert item.transfer_syntax_uid == JPEGLSLossless
    path = tmp_path / "capture.dcm"
    path.write_bytes(item.data)
    stored = [OutboxFile(item.sop_class_uid, item.sop_instance_uid, item.transfer_syntax_uid, path)]
    with scp(contexts=[(SecondaryCaptureImageStorage, syntax)]) as (destination, received):
        destination.send(stored)
    ((uid, data),) = received
    assert uid == item.sop_instance_uid
    got = read_dataset(BytesIO(data), is_implicit_VR=syntax == ImplicitVRLittleEndian, is_little_endian=True)
    assert got.SOPInstanceUID == item.sop_instance_uid
    assert got.PixelData == dcmread(path).pixel_array.tobytes()


def test_one_association_and_no_nagle(make, monkeypatch) -> None:
    opened, options = [], []
    original = socket.socket.setsockopt

    def spy(self, *args) -> None:
        options.append(args)
        original(self, *args)

    monkeypatch.setattr(socket.socket, "setsockopt", spy)
    with scp(handlers=[(evt.EVT_ACCEPTED, opened.append)]) as (destination, received):
        destination.send([make() for _ in range(5)])
    assert len(opened) == 1
    assert len(received) == 5
    assert (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1) in options


@pytest.mark.parametrize("status", [0x0000, 0x0111, 0xB000, 0xB006, 0xB007, 0x0107, 0x0116])
def test_warnings_and_duplicates_are_success(make, status) -> None:
    with scp([status]) as (destination, received):
        destination.send([make()])
    assert len(received) == 1


@pytest.mark.parametrize("status", [0xA900, 0xA901, 0x0122, 0x0124, 0x0117])
def test_refusals_name_the_status_and_the_rest_is_still_sent(make, status) -> None:
    with scp([status]) as (destination, received), pytest.raises(DeliveryRefused, match=f"0x{status:04X}"):
        destination.send([make(), make()])
    assert len(received) == 2


@pytest.mark.parametrize("status", [0x0110, 0xC000, 0xC123, 0x0213])
def test_a_temporary_failure_may_be_retried(make, status) -> None:
    with scp([status]) as (destination, received), pytest.raises(DeliveryError, match=f"0x{status:04X}") as caught:
        destination.send([make(), make()])
    assert not isinstance(caught.value, DeliveryRefused)
    assert len(received) == 2


def test_out_of_resources_ends_the_batch(make) -> None:
    with scp([0xA700]) as (destination, received), pytest.raises(DeliveryError, match="out of resources") as caught:
        destination.send([make(), make(), make()])
    assert not isinstance(caught.value, DeliveryRefused)
    assert len(received) == 1


def test_a_context_that_is_not_accepted_is_a_refusal_and_the_others_arrive(make) -> None:
    report, capture = make(ComprehensiveSRStorage, size=10), make()
    with scp() as (destination, received), pytest.raises(DeliveryRefused, match=str(ComprehensiveSRStorage)):
        destination.send([report, capture])
    assert [uid for uid, _ in received] == [capture.sop_instance_uid]


def test_no_context_accepted_is_a_refusal(make) -> None:
    with scp() as (destination, _), pytest.raises(DeliveryRefused, match="none of the proposed"):
        destination.send([make(ComprehensiveSRStorage, size=10)])


def test_a_wrong_called_ae_title_is_a_refusal_that_says_what_to_do(make) -> None:
    with scp(ae_title="OTHER", require_called_aet=True) as (destination, _), pytest.raises(DeliveryRefused, match="ae_title"):
        destination.send([make()])


def test_an_unknown_calling_ae_title_is_a_refusal(make) -> None:
    with scp(require_calling_aet=["FRIEND"]) as (destination, _), pytest.raises(DeliveryRefused, match="this node's AE title"):
        destination.send([make()])


def test_a_full_peer_may_be_retried(make) -> None:
    with (
        scp(maximum_associations=1) as (destination, _),
        destination._user.associate([build_context(Verification)]),
        pytest.raises(DeliveryError) as caught,
    ):
        destination.send([make()])
    assert not isinstance(caught.value, DeliveryRefused)


def test_nobody_there(make) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    destination = CStoreDestination(
        DestinationCStore(name="pacs", ae_title="PACS", host="127.0.0.1", port=port, timeout=1), "NODE"
    )
    with pytest.raises(DeliveryError, match="nothing listens on"):
        destination.echo()


def test_a_lost_association_may_be_retried(make) -> None:
    def abort(event: evt.Event) -> None:
        event.assoc.abort()

    with scp(handlers=[(evt.EVT_C_STORE, abort)]) as (destination, _), pytest.raises(DeliveryError) as caught:
        destination.send([make(), make()])
    assert not isinstance(caught.value, DeliveryRefused)


def test_a_peer_that_falls_silent_ends_within_the_timeout(make) -> None:
    release = threading.Event()

    def hang(event: evt.Event) -> int:
        release.wait(20)
        return 0x0000

    with scp(handlers=[(evt.EVT_C_STORE, hang)]) as (destination, _):
        try:
            with pytest.raises(DeliveryError, match="no response came within 3 s"):
                destination.send([make()])
        finally:
            release.set()


def test_the_error_of_a_missing_outbox_file_has_no_path(make) -> None:
    item = make()
    item.path.unlink()
    with scp() as (destination, _), pytest.raises(DeliveryError) as caught:
        destination.send([item])
    assert str(item.path) not in str(caught.value)


def test_echo_and_nothing_to_send(make) -> None:
    with scp() as (destination, received):
        destination.echo()
        destination.send([])
    assert received == []
