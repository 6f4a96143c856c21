"""Extend uvicorn's HTTP/1.1 connection with limits for the size of request heads and for time (RFC 9112, RFC 6585 section 5).

uvicorn 0.35 and later limits neither the size of a request head nor its duration, has no timeout for TLS handshakes, and counts idle connections
against `limit_concurrency`. Each method below changes one of these. Some of the overridden methods are private in uvicorn;
`tests/functional/test_web_bounds.py` fails if a new version of uvicorn changes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    import asyncio
    import ssl

    from alnnode.http.http_connection_limits import HttpConnectionLimiter

MAX_LINE = 8 << 10  # bytes of a request line or header field
MAX_HEAD = 32 << 10  # bytes of a head; also the bytes of body framing without content: chunk extensions, trailers
MAX_LINES = 100  # header fields
MAX_PIPELINE = 8  # pipelined requests that wait for the response to the request in progress
PROGRESS = 64 << 10  # bytes of a request or response body that must be transferred every `HttpConnectionLimits.body` seconds
HANDSHAKE = 10.0  # timeout in seconds for the TLS handshake
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 33\r\n"
    b"connection: close\r\n\r\nthe head of a request is too long"
)


class _TooLargeError(Exception):
    """The head of a request, or the framing of its body, exceeds its limit."""


class _HeadMeter:
    """Measures the lines of a request head before uvicorn parses them."""

    def __init__(self) -> None:
        self._size = self._line = self._lines = 0

    def measure(self, data: bytes) -> int:
        """Return how many of these bytes belong to the head: all of them unless the head ends here.

        Raises:
            _TooLargeError: the head exceeds a limit.
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


class HttpConnection(HttpToolsProtocol):
    """A connection that a `HttpConnectionLimiter` counts."""

    def __init__(self, limiter: HttpConnectionLimiter, tls: ssl.SSLContext | None, **options: Any) -> None:
        super().__init__(**options)
        self.address = ""
        self._limiter, self._tls = limiter, tls
        self._raw: asyncio.Transport | None = None
        self._handshake: asyncio.Task[None] | None = None
        self._open = False  # with TLS, only after the handshake
        self._early = b""  # application data that arrived together with the end of the handshake
        self._head: _HeadMeter | None = _HeadMeter()
        self._unframed = 0  # bytes received since the last body content or end of a head
        self._since, self._got, self._left = self.loop.time(), 0, 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request; with TLS, for the handshake before it."""
        self._raw = transport
        self.address = str((transport.get_extra_info("peername") or ("",))[0])
        self._limiter.wait(self, self.loop)
        if self._tls is None:
            self._begin_http(transport)
        else:
            self._handshake = self.loop.create_task(self._shake_hands(transport, self._tls))

    async def _shake_hands(self, transport: asyncio.Transport, tls: ssl.SSLContext) -> None:
        try:
            secure = await self.loop.start_tls(transport, self, tls, server_side=True, ssl_handshake_timeout=HANDSHAKE)
        except OSError:  # TLS errors and the timeout of the handshake are OSError too
            secure = None
        if secure is None or transport.is_closing():
            self._limiter.forget(self)
            transport.abort()
            return
        self._since = self.loop.time()
        self._begin_http(secure)
        early, self._early = self._early, b""
        self.data_received(early)

    def _begin_http(self, transport: asyncio.Transport) -> None:
        self._open = True
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the connection."""
        self._limiter.forget(self)
        if self._open:
            super().connection_lost(exc)

    def close(self) -> None:
        """Close the connection at once."""
        if self._open:
            self.transport.abort()
        elif self._raw is not None:
            if self._handshake is not None:
                self._handshake.cancel()
            self._raw.abort()

    def has_timed_out(self, now: float) -> bool:
        """Return whether the client exceeds its time: for a head, a request body or the reading of a response."""
        if self._in_progress:
            return self._client_stalls(now)
        return now - self._since > self._limiter.limits.head

    @property
    def _in_progress(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _client_stalls(self, now: float) -> bool:
        """Return whether the client, and not the node, delays the request."""
        left = self.transport.get_write_buffer_size()
        awaits_body = not (self.cycle.response_started or self.cycle.waiting_for_100_continue or self.flow.read_paused)
        receiving = self.cycle.more_body and awaits_body
        if not (receiving or self.flow.write_paused):
            self._since, self._got, self._left = now, 0, left
            return False
        if now - self._since <= self._limiter.limits.body:
            return False
        moved = self._got + max(0, self._left - left)
        self._since, self._got, self._left = now, 0, left
        return moved < PROGRESS

    def resume_writing(self) -> None:
        """Note that the client has read what was written."""
        super().resume_writing()
        self._got += PROGRESS

    def data_received(self, data: bytes) -> None:
        """Measure a head before uvicorn parses it."""
        if not self._open:
            self._early += data
            return
        try:
            while self._head is not None and data:
                size = self._head.measure(data)
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
        """Begin to measure a request."""
        super().on_message_begin()
        self._head = self._head or _HeadMeter()

    def on_headers_complete(self) -> None:
        """Give the request a place, or answer 503; health checks are always answered."""
        self._head, self._unframed = None, 0
        place = self._limiter.begin_request(self, exempt=self.url.startswith(b"/health/"), tasks=len(self.tasks))
        self._since, self._got = self.loop.time(), 0
        self.limit_concurrency = None if place else 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Count the bytes of a part of the body."""
        self._unframed = 0
        self._got += len(body)
        if self.cycle is not None and not self.cycle.body:
            # uvicorn appends to a `bytearray` and copies it to `bytes` again: with `bytes`, it passes on the chunk that was received.
            self.cycle.body = b""  # type: ignore[assignment]
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request; the head of the next one may follow."""
        self._head, self._unframed = _HeadMeter(), 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        if not self.transport.is_closing() and not self._in_progress:
            self._since = self.loop.time()
            self._limiter.wait(self, self.loop)

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over to a WebSocket, or close it if there are too many WebSockets, in total or of the address."""
        limits = self._limiter.limits
        # uvicorn's WebSocket protocols have the address and port of their client, and no common class.
        clients = [getattr(one, "client", None) for one in self.connections if not isinstance(one, HttpConnection)]
        of_address = (
            0 if self._limiter.is_proxy(self.address) else sum(client == self.address for client, _ in filter(None, clients))
        )
        if len(clients) >= limits.requests or of_address >= limits.peer_requests:
            self.transport.close()
            return
        self._limiter.forget(self)
        super().handle_websocket_upgrade()
