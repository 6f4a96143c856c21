"""The head of a Part 10 file, compared with pydicom, and the replay of a journal that a power cut damaged."""

import io

import pytest
from dicom_objects import ct, data_set, file_of
from pydicom import dcmread
from pydicom.filereader import read_file_meta_info
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from alnnode import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from alnnode.analyse.jobs import Jobs
from alnnode.db import engine
from alnnode.db.schema import migrate
from alnnode.receive import file_meta
from alnnode.receive.received_series import ReceivedSeries
from alnnode.receive.recorder import digest, replay
from alnnode.spool.spool import Spool


@pytest.mark.parametrize("calling_ae", ["", "ODD", "SENDER"])
@pytest.mark.parametrize("uid", ["1.2.3", "1.2.34"])
def test_pydicom_reads_what_was_written(uid: str, calling_ae: str) -> None:
    raw = b"".join(file_of(data_set(ct(1)), uid, calling_ae))
    read = dcmread(io.BytesIO(raw))
    meta = read.file_meta
    assert meta.MediaStorageSOPClassUID == CTImageStorage
    assert meta.MediaStorageSOPInstanceUID == uid
    assert meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert meta.ImplementationClassUID == meta.PrivateInformationCreatorUID == IMPLEMENTATION_CLASS_UID
    assert meta.ImplementationVersionName == IMPLEMENTATION_VERSION_NAME
    assert meta.get("SourceApplicationEntityTitle", "") == calling_ae
    assert read.PatientID == "SECRET-ID"
    assert raw[file_meta.data_set_offset(memoryview(raw)) :] == data_set(ct(1))


def test_the_group_length_is_right(tmp_path) -> None:
    path = tmp_path / "one.dcm"
    path.write_bytes(b"".join(file_of(data_set(ct(1)), "1.2.3")))
    meta = read_file_meta_info(path)
    assert 132 + 12 + meta.FileMetaInformationGroupLength == file_meta.data_set_offset(memoryview(path.read_bytes()))
    assert file_meta.digest_of(path) == digest(data_set(ct(1)))


def test_a_file_of_another_writer_has_no_digest(tmp_path) -> None:
    ct(1).save_as(tmp_path / "other.dcm", enforce_file_format=True)
    assert file_meta.digest_of(tmp_path / "other.dcm") is None
    assert file_meta.digest_of(tmp_path / "none.dcm") is None


@pytest.mark.parametrize("with_length", [True, False])
def test_the_values_of_another_writer_are_those_that_pydicom_reads(with_length: bool) -> None:
    image = ct(1)
    image.file_meta.SourceApplicationEntityTitle = "ODD"
    image.file_meta.SourcePresentationAddress = "http://sender.example/odd"  # UR has a length of 32 bits
    image.file_meta.PrivateInformationCreatorUID = "1.2.3"
    image.file_meta.PrivateInformation = b"private!"
    buffer = io.BytesIO()
    image.save_as(buffer, enforce_file_format=True)
    raw = buffer.getvalue()
    if not with_length:
        raw = raw[:132] + raw[144:]
    offset = file_meta.data_set_offset(memoryview(raw))
    assert raw[offset:] == data_set(image)
    values = file_meta.values(memoryview(raw)[:offset])
    assert values[file_meta.SOP_CLASS_UID] == image.file_meta.MediaStorageSOPClassUID
    assert values[file_meta.SOP_INSTANCE_UID] == image.file_meta.MediaStorageSOPInstanceUID
    assert values[file_meta.TRANSFER_SYNTAX_UID] == ExplicitVRLittleEndian
    assert values[file_meta.SOURCE_AE_TITLE] == "ODD"
    with pytest.raises(ValueError, match="cut off"):
        file_meta.values(memoryview(raw)[: offset - 1])


@pytest.mark.parametrize("damage", ["empty", "cut", "zeros"])
def test_a_power_cut_loses_only_an_object_that_was_not_acknowledged(tmp_path, damage: str) -> None:
    url = f"sqlite:///{tmp_path / 'node.db'}"
    migrate(url)
    database, spool = engine.create(url), Spool(tmp_path / "spool")
    jobs, received = Jobs(database), ReceivedSeries(database)
    whole, hurt = ct(1), ct(2)
    for image in (whole, hurt):
        assert spool.put_pending(image.SOPInstanceUID, file_of(data_set(image), image.SOPInstanceUID))
    path = spool.pending_path(hurt.SOPInstanceUID)
    raw = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": raw[:4096], "zeros": raw[:4096] + bytes(len(raw) - 4096)}[damage])
    assert replay(received, spool) == 1
    assert [job.instances for job in jobs.list()] == [1]
    assert list(spool.pending()) == []
    aside = list((tmp_path / "spool" / "conflicts").iterdir())
    assert len(aside) == 1
    # The sender, which had no response, sends the object again, and it is stored.
    assert spool.put_pending(hurt.SOPInstanceUID, file_of(data_set(hurt), hurt.SOPInstanceUID))
    assert replay(received, spool) == 1
    assert [job.instances for job in jobs.list()] == [2]


@pytest.mark.parametrize("sent_again", [False, True])
def test_what_another_listener_records_meanwhile_is_not_damaged(tmp_path, monkeypatch, capsys, *, sent_again: bool) -> None:
    """One listener starts, and replays the journal, while another one records and settles the file that is just being read."""
    url = f"sqlite:///{tmp_path / 'node.db'}"
    migrate(url)
    database, spool = engine.create(url), Spool(tmp_path / "spool")
    jobs, received = Jobs(database), ReceivedSeries(database)
    image = ct(1)
    parts = file_of(data_set(image), image.SOPInstanceUID)
    path = spool.put_pending(image.SOPInstanceUID, parts)
    real = file_meta.data_set_offset

    def meanwhile(data: memoryview) -> int:
        if path.exists():
            monkeypatch.setattr(file_meta, "data_set_offset", real)
            assert replay(received, spool) == 1
            if sent_again:
                assert spool.put_pending(image.SOPInstanceUID, parts)
        return real(data)

    monkeypatch.setattr(file_meta, "data_set_offset", meanwhile)
    replay(received, spool)
    assert not (tmp_path / "spool" / "conflicts").exists()
    assert "damaged" not in capsys.readouterr().out
    assert [job.instances for job in jobs.list()] == [1]
    kept = spool.path(spool.object_path(image.SeriesInstanceUID, image.SOPInstanceUID))
    assert kept.read_bytes() == b"".join(parts)
