"""Large objects and commands by C-STORE need a limited amount of memory, at the default settings."""

import hashlib
import os
import re
import socket
import struct
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import dicom_objects
import pytest
from hostile_pdus import CT, element, pdu, request
from listening import Listener, wait_for

from alnnode.db import schema

UID = b"1.2.826.0.1.3680043.10.1.1.1"
PIECE = 120 << 10
UNFINISHED = int(os.environ.get("ALNNODE_UNFINISHED_MB", "100"))  # MB of each object that never ends


@pytest.fixture
def make(tmp_path):
    made = []

    def start(extra="", **options) -> Listener:
        url = f"sqlite:///{tmp_path / 'alnnode.db'}"
        schema.migrate(url)
        made.append(Listener(tmp_path, url, extra, **options))
        made[-1].start()
        return made[-1]

    yield start
    for listener in made:
        listener.stop()


def memory(listener) -> float:
    """Anonymous memory of the listening process, MB: the kernel can reclaim pages of files."""
    status = Path(f"/proc/{listener.processes[0].pid}/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+)", status)[1]) / 1024


def resident(listener) -> float:
    """All memory of the listening process, MB, with the pages of files."""
    status = Path(f"/proc/{listener.processes[0].pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


def associated(listener) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", listener.port), timeout=20)
    connection.sendall(request())
    kind, _, length = struct.unpack(">BBI", connection.recv(6, socket.MSG_WAITALL))
    assert kind == 2, "A-ASSOCIATE-AC"
    connection.recv(length, socket.MSG_WAITALL)
    return connection


def command() -> bytes:
    parts = element(0x0002, CT + b"\0") + element(0x0100, b"\1\0") + element(0x0110, b"\1\0") + element(0x0700, b"\0\0")
    parts += element(0x0800, b"\1\0") + element(0x1000, UID)
    whole = element(0x0000, struct.pack("<I", len(parts))) + parts
    return pdu(4, struct.pack(">IBB", len(whole) + 2, 1, 3) + whole)


def piece(data, *, last=False) -> bytes:
    return pdu(4, struct.pack(">IBB", len(data) + 2, 1, 2 if last else 0) + data)


def image(megabytes: int) -> bytes:
    """The start of a CT image's data set whose pixel data have ``megabytes`` MB."""
    whole = dicom_objects.data_set(dicom_objects.ct(1))
    tag = whole.rindex(b"\xe0\x7f\x10\x00")
    return whole[:tag] + b"\xe0\x7f\x10\x00OW\0\0" + (megabytes << 20).to_bytes(4, "little")


def status(connection) -> int:
    """The status of a C-STORE response."""
    kind, _, length = struct.unpack(">BBI", connection.recv(6, socket.MSG_WAITALL))
    assert kind == 4, "P-DATA-TF"
    said = connection.recv(length, socket.MSG_WAITALL)
    return struct.unpack("<H", said[said.index(struct.pack("<HHI", 0, 0x0900, 2)) + 8 :][:2])[0]


@pytest.mark.timeout(1800)
def test_large_objects_that_never_end_cost_little_memory_and_leave_nothing(make) -> None:
    listener = make()
    before = highest = memory(listener)
    filler = piece(bytes(PIECE))
    with ExitStack() as stack:
        held = [stack.enter_context(closing(associated(listener))) for _ in range(4)]
        for one in held:
            one.sendall(command() + piece(image(UNFINISHED + 50)))
        for _ in range((UNFINISHED << 20) // PIECE):
            for one in held:
                one.sendall(filler)
            highest = max(highest, memory(listener))
        assert highest - before < 60
        whole = resident(listener)
        assert whole < 300
        print(f"4 x {UNFINISHED} MB: {whole:.0f} MB for the listener, of them at most {highest:.0f} MB anonymous")  # noqa: T201
        association = listener.associate()
        assert association.send_c_store(dicom_objects.ct(2)).Status == 0x0000
        association.release()
    descriptors = Path(f"/proc/{listener.processes[0].pid}/fd")
    wait_for(lambda: not any("incoming" in str(link.readlink()) for link in descriptors.iterdir() if link.is_symlink()), 20)


def test_one_large_object_is_stored_in_bounded_memory(make) -> None:
    listener = make()
    before, highest, size = memory(listener), 0.0, 200
    begin, filler = image(size), bytes(PIECE)
    digest, left = hashlib.sha256(begin), size << 20
    with closing(associated(listener)) as sender:
        sender.sendall(command() + piece(begin))
        while left:
            data = filler[: min(left, PIECE)]
            left -= len(data)
            digest.update(data)
            sender.sendall(piece(data, last=not left))
            highest = max(highest, memory(listener))
        assert status(sender) == 0x0000
        highest = max(highest, memory(listener))
        sender.sendall(pdu(5, bytes(4)))
        sender.recv(10, socket.MSG_WAITALL)
    assert highest - before < 60
    wait_for(lambda: listener.recorded() == 1)
    assert listener.received.digest(UID.decode()) == digest.hexdigest()


def test_an_object_that_would_fill_the_disk_is_refused_while_it_comes_in(make) -> None:
    listener = make(retention="min_free_mb = 100000000")
    with closing(associated(listener)) as sender:
        sender.sendall(command() + piece(image(20)))
        for number in range(20 << 3):
            sender.sendall(piece(bytes(1 << 17), last=number == (20 << 3) - 1))
        assert status(sender) == 0xA700
    assert listener.log.read_text().count("too little disk space left") == 1


def test_a_command_without_end_is_aborted(make) -> None:
    listener = make()
    before = memory(listener)
    endless = pdu(4, struct.pack(">IBB", PIECE + 2, 1, 1) + bytes(PIECE))
    with closing(associated(listener)) as sender:
        # The listener closes the connection with unread data: TCP may then send a reset, which discards the A-ABORT.
        answer = b""
        with suppress(ConnectionError):
            for _ in range((20 << 20) // PIECE):
                sender.sendall(endless)
        with suppress(ConnectionError):
            answer = sender.recv(1)
        assert answer in {b"\x07", b""}, "A-ABORT, or closed"
    assert memory(listener) - before < 30
    wait_for(lambda: listener.associate().is_established)
