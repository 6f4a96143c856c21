"""Limit the connections of the HTTP service: how many, from one address and in total, and how long each may be without progress.

A connection either waits (for its TLS handshake, or for the head of its first or next request) or has a request in progress. Waiting connections
use none of the places for requests: if too many connections wait, the limiter closes the one that has waited longest, of the address that has the
most. Therefore clients that open connections and send nothing do not cause the refusal of other clients. Requests in progress use places, and one
address may use only some of them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable
    from ipaddress import IPv4Network, IPv6Network

MAX_WAITING = 256  # connections without a request in progress: TLS handshakes, incomplete heads, idle connections
CHECK_INTERVAL = 0.5  # seconds between two checks for connections without progress


@dataclass(frozen=True, slots=True)
class HttpConnectionLimits:
    """The limits of the service.

    Attributes:
        requests: requests in progress, in total.
        peer_requests: requests in progress from one address.
        head: timeout in seconds for the complete head of a request.
        body: seconds in which a request body, or the client's reading of a response, must progress.
        proxies: addresses of reverse proxies, whose connections belong to many clients: `peer_requests` does not apply to them.
    """

    requests: int
    peer_requests: int
    head: float
    body: float
    proxies: tuple[IPv4Network | IPv6Network, ...] = ()


class LimitedConnection(Protocol):
    """A connection as the limiter needs it."""

    address: str

    def has_timed_out(self, now: float) -> bool:
        """Return whether the connection is without progress and must be closed."""
        ...

    def close(self) -> None:
        """Close the connection at once."""
        ...


class HttpConnectionLimiter:
    """Counts connections. Only the thread of the event loop may use it."""

    def __init__(self, limits: HttpConnectionLimits) -> None:
        self.limits = limits
        self._waiting: dict[LimitedConnection, None] = {}  # in the order in which they began to wait
        self._busy: set[LimitedConnection] = set()
        self._peer_requests: Counter[str] = Counter()  # requests in progress, by address
        self._timer: asyncio.TimerHandle | None = None

    def wait(self, connection: LimitedConnection, loop: asyncio.AbstractEventLoop) -> None:
        """Note that a connection waits from now on."""
        self._end_request(connection)
        self._waiting.pop(connection, None)
        self._waiting[connection] = None
        if len(self._waiting) > MAX_WAITING:
            self._close_longest_waiting()
        if self._timer is None:
            self._timer = loop.call_later(CHECK_INTERVAL, self._close_timed_out, loop)

    def begin_request(self, connection: LimitedConnection, *, exempt: bool, tasks: int) -> bool:
        """Note that a request is in progress; return False if there is no place for it.

        Args:
            connection: the connection that sent the request.
            exempt: whether the limits do not apply to the request.
            tasks: the requests that the application works on, including those whose client has disconnected.
        """
        self._waiting.pop(connection, None)
        if connection in self._busy:
            return True
        if not exempt:
            limits = self.limits
            peer_requests = 0 if self.is_proxy(connection.address) else self._peer_requests[connection.address]
            if max(len(self._busy), tasks) >= limits.requests or peer_requests >= limits.peer_requests:
                return False
        self._busy.add(connection)
        self._peer_requests[connection.address] += 1
        return True

    def forget(self, connection: LimitedConnection) -> None:
        """Note that a connection has ended, or has become a WebSocket."""
        self._waiting.pop(connection, None)
        self._end_request(connection)

    def is_proxy(self, address: str) -> bool:
        """Return whether the connections of this address belong to many clients."""
        return within(address, self.limits.proxies)

    def _end_request(self, connection: LimitedConnection) -> None:
        if connection in self._busy:
            self._busy.remove(connection)
            self._peer_requests[connection.address] -= 1
            if not self._peer_requests[connection.address]:
                del self._peer_requests[connection.address]

    def _close_longest_waiting(self) -> None:
        counts = Counter(connection.address for connection in self._waiting)
        address = max(counts, key=counts.__getitem__)
        oldest = next(connection for connection in self._waiting if connection.address == address)
        self.forget(oldest)
        oldest.close()

    def _close_timed_out(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for connection in [one for one in (*self._waiting, *self._busy) if one.has_timed_out(now)]:
            self.forget(connection)
            connection.close()
        again = self._waiting or self._busy
        self._timer = loop.call_later(CHECK_INTERVAL, self._close_timed_out, loop) if again else None


def within(address: str, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    """Return whether an address belongs to one of the networks; an IPv4-mapped IPv6 address counts as IPv4."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return any((mapped or parsed) in network for network in networks)
