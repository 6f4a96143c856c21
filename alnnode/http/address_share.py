"""ASGI middleware that lets one address use only a share of the threads in which requests are answered.

Searches, retrievals and pages run in the threads of anyio, 40 at most. Without a share, slow searches of one address could take all of them,
and the requests of every other address would wait.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from anyio import Semaphore, move_on_after
from starlette.responses import PlainTextResponse

from alnnode.http.http_connection_limits import within
from alnnode.http.paths import STUDIES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Network, IPv6Network

    from starlette.types import ASGIApp, Receive, Scope, Send

SHARE = 16  # requests of one address that are answered at the same time; the HTTP service has more connections of the database
PATIENCE = 10.0  # seconds that a further request waits, because most requests end soon: a viewer asks for many images at once
_EXEMPT = "/health/"


@dataclass(slots=True)
class _Address:
    """The turns of one address; ``requests`` counts those that have a turn and those that wait for one."""

    turns: Semaphore = field(default_factory=lambda: Semaphore(SHARE))
    requests: int = 0


class AddressShare:
    """Lets requests of one address wait when `SHARE` of them are in progress, and answers 503 when they wait too long.

    Health checks are always answered. STOW-RS requests are exempt: a sender may use many connections, their bodies take long to arrive, and
    the acceptor has threads of its own. The addresses of ``proxies`` belong to many clients, and have no share.
    """

    def __init__(self, app: ASGIApp, proxies: Sequence[IPv4Network | IPv6Network]) -> None:
        self._app, self._proxies = app, tuple(proxies)
        self._addresses: dict[str, _Address] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on when it is its turn, or refuse it."""
        address = (scope.get("client") or ("",))[0]
        if scope["type"] != "http" or _is_exempt(scope) or within(address, self._proxies):
            await self._app(scope, receive, send)
            return
        mine = self._addresses.setdefault(address, _Address())
        mine.requests += 1
        try:
            with move_on_after(PATIENCE) as waiting:
                await mine.turns.acquire()
            if waiting.cancelled_caught:
                text = f"{SHARE} requests of this address are in progress; send fewer at the same time"
                await PlainTextResponse(text, 503, {"Retry-After": "5"})(scope, receive, send)
                return
            try:
                await self._app(scope, receive, send)
            finally:
                mine.turns.release()
        finally:
            mine.requests -= 1
            if not mine.requests:
                del self._addresses[address]


def _is_exempt(scope: Scope) -> bool:
    path: str = scope["path"]
    return path.startswith(_EXEMPT) or (scope["method"] == "POST" and path.startswith(STUDIES))
