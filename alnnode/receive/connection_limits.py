"""Who may connect, and how often: networks, connections at once, connections in a second. Nothing is read from a peer before it is in.

Every limit is for one listening process, as is the limit of associations; the kernel spreads connections over the processes.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from ipaddress import IPv4Network, IPv6Network

log = structlog.get_logger()

WAITING = (
    256  # connections that are no associations yet, beyond the associations: probes, handshakes, and who never says a word
)
BURST = 10.0  # seconds' worth of connections that may come at once
QUIET = 60.0  # seconds between two lines in the log on one peer
REMEMBERED = 4096  # peers


@dataclass(frozen=True, slots=True)
class Limits:
    """How many connections a process takes.

    Attributes:
        connections: at once.
        peer_connections: at once, of one address.
        peer_rate: in a second, of one address.
    """

    connections: int
    peer_connections: int
    peer_rate: float


@dataclass(slots=True)
class _Peer:
    tokens: float
    filled_at: float
    connections: int = 0
    told_at: float = float("-inf")


def nobody(_address: str, _reason: str) -> None:
    """Nobody wants to be told who was refused."""


class Gate:
    """Counts. Safe to share between threads. ``told`` is called as often as the log is written."""

    def __init__(
        self, networks: Sequence[IPv4Network | IPv6Network], limits: Limits, told: Callable[[str, str], None] = nobody
    ) -> None:
        self._networks, self._limits, self._told = tuple(networks), limits, told
        self._lock = threading.Lock()
        self._peers: dict[str, _Peer] = {}
        self._connections = 0

    def enter(self, address: str) -> bool:
        """Whether a connection of this address may stay; if so, `leave` must follow."""
        now = time.monotonic()
        with self._lock:
            peer = self._peer(address, now)
            refusal = self._refusal(address, peer)
            if refusal is None:
                peer.connections += 1
                self._connections += 1
                return True
            tell = now - peer.told_at >= QUIET
            if tell:
                peer.told_at = now
        if tell:
            log.warning("connection_refused", address=address, reason=refusal, silent_for_s=QUIET)
            self._told(address, refusal)
        return False

    def leave(self, address: str) -> None:
        """Note that a connection ended."""
        with self._lock:
            self._connections -= 1
            self._peers[address].connections -= 1

    def _peer(self, address: str, now: float) -> _Peer:
        burst = self._limits.peer_rate * BURST
        peer = self._peers.get(address)
        if peer is None:
            if len(self._peers) >= REMEMBERED:
                self._peers = {key: value for key, value in self._peers.items() if value.connections}
            peer = self._peers[address] = _Peer(burst, now)
        peer.tokens = min(burst, peer.tokens + (now - peer.filled_at) * self._limits.peer_rate)
        peer.filled_at = now
        return peer

    def _refusal(self, address: str, peer: _Peer) -> str | None:
        parsed = ip_address(address.partition("%")[0])
        mapped = getattr(parsed, "ipv4_mapped", None)
        if not any((mapped or parsed) in network for network in self._networks):
            return "not in [listener] addresses"
        if self._connections >= self._limits.connections:
            return "too many connections"
        if peer.connections >= self._limits.peer_connections:
            return "more connections than half of [listener] max_associations"
        if peer.tokens < 1:
            return "more connections in a second than one address may open"
        peer.tokens -= 1
        return None
