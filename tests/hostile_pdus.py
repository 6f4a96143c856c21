"""PDUs by hand (PS3.8 section 9.3): good ones, for `hostile.damage` to spoil."""

from __future__ import annotations

import socket
import struct
from contextlib import closing, suppress

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


def talk(port: int, first: bytes, then: bytes) -> None:
    """Send both, read what comes for a moment, and hang up."""
    with closing(socket.create_connection(("127.0.0.1", port))) as peer, suppress(OSError):
        peer.settimeout(0.3)
        peer.sendall(first)
        peer.recv(4096)
        peer.sendall(then)
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(4096):
            pass
