"""Each wrong turn of the first hour is played, and says what docs/operations.md quotes."""

import re
import socket
import ssl
import subprocess
import sys
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import ct_series
import pytest
from certificates import Authority
from job_rows import add_job, create_database
from listening import free_port
from pydicom.uid import CTImageStorage, EncapsulatedPDFStorage, SecondaryCaptureImageStorage
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification
from typer.testing import CliRunner

from alnnode.cli import check as checks
from alnnode.cli.app import app
from alnnode.clients.faults import network_words
from alnnode.errors import AlnnodeError, NotAnalysable, ServiceError
from alnnode.imaging.series import read_volume
from alnnode.node import supervisor
from alnnode.receive.rejected_associations import RejectedAssociations
from alnnode.receive.scp import run_listener
from alnnode.settings import ClientTls, load

LOOK_AT_DATABASE = checks._database  # the fixture replaces it
PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
SECTION = PAGE.read_text(encoding="utf-8").split("\n## The first hour\n")[1].split("\n## ")[0]
MESSAGES = dict(re.findall(r"^\| ([^|]+) \| `(.+?)` \|", SECTION, re.MULTILINE))


def run(*words: object) -> str:
    """Return all that a command says."""
    done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "400"})
    failure = str(done.exception) if isinstance(done.exception, AlnnodeError) else ""
    return f"{done.output}\n{failure}"


def check(*words: str) -> str:
    """Return what the check says, cell by cell: "found: what to do"."""
    lines = [re.split(r"\s{2,}", line.strip()) for line in run("check", *words).splitlines()]
    return "\n".join(": ".join(cells[2:]) for cells in lines)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("_database", "_broker", "_bundle", "_device"):  # they take seconds, and none of them is a wrong turn
        monkeypatch.setattr(f"alnnode.cli.check.{name}", lambda _: "not looked at")
    return tmp_path


def init(*words: object) -> None:
    ports = [] if "--port" in words else ["--port", free_port()]
    web = [] if "--web-port" in words else ["--web-port", free_port()]
    run("init", "--no-test", *ports, *web, *words)


def pacs_settings(port: int, host: str = "127.0.0.1", ae_title: str = "PACS") -> None:
    init("--pacs-host", host, "--pacs-port", port, "--pacs-ae-title", ae_title)


@contextmanager
def pacs(**required: object):
    entity = AE("PACS")
    for name, value in required.items():
        setattr(entity, name, value)
    entity.add_supported_context(Verification)
    entity.add_supported_context(SecondaryCaptureImageStorage)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda _: 0x0000)])
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


def used_port(option: str) -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        init(option, server.getsockname()[1])
        return check()


def unknown_host() -> str:
    pacs_settings(104, host="pacs.invalid")
    return check()


def nothing_listens() -> str:
    pacs_settings(free_port())
    return check()


def firewall() -> str:
    return network_words(TimeoutError(), "10.1.2.3", 104)  # no test can drop packets on loopback


def not_dicom() -> str:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def hang_up() -> None:
            server.accept()[0].close()

        Thread(target=hang_up, daemon=True).start()
        pacs_settings(server.getsockname()[1])
        return check()


def another_title() -> str:
    with pacs(require_called_aet=True) as port:
        pacs_settings(port, ae_title="OTHER")
        return check()


def unknown_node() -> str:
    with pacs(require_calling_aet=["FRIEND"]) as port:
        pacs_settings(port)
        return check()


def images_only() -> str:
    with pacs() as port:
        pacs_settings(port)
        return check("--send", "pacs")


