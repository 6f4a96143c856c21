"""Render images in threads: few at the same time, because each may need some 100 MB, and for one address not all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import CapacityLimiter, to_thread

from alnnode.http.address_share import AddressTurns

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from ipaddress import IPv4Network, IPv6Network

    from starlette.requests import HTTPConnection

RENDERINGS = 4  # at the same time; a damaged image may occupy its place for two minutes


class Renderings:
    """One for each process, for all routes that render images.

    Attributes:
        limiter: of the threads.
    """

    def __init__(self, proxies: Sequence[IPv4Network | IPv6Network]) -> None:
        self.limiter = CapacityLimiter(RENDERINGS)
        self._turns = AddressTurns(RENDERINGS - 1, proxies)

    async def run(self, connection: HTTPConnection, draw: Callable[[], bytes]) -> bytes:
        """Return what ``draw`` returns, when it is the turn of the client's address."""
        async with self._turns.turn(connection.client.host if connection.client else ""):
            return await to_thread.run_sync(draw, limiter=self.limiter)
