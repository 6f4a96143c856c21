"""The listener as a process, with real sockets, databases and senders, and SIGKILL."""

import os
import re
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import dicom_objects
import pytest
from listening import Listener, wait_for
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless
from pynetdicom.sop_class import CTImageStorage, MRImageStorage, Verification

from alnnode.receive.recorder import replay
from alnnode.records import JobState


@pytest.fixture
def make(tmp_path, database_url):
    made: list[Listener] = []

    def start(*args, processes=1, **kwargs) -> Listener:
        listener = Listener(tmp_path, database_url, *args, **kwargs)
        made.append(listener)
        for _ in range(processes):
            listener.start()
        return listener

    yield start
    for listener in made:
        listener.stop()


def send(association, dataset) -> int:
    return association.send_c_store(dataset).Status


def test_bytes_are_kept_exactly_as_sent(make) -> None:
    listener = make()
    association = listener.associate()
    originals = [dicom_objects.ct(n) for n in range(5)]
    assert [send(association, dataset) for dataset in originals] == [0] * 5
    association.release()
    wait_for(lambda: listener.recorded() == 5)
    wait_for(lambda: not list(listener.spool.pending()))
    kept = {}
    for path in listener.paths():
        dataset = dcmread(path)
        assert path.stat().st_mode & 0o777 == 0o600
        assert dataset.file_meta.SourceApplicationEntityTitle == "CT1"
        kept[dataset.SOPInstanceUID] = dicom_objects.data_set(dataset)
    assert kept == {dataset.SOPInstanceUID: dicom_objects.data_set(dataset) for dataset in originals}
    names = " ".join(str(path) for path in listener.spool.root.rglob("*"))
    assert dicom_objects.STUDY not in names
    assert "SECRET" not in listener.log.read_text() + names


@pytest.mark.dcmtk
def test_dcmtk_echoes_and_stores(make, dcmtk, tmp_path) -> None:
    listener = make(processes=2)
    assert dcmtk("echoscu", "-aec", "ALNNODE", "127.0.0.1", listener.port).returncode == 0
    folder = tmp_path / "send"
    folder.mkdir()
    for number in range(40):
        dicom_objects.ct(number, side=256).save_as(folder / f"{number}.dcm", enforce_file_format=True)
    sent = dcmtk("storescu", "-pdu", "131072", "-aec", "ALNNODE", "+sd", "127.0.0.1", listener.port, folder)
    assert sent.returncode == 0, sent.stderr
    wait_for(lambda: listener.recorded() == 40)


def test_a_compressed_object_is_taken_as_it_is(make, tmp_path) -> None:
    listener = make()
    dataset = dicom_objects.ct(side=64)
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    dataset.save_as(tmp_path / "sent.dcm", enforce_file_format=True)
    dataset = dcmread(tmp_path / "sent.dcm")
    association = listener.associate([(CTImageStorage, [JPEG2000Lossless])])
    assert send(association, dataset) == 0
    association.release()
    (path,) = wait_for(listener.paths)
    assert dcmread(path).PixelData == dataset.PixelData
    assert dcmread(path).file_meta.TransferSyntaxUID == JPEG2000Lossless


def test_senders_that_share_a_study_in_several_encodings_all_succeed(make) -> None:
    """First at the same time, so that some images are duplicates in the journal; then again, so that all are in the database."""
    listener = make(processes=2)
    images, syntaxes = range(6), (ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless)
    answers: list[int] = []

    def sender(syntax: str) -> None:
        association = listener.associate([(CTImageStorage, [syntax])])
        for number in images:
            dataset = dicom_objects.ct(number)
            if syntax == JPEG2000Lossless:
                dataset.compress(syntax, generate_instance_uid=False)
            dataset.file_meta.TransferSyntaxUID = syntax
            plain = Dataset(dataset)
            plain.file_meta = dataset.file_meta
            answers.append(send(association, plain))
        association.release()

    for _ in range(2):
        with ThreadPoolExecutor(len(syntaxes)) as pool:
            list(pool.map(sender, syntaxes))
        wait_for(lambda: listener.recorded() == len(images) and not list(listener.spool.pending()))
    assert answers == [0] * len(images) * len(syntaxes) * 2
    assert not (listener.spool.root / "conflicts").exists()
    assert len(listener.paths()) == len(images)


