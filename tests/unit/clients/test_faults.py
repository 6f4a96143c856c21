"""Each fault of a network, TLS, an HTTP server or a file has words of its own, for C-STORE and for STOW-RS, against real sockets."""

import errno
import socket
import ssl
import threading
from contextlib import contextmanager

import pytest
from certificates import Authority
from listening import free_port

from alnnode.cli.check import run
from alnnode.clients.faults import file_words, http_words, network_words
from alnnode.deliver.destination import OutboxFile
from alnnode.deliver.destination_choice import connect
from alnnode.errors import DeliveryError, DestinationAway
from alnnode.settings import ClientTls, DestinationCStore, DestinationStow, Settings

UNKNOWN = "no-such-host.invalid"  # RFC 2606: the name never exists


def destination(kind: str, host: str, port: int, tls: ClientTls | None = None):
    if kind == "cstore":
        return DestinationCStore(name="pacs", ae_title="PACS", host=host, port=port, timeout=5, tls=tls)
    url = f"http{'s' * bool(tls)}://{host}:{port}/dicom-web"
    return DestinationStow(name="pacs", kind="stow", url=url, timeout=5, tls=tls)


@pytest.fixture
def outbox(tmp_path) -> OutboxFile:
    path = tmp_path / "object.dcm"
    path.write_bytes(bytes(1000))
    return OutboxFile("1.2.840.10008.5.1.4.1.1.7", "1.2.3", "1.2.840.10008.1.2.1", path)


@contextmanager
def answering(action, context: ssl.SSLContext | None = None):
    """Listen on a port, and call ``action`` with each connection; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    try:
                        action(context.wrap_socket(connection, server_side=True) if context else connection)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join(20)


def said(settings, objects=()) -> DeliveryError:
    peer = connect(settings, "NODE")
    with pytest.raises(DeliveryError) as caught:
        peer.send(objects) if objects else peer.echo()
    assert settings.name not in str(caught.value).replace(UNKNOWN, ""), "whoever shows the text names the destination"
    return caught.value


@pytest.mark.parametrize("kind", ["cstore", "stow"])
def test_a_name_that_dns_does_not_know_is_not_a_fault_of_the_disk(kind, outbox) -> None:
    for objects in ([outbox], ()):
        error = said(destination(kind, UNKNOWN, 104), objects)
        assert str(error) == f"cannot resolve host {UNKNOWN}: check the host in the settings, and the DNS server"
        assert isinstance(error, DestinationAway)


@pytest.mark.parametrize("kind", ["cstore", "stow"])
def test_a_port_on_which_nothing_listens(kind) -> None:
    port = free_port()
    assert str(said(destination(kind, "127.0.0.1", port))).startswith(f"nothing listens on 127.0.0.1:{port}: check that")


@pytest.mark.parametrize("kind", ["cstore", "stow"])
def test_a_port_of_another_service(kind) -> None:
    with answering(lambda connection: connection.recv(10)) as port:
        text = str(said(destination(kind, "127.0.0.1", port)))
    assert f"127.0.0.1:{port}" in text
    assert (
        "does not answer the association request: check that its port" in text
        or "closed the connection" in text
        or "RemoteProtocolError" in text
    )


@pytest.mark.parametrize("kind", ["cstore", "stow"])
def test_a_certificate_of_another_authority(kind, tmp_path) -> None:
    own, other = Authority(tmp_path / "own"), Authority(tmp_path / "other")
    pair = own.issue("localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with answering(lambda connection: connection.recv(10), context) as port:
        text = str(said(destination(kind, "localhost", port, ClientTls(ca=other.pem))))
    assert text.startswith(f"no TLS connection with localhost:{port} (")
    assert "check tls ca" in text


def test_tls_to_a_peer_without_tls(tmp_path) -> None:
    authority = Authority(tmp_path / "own")
    with answering(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        text = str(said(destination("stow", "localhost", port, ClientTls(ca=authority.pem))))
    assert text.startswith(f"no TLS connection with localhost:{port} (")
    assert "uses TLS" in text


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TimeoutError(), "no answer from pacs:104: check its address, and the firewalls"),
        (OSError(errno.EHOSTUNREACH, "secret"), "no route to pacs"),
        (ConnectionResetError(errno.ECONNRESET, "secret"), "pacs:104 closed the connection"),
        (OSError(errno.EIO, "secret"), "no connection with pacs:104 (OSError)"),
    ],
)
def test_faults_that_a_test_cannot_cause_on_loopback(error, words) -> None:
    text = network_words(error, "pacs", 104)
    assert text.startswith(words)
    assert "secret" not in text


def test_statuses_of_http_and_faults_of_the_disk_say_what_to_do() -> None:
    assert http_words(401) == "HTTP 401 (the server does not accept the token): check token_file or oauth2"
    assert http_words(413).endswith("raise the limit there")
    assert http_words(599).endswith("read its log")
    assert http_words(418).endswith("check the url and the access rights")
    texts = {file_words(OSError(number, "/secret/path")) for number in (errno.ENOENT, errno.EIO, errno.EACCES)}
    assert len(texts) == 3
    assert not [text for text in texts if "secret" in text]


def test_an_outbox_file_that_is_missing(outbox) -> None:
    outbox.path.unlink()
    text = str(said(destination("stow", "127.0.0.1", free_port()), [outbox]))
    assert text.startswith("an outbox file cannot be read (No such file or directory): restore the spool")


def test_check_names_a_destination_once(monkeypatch, tmp_path) -> None:
    for name in ("_database", "_broker", "_bundle", "_device"):
        monkeypatch.setattr(f"alnnode.cli.check.{name}", lambda _: "not looked at")
    settings = Settings(destinations=(destination("cstore", UNKNOWN, 104),), node={"data_dir": tmp_path})
    (row,) = [one for one in run(settings, None) if one.what.startswith("destination")]
    assert (row.what, row.passed) == ("destination pacs", False)
    assert row.found == f"cannot resolve host {UNKNOWN}"
    assert row.advice == "check the host in the settings, and the DNS server"
