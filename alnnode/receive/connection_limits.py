"""Decide which connections the listener admits: by network, by number at once, and by rate. Nothing is read from a refused peer.

Every limit holds for one listening process, as the limit of associations does; the kernel distributes connections over the processes.
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

# Connections above the number of associations, for those that are no association yet: probes, handshakes, and silent peers.
WITHOUT_ASSOCIATION = 256
UNKNOWN_ADDRESS = "not in [listener] addresses"
BURST = 10.0  # seconds; a peer may open the connections of this time at once
QUIET = 60.0  # seconds between two log lines about one peer
REMEMBERED = 4096  # peers


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of one process.

    Attributes:
        connections: at once.
        peer_connections: at once, of one address.
        peer_rate: per second, of one address.
    """

    connections: int
    peer_connections: int
    peer_rate: float


@dataclass(slots=True)
class _Peer:
    tokens: float
    filled_at: float
    connections: int = 0
    logged_at: float = float("-inf")


def ignore_refusal(_address: str, _reason: str) -> None:
    """Do nothing about a refused connection."""


class ConnectionLimiter:
    """Counts the connections of each address. Threads may share an instance.

    Args:
        networks: from which peers may connect.
        limits: of this process.
        refused: called with address and reason as often as a refusal is logged.
    """

    def __init__(
        self,
        networks: Sequence[IPv4Network | IPv6Network],
        limits: ConnectionLimits,
        refused: Callable[[str, str], None] = ignore_refusal,
    ) -> None:
        self._networks, self._limits, self._refused = tuple(networks), limits, refused
        self._lock = threading.Lock()
        self._peers: dict[str, _Peer] = {}
        self._connections = 0

    @property
    def connections(self) -> int:
        """The number of connections at present, also of those that are no association yet."""
        return self._connections

    def admit(self, address: str) -> bool:
        """Return whether a connection of this address may stay; if so, the caller calls `release` at its end."""
        now = time.monotonic()
        with self._lock:
            peer = self._peer(address, now)
            refusal = self._refusal(address, peer)
            if refusal is None:
                peer.connections += 1
                self._connections += 1
                return True
            is_due = now - peer.logged_at >= QUIET
            if is_due:
                peer.logged_at = now
        if is_due:
            log.warning("connection_refused", address=address, reason=refusal, silent_for_s=QUIET)
            self._refused(address, refusal)
        return False

    def release(self, address: str) -> None:
        """Count the end of a connection."""
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
            return UNKNOWN_ADDRESS
        if self._connections >= self._limits.connections:
            return "too many connections"
        if peer.connections >= self._limits.peer_connections:
            return "more connections than half of [listener] max_associations"
        if peer.tokens < 1:
            return "more connections in a second than one address may open"
        peer.tokens -= 1
        return None
