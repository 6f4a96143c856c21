"""Clients that send nothing, or too much, do not block the HTTP service. The settings are the defaults unless a test changes them."""

import os
import re
import socket
import ssl
import subprocess
import sys
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import httpx
import pytest
from certificates import Authority
from dicom_objects import STUDY, ct
from listening import free_port, wait_for
from web_service import body, part10, server
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect as websocket

from alnnode.db import schema
from alnnode.settings import Internal, ServerTls, Web, load

HEAD = b"GET /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1\r\n"
POST = b"POST /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/related; type=application/dicom; boundary=b\r\n"


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    """The service as a separate process with default settings, except for paths and the port."""
    folder = tmp_path_factory.mktemp("web")
    config, port = folder / "config.toml", free_port()
    config.write_text(
        f'[node]\ndata_dir = "{folder}"\n[retention]\nmin_free_mb = 0\n[web]\nport = {port}\n[logging]\nlevel = "error"\n',
        "utf-8",
    )
    schema.migrate(load(config).database_url)
    environment = {**os.environ, "ALNNODE_CONFIG": str(config)}
    with (folder / "log").open("wb") as log:
        started = subprocess.Popen([sys.executable, "-m", "alnnode.web"], env=environment, stdout=log, stderr=log)
    wait_for(lambda: lives(port), 120)
    yield port, started.pid
    started.terminate()
    started.wait(20)


def lives(port) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/live").status_code == 200
    except httpx.TransportError:
        return False


def memory(pid) -> float:
    """Anonymous memory of a process, MB."""
    return int(re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


def connect(port, data=b"", source="127.0.0.1") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=20, source_address=(source, 0))
    connection.sendall(data)
    return connection


def port_of(url) -> int:
    return httpx.URL(url).port


def answer(connection) -> bytes:
    """The bytes that the service sends until it closes the connection; an error if it sends nothing for 20 s."""
    said = b""
    with suppress(ConnectionError):
        while piece := connection.recv(4096):
            said += piece
    return said


def test_idle_and_half_asked_connections_take_no_place_and_end(process) -> None:
    port, _ = process
    with ExitStack() as stack:
        held = [stack.enter_context(closing(connect(port, HEAD if number % 2 else b""))) for number in range(105)]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as reader:
            for _ in range(20):
                assert reader.get("/dicom-web/studies").status_code == 200
                assert reader.get("/health/live").status_code == 200
        for connection in held:
            assert answer(connection) == b""
        more = [stack.enter_context(closing(connect(port, HEAD if number % 2 else b""))) for number in range(500)]
        for _ in range(20):  # each request uses a new connection, while the others wait
            assert httpx.get(f"http://127.0.0.1:{port}/dicom-web/studies").status_code == 200
        assert answer(more[0]) == b"", "the service closes the connection that waited longest"


def flood(port, pieces) -> bytes:
    """Send until the service closes the connection; return its response."""
    with closing(connect(port)) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
        except OSError:
            pass
        return answer(connection)