def test_one_bad_object_never_costs_the_association(make) -> None:
    listener = make("max_object_mb = 1")
    association = listener.associate()
    good = dicom_objects.ct(1)
    assert send(association, good) == 0
    answers = {}
    for name, dataset in {
        "no series": dicom_objects.ct(2, SeriesInstanceUID=None),
        "long series": dicom_objects.ct(2, SeriesInstanceUID="1." + "2" * 199),
        "path as study": dicom_objects.ct(2, StudyInstanceUID="../../etc/passwd"),
        "other class": dicom_objects.ct(2, SOPClassUID=MRImageStorage),
        "too large": dicom_objects.ct(2, side=1024),
        "other pixels": dicom_objects.ct(1, PixelData=dicom_objects.ct(2).PixelData),
    }.items():
        if name == "other class":
            dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
        status = _raw(association, dataset)
        answers[name] = status.Status
        assert 0 < len(status.ErrorComment) <= 64
    assert answers == {
        "no series": 0xC001,
        "long series": 0xC001,
        "path as study": 0xC001,
        "other class": 0xA900,
        "too large": 0xA700,
        "other pixels": 0xC004,
    }
    assert send(association, good) == 0
    assert send(association, dicom_objects.ct(3)) == 0
    association.release()
    wait_for(lambda: listener.recorded() == 2)


def _raw(association, dataset, data=None, uid=None, class_uid=CTImageStorage):
    """Send bytes with a chosen command, without the checks of pynetdicom's sender."""
    from io import BytesIO

    from pynetdicom.dimse_messages import C_STORE_RQ
    from pynetdicom.dimse_primitives import C_STORE

    request = C_STORE()
    request.MessageID = 7
    request.AffectedSOPClassUID = CTImageStorage
    request.AffectedSOPInstanceUID = "1.2.3"
    request.Priority = 2
    request.DataSet = BytesIO(dicom_objects.data_set(dataset) if data is None else data)
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    message.command_set.AffectedSOPInstanceUID = uid or dataset.SOPInstanceUID
    message.command_set.AffectedSOPClassUID = class_uid
    context = association.accepted_contexts[0].context_id
    association._reactor_checkpoint.clear()
    for part in message.encode_msg(context, association.acceptor.maximum_length or 16384):
        association.dul.send_pdu(part)
    _, answer = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    assert answer is not None, "the association was lost"
    return answer


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"uid": "1/2/../3"}, 0xC001),
        ({"uid": "9" * 200}, 0xC001),
        ({"uid": "1.2.3.4.5.6"}, 0xC001),
        ({"class_uid": "1.2.840.10008.1.1"}, 0xA900),
        ({"class_uid": "1.2.3.4"}, 0xA900),
        ({"data": b"this is no DICOM"}, 0xC000),
        ({"data": b"\0" * 4000}, 0xC001),
        ({"data": "cut"}, 0xC000),
    ],
)
@pytest.mark.parametrize("database_url", [pytest.param("sqlite", marks=pytest.mark.sqlite)], indirect=True)
def test_commands_and_bytes_that_no_library_would_send(make, change, status) -> None:
    listener = make()
    association = listener.associate()
    dataset = dicom_objects.ct(2)
    if change.get("data") == "cut":
        change = {"data": dicom_objects.data_set(dataset)[:-100]}
    assert _raw(association, dataset, **change).Status == status
    assert send(association, dicom_objects.ct(3)) == 0
    association.release()
    wait_for(lambda: listener.recorded() == 1)


