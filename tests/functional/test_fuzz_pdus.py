"""PDUs that no honest peer sends, to a real listener: it neither ends, nor hangs, nor keeps a place or a thread for them."""

import socket
import struct
import time
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path

import dicom_objects
import pytest
from hostile import damage, edits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from listening import Listener, wait_for

from alnnode import store

CT, EXPLICIT = b"1.2.840.10008.5.1.4.1.1.2", b"1.2.840.10008.1.2.1"


def item(kind: int, body: bytes) -> bytes:
    """An item of an association request (PS3.8 9.3.2)."""
    return struct.pack(">BBH", kind, 0, len(body)) + body


def pdu(kind: int, body: bytes) -> bytes:
    """A PDU."""
    return struct.pack(">BBI", kind, 0, len(body)) + body


def request() -> bytes:
    """An association request for CT."""
    context = item(0x20, bytes([1, 0, 0, 0]) + item(0x30, CT) + item(0x40, EXPLICIT))
    user = item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3.4"))
    head = struct.pack(">HH", 1, 0) + b"ALNNODE".ljust(16) + b"FUZZ".ljust(16) + bytes(32)
    return pdu(1, head + item(0x10, b"1.2.840.10008.3.1.1.1") + context + user)


def element(number: int, value: bytes) -> bytes:
    """An element of a command (implicit VR little endian)."""
    return struct.pack("<HHI", 0, number, len(value)) + value


def store_request(data: bytes) -> bytes:
    """A C-STORE request in two PDUs."""
    uid = b"1.2.826.0.1.3680043.10.1.1.1"
    parts = element(0x0002, CT + b"\0") + element(0x0100, b"\1\0") + element(0x0110, b"\1\0") + element(0x0700, b"\0\0")
    parts += element(0x0800, b"\1\0") + element(0x1000, uid)
    command = element(0x0000, struct.pack("<I", len(parts))) + parts
    return pdu(4, struct.pack(">IBB", len(command) + 2, 1, 3) + command) + pdu(
        4, struct.pack(">IBB", len(data) + 2, 1, 2) + data
    )


OBJECT = dicom_objects.data_set(dicom_objects.ct(1, side=16))
MESSAGE, RELEASE = store_request(OBJECT), pdu(5, bytes(4))


@pytest.fixture(scope="module")
def listener(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    url = f"sqlite:///{folder / 'alnnode.db'}"
    store.migrate(url)
    bounds = "acse_timeout = 2\ndimse_timeout = 2\nnetwork_timeout = 2\nmax_peer_rate = 10000\nmax_peer_connections = 2000\n"
    listener = Listener(folder, url, bounds)
    listener.start()
    yield listener
    listener.stop()


def talk(listener, first: bytes, then: bytes) -> None:
    """Send both, read what comes for a moment, and hang up."""
    with closing(socket.create_connection(("127.0.0.1", listener.port))) as peer, suppress(OSError):
        peer.settimeout(0.3)
        peer.sendall(first)
        peer.recv(4096)
        peer.sendall(then)
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(4096):
            pass


BOUNDED = settings(
    max_examples=60, deadline=timedelta(seconds=10), suppress_health_check=list(HealthCheck), derandomize=True, database=None
)


@pytest.mark.parametrize("target", ["request", "message", "both", "object"])
def test_damaged_pdus(listener, target) -> None:
    process = listener.processes[0]
    before = len(list(Path(f"/proc/{process.pid}/task").iterdir()))

    @BOUNDED
    @given(edits, st.sampled_from([200, None]))
    def attack(changes, head) -> None:
        if target == "request":
            talk(listener, damage(request(), changes), MESSAGE + RELEASE)
        elif target == "message":
            talk(listener, request(), damage(MESSAGE + RELEASE, changes, head=head))
        elif target == "object":
            talk(listener, request(), store_request(damage(OBJECT, changes, head=head)) + RELEASE)
        else:
            talk(listener, damage(request() + MESSAGE + RELEASE, changes), b"")
        assert process.poll() is None

    attack()
    # Longest wait: a half association that must end by its timeout, and an answer to an abort that never comes.
    wait_for(lambda: len(list(Path(f"/proc/{process.pid}/task").iterdir())) <= before, 15)
    start = time.monotonic()
    association = listener.associate()
    assert association.send_c_store(dicom_objects.ct(7)).Status == 0
    association.release()
    assert time.monotonic() - start < 3
    log = listener.log.read_text()
    assert "Traceback" not in log
    assert "uncaught" not in log
