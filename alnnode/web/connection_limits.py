"""Who holds a connection of the HTTP service: how many, of one address and of all, and for how long without getting on.

A connection waits (for its TLS handshake, for the head of its first or next request) or has a request under way. Those that wait take no
place of a request: when there are too many, the one that has waited longest is closed, of the address that has most of them. So nobody who
asks at once is refused because of others who never ask. Requests have places, fewer for one address than there are.
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

WAITING = 256  # connections without a request: handshakes, heads that are not whole, who says nothing
LOOK = 0.5  # seconds between two looks at who does not get on


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the service takes.

    Attributes:
        requests: under way at once.
        peer_requests: of one address.
        head: seconds until the head of a request must be whole.
        body: seconds in which a body, or the taking of an answer, must get on.
        proxies: addresses whose connections are of many clients: they have no limit of their own.
    """

    requests: int
    peer_requests: int
    head: float
    body: float
    proxies: tuple[IPv4Network | IPv6Network, ...] = ()


class Guest(Protocol):
    """A connection, as the door sees it."""

    address: str

    def late(self, now: float) -> bool:
        """Whether it does not get on and is to be closed."""
        ...

    def close(self) -> None:
        """Close it at once."""
        ...


class Door:
    """Counts. Used by the event loop's thread alone."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._waiting: dict[Guest, None] = {}  # in the order in which they began to wait
        self._busy: set[Guest] = set()
        self._peers: Counter[str] = Counter()  # requests under way
        self._timer: asyncio.TimerHandle | None = None

    def wait(self, guest: Guest, loop: asyncio.AbstractEventLoop) -> None:
        """Note that a connection waits from now on."""
        self._rest(guest)
        self._waiting.pop(guest, None)
        self._waiting[guest] = None
        if len(self._waiting) > WAITING:
            self._make_room()
        if self._timer is None:
            self._timer = loop.call_later(LOOK, self._look, loop)

    def begin(self, guest: Guest, *, free: bool, tasks: int) -> bool:
        """Note that a request is under way; False when there is no place for it.

        ``free`` requests always have one. ``tasks`` are the requests that are worked on, also those whose client is gone.
        """
        self._waiting.pop(guest, None)
        if guest in self._busy:
            return True
        if not free:
            limits = self.limits
            of_peer = 0 if self.is_proxy(guest.address) else self._peers[guest.address]
            if max(len(self._busy), tasks) >= limits.requests or of_peer >= limits.peer_requests:
                return False
        self._busy.add(guest)
        self._peers[guest.address] += 1
        return True

    def leave(self, guest: Guest) -> None:
        """Note that a connection ended, or became a WebSocket."""
        self._waiting.pop(guest, None)
        self._rest(guest)

    def is_proxy(self, address: str) -> bool:
        """Whether connections from there are of many clients."""
        return within(address, self.limits.proxies)

    def _rest(self, guest: Guest) -> None:
        if guest in self._busy:
            self._busy.remove(guest)
            self._peers[guest.address] -= 1
            if not self._peers[guest.address]:
                del self._peers[guest.address]

    def _make_room(self) -> None:
        counts = Counter(guest.address for guest in self._waiting)
        address = max(counts, key=counts.__getitem__)
        oldest = next(guest for guest in self._waiting if guest.address == address)
        self.leave(oldest)
        oldest.close()

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for guest in [guest for guest in (*self._waiting, *self._busy) if guest.late(now)]:
            self.leave(guest)
            guest.close()
        self._timer = loop.call_later(LOOK, self._look, loop) if self._waiting or self._busy else None


def within(address: str, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    """Whether an address lies in one of the networks; an IPv4 address that is written as IPv6 counts as IPv4."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return any((mapped or parsed) in network for network in networks)