def repeated(first, piece, megabytes=10):
    yield first
    for _ in range((megabytes << 20) // len(piece)):
        yield piece


CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
FLOODS = {
    "one field": lambda: repeated(HEAD + b"X: ", b"a" * 65536),
    "many fields": lambda: repeated(HEAD, b"X: a\r\n" * 10_000),
    "many bytes": lambda: repeated(HEAD, b"X: " + b"a" * 4000 + b"\r\n"),
    "the URL": lambda: repeated(b"GET /", b"a" * 65536),
    "empty lines": lambda: repeated(b"", b"\r\n" * 32768),
    "a chunk extension": lambda: repeated(CHUNKED + b"5;", b"a" * 65536),
    "trailers": lambda: repeated(CHUNKED + b"0\r\n", b"X: a\r\n" * 10_000),
    "pipelined requests": lambda: repeated(b"", HEAD + b"\r\n" + HEAD + b"\r\n" * 200),
}


def test_a_login_form_without_end_is_not_kept(process) -> None:
    port, pid = process
    head = b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    before, highest = memory(pid), 0.0

    def pieces():
        nonlocal highest
        for piece in repeated(head, b"10000\r\n" + b"a" * 65536 + b"\r\n", 60):
            highest = max(highest, memory(pid))
            yield piece

    assert flood(port, pieces())[:12] in {b"HTTP/1.1 413", b""}
    assert highest - before < 30


def test_a_client_that_ends_within_a_form_causes_no_internal_error(process) -> None:
    port, _ = process
    head = b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 9\r\n\r\n"

    def counted() -> list[str]:
        return re.findall(r'status="(\d+)"', "".join(re.findall('.*_count.*route="/login".*', httpx.get(metrics).text)))

    metrics = f"http://127.0.0.1:{port}/metrics"
    with closing(connect(port, head + b"token")):
        pass
    assert wait_for(lambda: {"400", "500"} & set(counted())) == {"400"}


@pytest.mark.parametrize("kind", FLOODS)
def test_heads_without_end_are_refused_in_bounded_memory(process, kind) -> None:
    port, pid = process
    before = memory(pid)
    said = [flood(port, FLOODS[kind]()) for _ in range(5)]
    assert memory(pid) - before < 30
    if kind not in {"pipelined requests", "empty lines"}:
        assert {one[:12] for one in said} <= {b"HTTP/1.1 431", b"HTTP/1.1 400", b""}, said
        assert any(said)
    assert lives(port)


def test_a_head_at_the_limit_is_accepted(process) -> None:
    port, _ = process
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        assert client.get("/dicom-web/studies", headers={f"X-{number}": "a" * 250 for number in range(90)}).status_code == 200
        assert client.get("/dicom-web/studies", headers={"X": "a" * 8000}).status_code == 200
        assert client.get("/dicom-web/studies", headers={"X": "a" * 9000}).status_code == 431
        assert client.get("/dicom-web/studies", headers={f"X-{number}": "a" for number in range(120)}).status_code == 431
        uids = ",".join(f"1.2.826.0.1.3680043.10.{number}" for number in range(200))
        assert client.get(f"/dicom-web/studies?StudyInstanceUID={uids}").status_code == 200


def test_one_address_cannot_take_all_places_of_requests_and_health_is_always_answered(process) -> None:
    port, _ = process
    request = POST + b"Content-Length: 1000000\r\n\r\n--b\r\n"
    with ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(closing(connect(port, request, "127.0.0.2")))
        refused = httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2"), base_url=f"http://127.0.0.1:{port}")
        wait_for(lambda: refused.get("/dicom-web/studies").status_code == 503, 10)
        assert refused.get("/health/live").status_code == 200
        refused.close()
        for _ in range(10):
            assert httpx.get(f"http://127.0.0.1:{port}/dicom-web/studies").status_code == 200


def test_one_address_cannot_take_all_places_of_subscribers(tmp_path) -> None:
    with server(tmp_path, web=Web(max_connections=4)) as (url, _), ExitStack() as stack:
        channel = f"ws://127.0.0.1:{port_of(url)}/dicom-web/subscribers/A"
        for _ in range(2):
            stack.enter_context(websocket(channel, source_address=("127.0.0.2", 0), open_timeout=60))
        with pytest.raises((WebSocketException, OSError, EOFError)):
            websocket(channel, source_address=("127.0.0.2", 0), open_timeout=60)
        stack.enter_context(websocket(channel, open_timeout=60))


def is_closed_after(connection, data) -> bool:
    """Send data; return whether the service has closed the connection."""
    connection.settimeout(0.1)
    try:
        connection.sendall(data)
        return not connection.recv(100)
    except TimeoutError:
        return False
    except OSError:
        return True


def test_a_body_that_stands_still_ends(tmp_path) -> None:
    with server(tmp_path, internal=Internal(web_body_timeout=1)) as (url, _):
        with closing(connect(port_of(url), POST + b"Content-Length: 1000000\r\n\r\n--b\r\n")) as slow:
            begun = time.monotonic()
            wait_for(lambda: is_closed_after(slow, b"a"))
            assert time.monotonic() - begun >= 1, "the limit applies to the rate over body_timeout"
        with httpx.Client(base_url=url) as client:
            content = b"--b\r\n" + b"a" * 100_000

            def pieces():
                for _ in range(15):  # slow, but above the limit: 100 kB every 0.2 s
                    time.sleep(0.2)
                    yield content

            kind = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'}
            assert client.post("/dicom-web/studies", content=pieces(), headers=kind).status_code in {400, 409}


def test_an_answer_that_nobody_takes_ends(tmp_path) -> None:
    image = ct(1, NumberOfFrames="8", Rows=1024, Columns=1024, PixelData=bytes(16 << 20))
    with server(tmp_path, internal=Internal(web_body_timeout=1)) as (url, _), httpx.Client(base_url=url) as client:
        kind = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=a-boundary'}
        assert client.post("/dicom-web/studies", content=body(part10(image)), headers=kind).status_code == 200
        wait_for(lambda: client.get("/dicom-web/instances").json())
        request = f"GET /dicom-web/studies/{STUDY} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        with closing(socket.create_connection(("127.0.0.1", port_of(url)), timeout=20)) as idle:
            idle.sendall(request)
            time.sleep(4)  # the client reads nothing for longer than body_timeout
            taken = 0
            with suppress(ConnectionError):
                while piece := idle.recv(1 << 16):
                    taken += len(piece)
            assert taken < 16 << 20
        with closing(socket.create_connection(("127.0.0.1", port_of(url)), timeout=20)) as slow:
            slow.sendall(request)
            taken = 0
            while taken < 16 << 20:  # 10 MB per second: slower than the service, but above the limit
                time.sleep(0.1)
                taken += len(slow.recv(1 << 20, socket.MSG_WAITALL))


def test_half_a_tls_handshake_takes_no_place_and_ends(tmp_path, monkeypatch) -> None:
    from alnnode.http import http_connection

    monkeypatch.setattr(http_connection, "HANDSHAKE", 2)
    authority = Authority(tmp_path / "ca")
    pair = authority.issue("127.0.0.1")
    hello = ssl.MemoryBIO()
    tls = ssl.create_default_context(cafile=authority.pem).wrap_bio(ssl.MemoryBIO(), hello, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    half = hello.read()[:100]
    with (
        server(tmp_path, web=Web(tls=ServerTls(certificate=pair.certificate, private_key=pair.key))) as (url, _),
        ExitStack() as stack,
    ):
        held = [stack.enter_context(closing(connect(port_of(url), half))) for _ in range(300)]
        trusted = ssl.create_default_context(cafile=authority.pem)
        for _ in range(5):
            assert httpx.get(f"{url}/dicom-web/studies", verify=trusted).status_code == 200
        for connection in held:
            answer(connection)
        with closing(connect(port_of(url), b"GET / HTTP/1.1\r\n\r\n")) as plain:
            answer(plain)
        assert httpx.get(f"{url}/health/live", verify=trusted).status_code == 200