class Closed(BaseHTTPRequestHandler):
    """A server that wants a token."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def stow_settings(url: str, tls: ClientTls | None = None) -> None:
    init()
    ca = "" if tls is None else f'tls = {{ ca = "{tls.ca}" }}\n'
    with Path("config.toml").open("a") as file:
        file.write(f'[[destinations]]\nname = "vna"\nkind = "stow"\nurl = "{url}"\n{ca}')


def no_token() -> str:
    with ThreadingHTTPServer(("127.0.0.1", 0), Closed) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        stow_settings(f"http://127.0.0.1:{server.server_port}/dicom-web")
        said = check()
        server.shutdown()
    return said


def other_authority() -> str:
    own, other = Authority(Path("own")), Authority(Path("other"))
    pair, context = own.issue("localhost"), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with ThreadingHTTPServer(("127.0.0.1", 0), Closed) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever, daemon=True).start()
        stow_settings(f"https://localhost:{server.server_port}/dicom-web", ClientTls(ca=other.pem.absolute()))
        said = check()
        server.shutdown()
    return said


def no_folder() -> str:
    init("--data-dir", "/proc/alnnode")
    return check()


def no_database() -> str:
    return run("jobs")


def failed_jobs(*ids: str) -> None:
    init()
    database = create_database(load(Path("config.toml")))
    for job_id in ids:
        add_job(database, job_id)


def no_node() -> str:
    failed_jobs("a" * 32)
    return run("retry", "--failed")


def two_jobs() -> str:
    failed_jobs("a" * 31 + "1", "a" * 31 + "2")
    return run("retry", "aaaa")


def settings_exist() -> str:
    init()
    return run("init", "--no-test")


def no_extra() -> str:
    code = "import sys; sys.modules['sklearn'] = None; sys.argv = ['training', 'report']; import runpy; runpy.run_module('training', run_name='__main__')"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120).stderr


def second_node() -> str:
    with (
        supervisor._lock(Path("data").resolve()),
        pytest.raises(ServiceError) as refused,
        supervisor._lock(Path("data").resolve()),
    ):
        pass
    return str(refused.value)


def not_started() -> str:
    init()
    return LOOK_AT_DATABASE(load(Path("config.toml")))


def rejected(sender: str = "CT", called: str = "ALNNODE", sop_class: str = CTImageStorage) -> str:
    """Return what the page of the rejected associations says of a sender, whose AE title is CT unless it is a stranger."""
    init()
    found = load(Path("config.toml"))
    found = found.model_copy(update={"listener": found.listener.model_copy(update={"calling_ae_titles": ("CT",)})})
    engine, ready, stop = create_database(found), Event(), Event()
    listener = Thread(target=run_listener, args=(found, lambda _: ready.set(), stop))
    listener.start()
    try:
        assert ready.wait(60)
        entity = AE(sender)
        entity.add_requested_context(sop_class)
        association = entity.associate("127.0.0.1", found.listener.port, ae_title=called)
        if association.is_established:
            association.release()
    finally:
        stop.set()
        listener.join()
    (rejection,) = RejectedAssociations(engine).recent()
    engine.dispose()
    return rejection.remedy


def missing_slices() -> str:
    there = [ct_series.ct_slice(k) for k in range(20) if not 8 <= k < 12]
    with pytest.raises(NotAnalysable) as refused:
        read_volume(ct_series.write(there, Path("series")))
    return str(refused.value)


TURNS = (
    lambda: used_port("--port"), lambda: used_port("--web-port"), unknown_host, nothing_listens, firewall, not_dicom, another_title,
    unknown_node, images_only, no_token, other_authority, no_folder, no_database, no_node, two_jobs, settings_exist, no_extra,
    second_node, not_started, lambda: rejected(called="OTHER"), lambda: rejected(sender="STRANGER"),
    lambda: rejected(sop_class=EncapsulatedPDFStorage), missing_slices,
)  # fmt: skip  # in the order of the table


@pytest.mark.parametrize(("row", "play"), list(zip(MESSAGES, TURNS, strict=True)), ids=list(MESSAGES))
def test_the_message_is_the_one_in_the_manual(row, play) -> None:
    pattern = ".+?".join(map(re.escape, MESSAGES[row].split("…")))
    said = play()
    assert re.search(pattern, said), said
