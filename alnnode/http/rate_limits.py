"""Limit how often one client may send requests, and how often one address may send a wrong token."""

from __future__ import annotations

import time

BURST = 10.0  # seconds: a client may send the requests of this time at once
MAX_WRONG_TOKENS, WINDOW = 20, 60.0  # wrong tokens from one address within these seconds, before the address is blocked
_MAX_CLIENTS = 10_000  # entries in memory; beyond that, all entries are discarded


class WrongTokenLimit:
    """Counts wrong tokens by address. It does not count requests with a valid token."""

    def __init__(self) -> None:
        self._wrong: dict[str, list[float]] = {}

    def count(self, address: str) -> None:
        """Count one wrong token of an address."""
        if len(self._wrong) > _MAX_CLIENTS:
            self._wrong.clear()
        self._wrong.setdefault(address, []).append(time.monotonic())

    def is_blocked(self, address: str) -> bool:
        """Return whether requests without a valid token are refused for this address."""
        recent = [at for at in self._wrong.get(address, ()) if at > time.monotonic() - WINDOW]
        if address in self._wrong:
            self._wrong[address] = recent[-MAX_WRONG_TOKENS:]
        return len(recent) >= MAX_WRONG_TOKENS


class RequestRateLimit:
    """A token bucket for each client: ``rate`` requests per second, and those of `BURST` seconds at once."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._buckets: dict[str, tuple[float, float]] = {}  # tokens left, and the time at which they were counted

    def allows(self, client: str) -> bool:
        """Remove one token from the bucket of a client; return whether there was one."""
        now, burst = time.monotonic(), max(1.0, self._rate * BURST)
        if len(self._buckets) > _MAX_CLIENTS:
            self._buckets.clear()
        tokens, counted = self._buckets.get(client, (burst, now))
        tokens = min(burst, tokens + (now - counted) * self._rate)
        self._buckets[client] = (tokens - 1 if tokens >= 1 else tokens), now
        return tokens >= 1
