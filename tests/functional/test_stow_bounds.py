"""Large requests, requests of many parts, and malformed requests to the service as a separate process: status and bounded memory."""

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import httpx
import pytest
from dicom_objects import ct
from listening import free_port, wait_for
from web_service import body, content_type, part10

from alnnode.db import schema
from alnnode.settings import load

LIMIT_MB = 300
GIGABYTE = 1 << 30


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    folder = tmp_path_factory.mktemp("web")
    config, port = folder / "config.toml", free_port()
    config.write_text(
        f'[node]\ndata_dir = "{folder}"\n[retention]\nmin_free_mb = 0\n[web]\nport = {port}\n[logging]\nlevel = "warning"\n',
        "utf-8",
    )
    schema.migrate(load(config).database_url)
    environment = {**os.environ, "ALNNODE_CONFIG": str(config)}
    with (folder / "log").open("wb") as log:
        started = subprocess.Popen([sys.executable, "-m", "alnnode.web"], env=environment, stdout=log, stderr=log)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=240) as client:
        wait_for(lambda: lives(client), 120)
        yield client, started.pid
    started.terminate()
    started.wait(20)
    shutil.rmtree(folder)  # it holds an object of a gigabyte


def lives(client) -> bool:
    try:
        return client.get("/health/live").status_code == 200
    except httpx.ConnectError:
        return False


@contextmanager
def measured(pid):
    """Measure the memory of the process during a block. Mapped files are not counted: the kernel can free their pages."""
    seen, ended = [], Event()

    def look() -> None:
        while not ended.wait(0.02):
            status = Path(f"/proc/{pid}/status").read_text()
            seen.append(sum(int(re.search(rf"{name}:\s+(\d+)", status)[1]) for name in ("RssAnon", "RssShmem")) / 1024)

    thread = Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def post(client, content, headers=None):
    return client.post("/dicom-web/studies", content=content, headers=headers or content_type())


def test_malformed_bodies_get_their_status(process) -> None:
    client, _ = process
    whole = body(part10(ct(1)))
    assert post(client, whole[: len(whole) // 2]).status_code == 400
    assert post(client, whole, content_type("another")).status_code == 400
    assert post(client, body(b"no DICOM" * 1000)).status_code == 409
    assert post(client, whole).status_code == 200


def test_one_object_of_a_gigabyte_in_bounded_memory(process) -> None:
    client, pid = process
    small = part10(ct(2, NumberOfFrames=str(GIGABYTE // (1024 * 1024 * 2)), Rows=1024, Columns=1024, PixelData=b""))
    tag = small.rindex(b"\xe0\x7f\x10\x00")
    head, rest = small[:tag] + b"\xe0\x7f\x10\x00OW\0\0" + GIGABYTE.to_bytes(4, "little"), b"\0" * (1 << 20)
    first = body(head).removesuffix(b"\r\n--a-boundary--\r\n")

    def pieces():
        yield first
        for _ in range(GIGABYTE // len(rest)):
            yield rest
        yield b"\r\n--a-boundary--\r\n"

    with measured(pid) as seen:
        answer = post(client, pieces())
    assert answer.status_code == 200, answer.text[:300]
    assert max(seen) < LIMIT_MB
    print(f"peak of a gigabyte: {max(seen):.0f} MB in {len(seen)} looks")  # noqa: T201


def test_ten_thousand_parts_in_bounded_memory(process) -> None:
    client, pid = process
    good = part10(ct(3))
    with measured(pid) as seen:
        answer = post(client, body(good, *[b"no DICOM at all"] * 9_999))
    assert answer.status_code == 202
    assert len(answer.json()["00081198"]["Value"]) == 9_999
    assert len(answer.json()["00081199"]["Value"]) == 1
    assert max(seen) < LIMIT_MB
    print(f"peak of ten thousand parts: {max(seen):.0f} MB in {len(seen)} looks")  # noqa: T201


def test_metadata_with_much_bulk_data_in_bounded_memory(process) -> None:
    client, pid = process
    image = ct(4, NumberOfFrames="20", Rows=1024, Columns=1024, PixelData=b"")
    document = {**image.to_json_dict(), "7FE00010": {"vr": "OW", "BulkDataURI": "pixels"}}
    too_much = {**ct(5).to_json_dict(bulk_data_threshold=1 << 20), "7FE00010": {"vr": "OW", "BulkDataURI": "more"}}
    nothing = [{}] * (1 << 20)  # empty data sets
    part = "--a-boundary\r\nContent-Type: {}\r\nContent-Location: {}\r\n\r\n"

    def pieces(documents):
        yield part.format("application/dicom+json", "").encode() + json.dumps(documents).encode()
        for uri, size in (("pixels", 40), ("more", 60)):
            yield b"\r\n" + part.format("application/octet-stream", uri).encode()
            for _ in range(size):
                yield b"\0" * (1 << 20)
        for number in range(3000):
            yield b"\r\n" + part.format("application/octet-stream", number).encode() + b"\0" * 100
        yield b"\r\n--a-boundary--\r\n"

    with measured(pid) as seen:
        answer = post(client, pieces([document, too_much]), content_type(kind="application/dicom+json"))
        refused = post(client, pieces(nothing), content_type(kind="application/dicom+json"))
    assert answer.status_code == 202, answer.text[:300]
    assert [item["00081197"]["Value"] for item in answer.json()["00081198"]["Value"]] == [[0xA700]]
    assert refused.status_code == 413
    assert max(seen) < LIMIT_MB
    print(f"peak of metadata with bulk data: {max(seen):.0f} MB in {len(seen)} looks")  # noqa: T201
