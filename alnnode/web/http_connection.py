"""uvicorn's HTTP/1.1 connection, with bounds: what a request's head may hold, and how long a peer may take (RFC 9112, RFC 6585 section 5).

uvicorn 0.35 and later bounds neither the head of a request nor the time that it takes, makes TLS handshakes without a bound, and counts silent
connections against `limit_concurrency`. Each method below changes one of these. What they override is private in part, so
`tests/functional/test_web_bounds.py` fails when a new uvicorn moves it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    import asyncio
    import ssl

    from alnnode.web.connection_limits import Door

MAX_LINE = 8 << 10  # bytes of a request line or header field
MAX_HEAD = 32 << 10  # bytes of a head; also of what frames a body: chunk extensions, trailers
MAX_LINES = 100  # header fields
MAX_PIPELINE = 8  # requests that came before the one under way was answered
PROGRESS = 64 << 10  # bytes that a body, or the taking of an answer, gets on with in each `Limits.body` seconds
HANDSHAKE = 10.0  # seconds for TLS
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 33\r\n"
    b"connection: close\r\n\r\nthe head of a request is too long"
)


class _TooLargeError(Exception):
    """The head of a request, or the framing of its body, is beyond the bounds."""


class _Head:
    """Measures the lines of a head before anything is parsed."""

    def __init__(self) -> None:
        self._size = self._line = self._lines = 0

    def take(self, data: bytes) -> int:
        """Return how many of these bytes belong to the head: all of them unless it ends here.

        Raises:
            _TooLargeError: it is beyond the bounds.
        """
        at = 0
        while at < len(data):
            end = data.find(b"\n", at, at + MAX_LINE)
            self._line += (len(data) if end < 0 else end + 1) - at
            if self._line > MAX_LINE:
                raise _TooLargeError
            if end < 0:
                break
            empty = self._line <= 2 and self._lines > 0  # CR LF alone
            self._size += self._line
            self._line, at = 0, end + 1
            if empty:
                return at
            self._lines += 1
            if self._size > MAX_HEAD or self._lines > MAX_LINES + 1:
                raise _TooLargeError
        return len(data)


class Connection(HttpToolsProtocol):
    """A connection that came through the door."""

    def __init__(self, door: Door, tls: ssl.SSLContext | None, **options: Any) -> None:
        super().__init__(**options)
        self.address = ""
        self._door, self._tls = door, tls
        self._raw: asyncio.Transport | None = None
        self._handshake: asyncio.Task[None] | None = None
        self._open = False  # with TLS not before the handshake is made
        self._early = b""  # came with the end of the handshake
        self._head: _Head | None = _Head()
        self._unframed = 0  # bytes since the last that were part of a body or ended a head
        self._since, self._got, self._left = self.loop.time(), 0, 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait; with TLS, for the handshake first."""
        self._raw = transport
        self.address = str((transport.get_extra_info("peername") or ("",))[0])
        self._door.wait(self, self.loop)
        if self._tls is None:
            self._enter(transport)
        else:
            self._handshake = self.loop.create_task(self._shake_hands(transport, self._tls))

    async def _shake_hands(self, transport: asyncio.Transport, tls: ssl.SSLContext) -> None:
        try:
            secure = await self.loop.start_tls(transport, self, tls, server_side=True, ssl_handshake_timeout=HANDSHAKE)
        except OSError:  # also what TLS raises, and its timeout
            secure = None
        if secure is None or transport.is_closing():
            self._door.leave(self)
            transport.abort()
            return
        self._since = self.loop.time()
        self._enter(secure)
        early, self._early = self._early, b""
        self.data_received(early)

    def _enter(self, transport: asyncio.Transport) -> None:
        self._open = True
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave."""
        self._door.leave(self)
        if self._open:
            super().connection_lost(exc)

    def close(self) -> None:
        """Close at once."""
        if self._open:
            self.transport.abort()
        elif self._raw is not None:
            if self._handshake is not None:
                self._handshake.cancel()
            self._raw.abort()

    def late(self, now: float) -> bool:
        """Whether the peer takes longer than it may: for a head, a body or an answer."""
        if self._under_way:
            return self._stands_still(now)
        return now - self._since > self._door.limits.head

    @property
    def _under_way(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _stands_still(self, now: float) -> bool:
        """Whether it is the peer that holds up the request, and not the node."""
        left = self.transport.get_write_buffer_size()
        asked = not (self.cycle.response_started or self.cycle.waiting_for_100_continue or self.flow.read_paused)
        receiving = self.cycle.more_body and asked
        if not (receiving or self.flow.write_paused):
            self._since, self._got, self._left = now, 0, left
            return False
        if now - self._since <= self._door.limits.body:
            return False
        moved = self._got + max(0, self._left - left)
        self._since, self._got, self._left = now, 0, left
        return moved < PROGRESS

    def resume_writing(self) -> None:
        """Note that the peer took what was written."""
        super().resume_writing()
        self._got += PROGRESS

    def data_received(self, data: bytes) -> None:
        """Measure a head before it is parsed."""
        if not self._open:
            self._early += data
            return
        try:
            while self._head is not None and data:
                size = self._head.take(data)
                self._feed(data[:size])
                data = data[size:]
            if data and not self.transport.is_closing():
                self._feed(data)
        except _TooLargeError:
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def _feed(self, data: bytes) -> None:
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            return
        self._unframed += len(data)
        super().data_received(data)
        if self._unframed > MAX_HEAD or len(self.pipeline) > MAX_PIPELINE:
            raise _TooLargeError

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._head = self._head or _Head()

    def on_headers_complete(self) -> None:
        """Give the request a place, or answer 503; health is always answered."""
        self._head, self._unframed = None, 0
        place = self._door.begin(self, free=self.url.startswith(b"/health/"), tasks=len(self.tasks))
        self._since, self._got = self.loop.time(), 0
        self.limit_concurrency = None if place else 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._unframed = 0
        self._got += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request; the head of the next may follow."""
        self._head, self._unframed = _Head(), 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        if not self.transport.is_closing() and not self._under_way:
            self._since = self.loop.time()
            self._door.wait(self, self.loop)

    def handle_websocket_upgrade(self) -> None:
        """Hand over to a WebSocket, as far as there are places."""
        sockets = sum(not isinstance(connection, Connection) for connection in self.connections)
        if sockets >= self._door.limits.requests:
            self.transport.close()
            return
        self._door.leave(self)
        super().handle_websocket_upgrade()