def test_a_full_disk_is_0xa700(make) -> None:
    listener = make(retention="min_free_mb = 1000000000")
    association = listener.associate()
    assert send(association, dicom_objects.ct(1)) == 0xA700
    association.release()


def test_titles_and_addresses_that_are_not_allowed(make, tmp_path) -> None:
    listener = make('calling_ae_titles = ["CT1"]\ncalled_ae_titles = ["ALNNODE", "AXILLA"]')
    for called, calling, established in (("AXILLA", "CT1", True), ("OTHER", "CT1", False), ("ALNNODE", "CT2", False)):
        association = listener.associate(called=called, calling=calling)
        assert association.is_established is established
        if established:
            association.release()
    listener.stop()
    foreign = make('addresses = ["10.1.2.0/24"]')
    assert not foreign.associate().is_established


def test_probes_and_rubbish_leave_the_listener_as_it_was(make) -> None:
    listener = make()
    process = listener.processes[0]
    for number in range(45):
        with closing(socket.create_connection(("127.0.0.1", listener.port))) as probe:
            if number % 3 == 1:
                probe.sendall(os.urandom(100))
            elif number % 3 == 2:
                probe.sendall(b"\x01\0\xff\xff\xff\xf0" + b"A" * 100)
    association = wait_for(
        lambda: (found := listener.associate([(Verification, ["1.2.840.10008.1.2"])])).is_established and found
    )
    assert association.send_c_echo().Status == 0
    association.release()
    threads = Path(f"/proc/{process.pid}/task")
    # The threads of a probe end with it, and not after the timeout of 30 s.
    wait_for(lambda: len(list(threads.iterdir())) <= 8, 10)
    descriptors = Path(f"/proc/{process.pid}/fd")
    wait_for(lambda: len(list(descriptors.iterdir())) <= 20, 10)


def test_kill_9_loses_no_acknowledged_object(make) -> None:
    listener = make(processes=2)
    acknowledged: list[str] = []
    lock = threading.Lock()

    def sender(offset) -> None:
        association = listener.associate()
        for number in range(offset, 4000, 4):
            dataset = dicom_objects.ct(number, side=32)
            try:
                status = association.send_c_store(dataset)
            except (RuntimeError, ValueError):
                return
            if "Status" not in status or status.Status != 0:
                return
            with lock:
                acknowledged.append(dataset.SOPInstanceUID)

    threads = [threading.Thread(target=sender, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(acknowledged) > 60)
    for process in listener.processes:
        os.kill(process.pid, signal.SIGKILL)
    for thread in threads:
        thread.join(60)
    listener.start()
    assert not list(listener.spool.pending())
    present = {dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in listener.paths()}
    assert set(acknowledged) <= present
    assert listener.recorded() == len(present)
    assert all(listener.received.digest(uid) for uid in acknowledged)
    assert replay(listener.received, listener.spool) == 0


def test_one_series_over_four_associations_and_two_processes_is_one_job(make) -> None:
    listener = make(processes=2)

    def sender(offset) -> None:
        association = listener.associate()
        statuses.extend(send(association, dicom_objects.ct(n, side=16)) for n in range(offset, 60, 4))
        statuses.append(send(association, dicom_objects.ct(0, side=16)))  # all send this one
        association.release()

    statuses: list[int] = []
    threads = [threading.Thread(target=sender, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert statuses == [0] * 64
    wait_for(lambda: listener.recorded() == 60)
    (job,) = listener.jobs.list()
    assert job.state is JobState.RECEIVING


def test_a_stopped_listener_records_what_it_took_and_says_nothing_of_the_patient(make) -> None:
    listener = make()
    association = listener.associate()
    for number in range(10):
        assert send(association, dicom_objects.ct(number, side=16)) == 0
    listener.stop()  # during the association
    assert listener.processes[0].returncode == 0
    assert listener.recorded() == 10
    assert not re.search("SECRET|Traceback", listener.log.read_text())
    association.abort()
