"""Audit messages after PS3.15 A.5, and the outbox in which they wait."""

import stat
import threading
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import dicom_objects
import pytest
from allocated import MIB, at_most
from audits import Read
from lxml import etree
from pydicom import Dataset
from sqlalchemy.exc import OperationalError

from alnnode.audit import codes, outbox, trail
from alnnode.audit.codes import Outcome
from alnnode.audit.events import Events, study
from alnnode.audit.message import Message, Participant, patient
from alnnode.audit.outbox import AuditOutbox
from alnnode.audit.repeated_events import RepeatedEvents
from alnnode.audit.sender import AuditSender
from alnnode.audit.sinks import FileSink, syslog
from alnnode.audit.trail import Trail, patient_in
from alnnode.imaging import part10
from alnnode.settings import AuditFile, Internal, Node, Settings

EVENTS = Events("ALNNODE")
CT = study("1.2.3", {"1.2.840.10008.5.1.4.1.1.2": 120})
# Message, then its values in the tables of A.5.3: event, action, types, roles of the participants, kinds of the objects.
TABLES = {
    "start": (EVENTS.application(started=True), "110100", "E", ["110120"], ["110150"], []),
    "stop": (EVENTS.application(started=False), "110100", "E", ["110121"], ["110150"], []),
    "received": (EVENTS.received("CT1", "10.0.0.1", CT), "110104", "C", [], ["110153", "110152"], ["110180"]),
    "sending": (EVENTS.sending("PACS", "pacs.example", CT), "110102", "E", [], ["110153", "110152"], ["110180"]),
    "sent": (EVENTS.sent("PACS", "", CT, Outcome.SUCCESS), "110104", "C", [], ["110153", "110152"], ["110180"]),
    "retrieved": (EVENTS.retrieved("VIEWER", "::1", CT), "110104", "R", [], ["110153", "110152"], ["110180"]),
    "metadata": (EVENTS.retrieved("V", "::1", CT, metadata=True), "110103", "R", [], ["110153", "110152"], ["110180"]),
    "deleted": (EVENTS.deleted(CT, 120), "110105", "D", [], ["110150"], ["110180"]),
    "queried": (EVENTS.queried("V", "::1", b"/studies?", Outcome.SUCCESS), "110112", "E", [], ["110153", "110152"], ["110181"]),
    "login": (EVENTS.authenticated("V", "::1", Outcome.SUCCESS), "110114", "E", ["110122"], ["", "110150"], []),
    "logout": (EVENTS.authenticated("V", "", Outcome.SUCCESS, left=True), "110114", "E", ["110123"], ["", "110150"], []),
    "acted": (EVENTS.acted("ann", "::1", "retry"), "110113", "E", ["110132"], ["110150", ""], ["110182"]),
    "alert": (EVENTS.alert(codes.NODE_AUTHENTICATION, "X", "10.0.0.9", "TLS"), "110113", "E", ["110126"], ["110150", ""], ["110182"]),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_every_message_has_the_shape_and_the_codes_of_the_standard(name) -> None:
    message, event, action, types, roles, kinds = TABLES[name]
    read = Read(message.xml("ALNNODE", "SITE"))
    assert (read.event, read.action, read.types) == (event, action, types)
    assert [role for role, _, _ in read.participants] == roles
    assert list(read.objects) == kinds
    assert read.source == "ALNNODE"
    assert {element.get("codeSystemName") for element in read.root.iter() if element.get("codeSystemName")} == {"DCM"}


def test_the_schema_of_the_tests_refuses_what_is_wrong() -> None:
    with pytest.raises(etree.DocumentInvalid):
        Read(Message(codes.QUERY, "E", Outcome.SUCCESS, ()).xml("ALNNODE"))  # no participant
    with pytest.raises(etree.DocumentInvalid):
        Read(Message(codes.QUERY, "X", Outcome.SUCCESS, (Participant("a", True),)).xml("ALNNODE"))


@pytest.mark.parametrize("title", ["A<B>&'\"", "\x00\x07\x1b[31m", "\ud800", "\ufffe", "ä" * 4000, "]]>", "<!--", ""])
def test_no_name_of_a_peer_breaks_a_message(title) -> None:
    message = EVENTS.received(title, title, study(title, {"1.2": 1}), 3)
    text = message.xml(title, title)
    read = Read(text)
    assert read.outcome == 4
    assert b"\n" not in text
    assert len(text) < 8000


def test_times_are_utc() -> None:
    at = datetime(2026, 1, 1, 1, 0, 0, 5000, timezone(timedelta(hours=2)))
    text = Message(codes.QUERY, "E", Outcome.SUCCESS, (Participant("a", True),), at=at).xml("N")
    assert b'EventDateTime="2025-12-31T23:00:00.005Z"' in text
    assert datetime.now(UTC) - EVENTS.deleted(CT, 1).at < timedelta(minutes=5)


def test_the_severity_of_syslog_follows_the_outcome() -> None:
    assert syslog(EVENTS.deleted(CT, 1).xml("N"), "N").startswith(b"<85>1 ")
    assert syslog(EVENTS.received("A", "", CT, 1).xml("N"), "N").startswith(b"<84>1 ")
    assert syslog(b"", "a b\u00e4c").split(b" ")[3] == b"abc"


def configured(folder, **audit) -> Settings:
    return Settings(node=Node(data_dir=folder), audit=AuditFile(file=folder / "audit.xml", **audit))


def lines(folder) -> list[Read]:
    path = folder / "audit.xml"
    return [Read(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def test_messages_go_to_a_private_file_in_their_order(tmp_path) -> None:
    settings = configured(tmp_path, site="CLINIC")
    written = Trail(settings)
    for number in range(20):
        written.put(written.events.deleted(study(f"1.2.{number}"), 1))
    written.close()
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "audit").iterdir()} == {0o600}
    AuditSender(settings).close()
    assert [read.study for read in lines(tmp_path)] == [f"1.2.{number}" for number in range(20)]
    assert stat.S_IMODE((tmp_path / "audit.xml").stat().st_mode) == 0o600
    assert not list((tmp_path / "audit").glob("*.xml"))


def test_off_means_that_nothing_is_written(tmp_path) -> None:
    quiet = Trail(Settings(node=Node(data_dir=tmp_path)))
    quiet.put(EVENTS.application(started=True))
    quiet.close()
    AuditSender(Settings(node=Node(data_dir=tmp_path))).close()
    assert list(tmp_path.iterdir()) == []


def test_a_full_spool_loses_counts_and_says_so_and_nobody_waits(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(outbox, "COUNTED", 0.0)
    said = []
    monkeypatch.setattr(trail, "log", SimpleNamespace(error=lambda event, **_: said.append(event)))
    written = Trail(configured(tmp_path).model_copy(update={"internal": Internal(audit_messages=100)}))
    for _ in range(130):
        written.put(EVENTS.application(started=True))
    written.close()
    waiting = AuditOutbox(tmp_path, 100)
    assert (waiting.count(), waiting.lost()) == (100, 30)
    assert said == ["audit_messages_lost"]


def test_a_slow_disk_makes_nobody_wait(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(trail, "AT_ONCE", 50)
    monkeypatch.setattr(trail, "CLOSE_LIMIT", 0.1)
    hold, on_the_disk = threading.Event(), []

    def put(*_) -> bool:
        on_the_disk.append(hold.wait(60))
        return True

    monkeypatch.setattr(AuditOutbox, "put", put)
    written = Trail(configured(tmp_path))
    for _ in range(200):
        written.put(EVENTS.application(started=True))
    assert on_the_disk == [], "all messages are handed over before the disk has accepted one"
    hold.set()
    assert AuditOutbox(tmp_path, 100).lost() >= 149


def test_a_failing_disk_loses_a_message_without_an_exception(tmp_path, monkeypatch) -> None:
    def full(*_):
        raise OSError(28, "")

    monkeypatch.setattr(AuditOutbox, "put", full)
    written = Trail(configured(tmp_path))
    written.put(EVENTS.application(started=True))
    written.close()
    assert AuditOutbox(tmp_path, 100).lost() == 1


def test_a_failing_database_loses_the_patient_and_not_the_thread(tmp_path) -> None:
    def away() -> None:
        raise OperationalError("SELECT", {"patient": "DOE^JANE"}, Exception())

    settings = configured(tmp_path, identity=True)
    written = Trail(settings)
    written.put(written.events.received("CT1", "", study("1.2.1")), away)
    written.put(written.events.received("CT1", "", study("1.2.2")))
    written.close()
    AuditSender(settings).close()
    assert [read.study for read in lines(tmp_path)] == ["1.2.1", "1.2.2"]
    assert b"DOE" not in (tmp_path / "audit.xml").read_bytes()


def test_a_file_on_a_full_disk_has_complete_lines(tmp_path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(OSError, match="No space"):
        FileSink(AuditFile(file="/dev/full")).send(b"<AuditMessage/>")


def test_patients_are_named_only_where_the_settings_say_so(tmp_path) -> None:
    image = dicom_objects.ct(1, PatientID="4711", PatientName="DOE^JANE")
    image.save_as(tmp_path / "image.dcm", enforce_file_format=True)
    for identity in (False, True):
        folder = tmp_path / str(identity)
        settings = configured(folder, identity=identity)
        written = Trail(settings)
        written.put(written.events.received("CT1", "", CT), lambda: patient_in([tmp_path / "gone.dcm", tmp_path / "image.dcm"]))
        written.close()
        AuditSender(settings).close()
        (read,) = lines(folder)
        assert ("2" in read.objects) is identity
        assert (b"DOE^JANE" in (folder / "audit.xml").read_bytes()) is identity
    person = read.objects["2"]
    assert person.get("ParticipantObjectID") == "4711"
    assert (person.get("ParticipantObjectTypeCode"), person.get("ParticipantObjectTypeCodeRole")) == ("1", "1")
    assert person.find("ParticipantObjectIDTypeCode").get("codeSystemName") == "RFC-3881"
    assert patient("4711", "").name == ""


def test_a_patient_is_read_in_little_memory(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(part10, "MAX_BUILT", 5000)
    image = dicom_objects.ct(1, PatientID="4711")
    image.ReferencedStudySequence = [Dataset() for _ in range(30_000)]  # pydicom needs 20 MB for them
    image["ReferencedStudySequence"].is_undefined_length = True
    image.save_as(tmp_path / "image.dcm", enforce_file_format=True)
    del image
    with at_most(4 * MIB):
        assert patient_in([tmp_path / "image.dcm"]).identifier == "4711"


def test_two_senders_of_one_folder_send_nothing_twice(tmp_path, monkeypatch) -> None:
    send = FileSink.send

    def slowly(sink, message) -> None:
        send(sink, message)
        time.sleep(0.01)

    monkeypatch.setattr(FileSink, "send", slowly)
    settings = configured(tmp_path)
    written = Trail(settings)
    senders = [AuditSender(settings), AuditSender(settings)]
    for number in range(100):
        written.put(written.events.deleted(study(f"1.{number}"), 1))
    written.close()
    for sender in senders:
        sender._stop.set()  # both at the same time
    for sender in senders:
        sender.close(20)
    assert sorted(read.study for read in lines(tmp_path)) == sorted(f"1.{number}" for number in range(100))


def test_an_event_that_repeats_is_the_first_once_in_its_time(monkeypatch) -> None:
    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            return self.now

    from alnnode.audit import repeated_events

    clock = Clock()
    monkeypatch.setattr(repeated_events, "time", clock)
    one = RepeatedEvents(60)
    assert [one.is_first("a", 1), one.is_first("a", 1), one.is_first("b", 1)] == [True, False, True]
    clock.now = 61
    assert one.is_first("a", 1)
