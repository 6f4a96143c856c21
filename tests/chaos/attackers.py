"""``python -m chaos.attackers DICOM_PORT HTTP_PORT CONNECTIONS``: hold connections as hostile clients do, and open new ones for those that end.

There are ten kinds: five ways on each port. Slow bodies take a place for an association or a request, of which one address may have half:
they come from one address. All other kinds come from 20 addresses. It prints JSON with the opened connections when its standard input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import ssl
import struct
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import cache

from hostile_pdus import request, store_request

PAUSE = 1.0  # seconds between two bytes, and before the next connection
ONE_ADDRESS = "127.0.0.2"
ADDRESSES = [f"127.0.1.{number}" for number in range(1, 21)]
HEAD = b"GET /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1\r\n"
POST = b"POST /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/related; type=application/dicom; boundary=b\r\n"
FLOOD = 10 << 20  # bytes

Pieces = AsyncIterator[bytes]


async def idle() -> Pieces:
    """Send nothing."""
    yield b""


async def slowly(data: bytes, first: bytes = b"") -> Pieces:
    """Send ``first`` at once, then one byte of ``data`` after the other."""
    yield first
    for byte in data * 100:
        await asyncio.sleep(PAUSE)
        yield bytes([byte])


async def flood(first: bytes, piece: bytes) -> Pieces:
    """Send megabytes."""
    yield first
    for _ in range(FLOOD // len(piece)):
        yield piece


@cache
def half_hello() -> bytes:
    """Return the first half of a TLS ClientHello; made once, because a TLS context takes as long as a hundred connections."""
    hello = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="127.0.0.1").do_handshake()
    data = hello.read()
    return data[: len(data) // 2]


async def once(data: bytes) -> Pieces:
    """Send ``data``, and then nothing."""
    yield data


WAYS: dict[str, Callable[[], Pieces]] = {
    "DIMSE idle": idle,
    "DIMSE slow header": lambda: slowly(request()),
    "DIMSE slow body": lambda: slowly(store_request(bytes(4000)), request()),
    "DIMSE huge header": lambda: flood(struct.pack(">BBI", 1, 0, FLOOD), bytes(65536)),
    "DIMSE half TLS": lambda: once(half_hello()),
    "HTTP idle": idle,
    "HTTP slow header": lambda: slowly(HEAD),
    "HTTP slow body": lambda: slowly(bytes(4000), POST + b"Content-Length: 1000000\r\n\r\n--b\r\n"),
    "HTTP huge header": lambda: flood(HEAD, (b"X: " + b"a" * 4000 + b"\r\n") * 16),
    "HTTP half TLS": lambda: once(half_hello()),
}


async def attack(kind: str, port: int, number: int, opened: Counter[str], open_now: Counter[str]) -> None:
    """Hold one connection of a kind, without end."""
    address = ONE_ADDRESS if kind.endswith("slow body") else ADDRESSES[number % len(ADDRESSES)]
    while True:
        writer = None
        try:
            reader, writer = await asyncio.open_connection(sock=await connect(address, port))
            opened[kind] += 1
            open_now[kind] += 1
            sending = asyncio.create_task(send(WAYS[kind](), writer))
            with suppress(OSError):
                while await reader.read(65536):
                    pass
            sending.cancel()
        except OSError:
            pass
        if writer is not None:
            open_now[kind] -= 1
            writer.transport.abort()
        await asyncio.sleep(PAUSE)


async def connect(address: str, port: int) -> socket.socket:
    """Connect from an address, without the threads that asyncio uses to look up names."""
    connection = socket.socket()
    try:
        connection.setblocking(False)
        connection.bind((address, 0))
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    except BaseException:
        connection.close()
        raise
    return connection


async def send(pieces: Pieces, writer: asyncio.StreamWriter) -> None:
    """Send the pieces; the answer is read elsewhere."""
    with suppress(OSError):
        async for piece in pieces:
            writer.write(piece)
            await writer.drain()


async def run(dicom_port: int, http_port: int, connections: int) -> dict[str, dict[str, float]]:
    """Attack until standard input ends; return the opened connections, and how many were open on average, by kind."""
    opened, open_now, seconds = Counter(), Counter(), Counter()
    tasks = [
        asyncio.create_task(attack(kind, dicom_port if kind.startswith("DIMSE") else http_port, number, opened, open_now))
        for number in range(connections)
        for kind in [list(WAYS)[number % len(WAYS)]]
    ]
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    ticks = 0
    while not ended.done():
        await asyncio.sleep(1)
        ticks += 1
        seconds.update(open_now)
    for task in tasks:
        task.cancel()
    return {kind: {"opened": opened[kind], "open": seconds[kind] / max(1, ticks)} for kind in WAYS}


def main() -> None:
    """Attack, and print the numbers."""
    parser = argparse.ArgumentParser(prog="python -m chaos.attackers")
    parser.add_argument("dicom_port", type=int)
    parser.add_argument("http_port", type=int)
    parser.add_argument("connections", type=int)
    options = parser.parse_args()
    print(json.dumps(asyncio.run(run(options.dicom_port, options.http_port, options.connections))), flush=True)


if __name__ == "__main__":
    main()
