"""ASGI middleware that lets one address use only a share of the threads in which requests are answered.

Searches, retrievals and pages run in the threads of anyio, 40 at most. Without a share, slow searches of one address could take all of them,
and the requests of every other address would wait.
"""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyio import Semaphore, move_on_after
from starlette.responses import PlainTextResponse

from alnnode.http.http_connection_limits import within
from alnnode.http.paths import STUDIES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from ipaddress import IPv4Network, IPv6Network

    from starlette.types import ASGIApp, Receive, Scope, Send

SHARE = 16  # requests of one address that are answered at the same time; the HTTP service has more connections of the database
PATIENCE = 10.0  # seconds that a further request waits, because most requests end soon: a viewer asks for many images at once
_EXEMPT = "/health/"


@dataclass(slots=True)
class _Address:
    """The turns of one address; ``requests`` counts those that have a turn and those that wait for one."""

    turns: Semaphore
    requests: int = 0


class AddressTurns:
    """Lets one address have ``most`` turns at the same time. The addresses of ``proxies`` belong to many clients, and have no limit."""

    def __init__(self, most: int, proxies: Sequence[IPv4Network | IPv6Network]) -> None:
        self._most, self._proxies = most, tuple(proxies)
        self._addresses: dict[str, _Address] = {}

    @asynccontextmanager
    async def turn(self, address: str, patience: float = math.inf) -> AsyncIterator[bool]:
        """Wait for a turn of an address, and hold it within the block; the value is False when it did not come in ``patience`` seconds."""
        if within(address, self._proxies):
            yield True
            return
        mine = self._addresses.setdefault(address, _Address(Semaphore(self._most)))
        mine.requests += 1
        try:
            with move_on_after(patience) as waiting:
                await mine.turns.acquire()
            if waiting.cancelled_caught:
                yield False
                return
            try:
                yield True
            finally:
                mine.turns.release()
        finally:
            mine.requests -= 1
            if not mine.requests:
                del self._addresses[address]


class AddressShare:
    """Lets requests of one address wait when `SHARE` of them are in progress, and answers 503 when they wait too long.

    Health checks are always answered. STOW-RS requests are exempt: a sender may use many connections, their bodies take long to arrive, and
    the acceptor has threads of its own.
    """

    def __init__(self, app: ASGIApp, proxies: Sequence[IPv4Network | IPv6Network]) -> None:
        self._app, self._turns = app, AddressTurns(SHARE, proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on when it is its turn, or refuse it."""
        if scope["type"] != "http" or _is_exempt(scope):
            await self._app(scope, receive, send)
            return
        async with self._turns.turn((scope.get("client") or ("",))[0], PATIENCE) as mine:
            if mine:
                await self._app(scope, receive, send)
                return
            text = f"{SHARE} requests of this address are in progress; send fewer at the same time"
            await PlainTextResponse(text, 503, {"Retry-After": "5"})(scope, receive, send)


def _is_exempt(scope: Scope) -> bool:
    path: str = scope["path"]
    return path.startswith(_EXEMPT) or (scope["method"] == "POST" and path.startswith(STUDIES))
