"""Determine the address of a client behind a reverse proxy that the settings name.

The limits by address and the audit trail use this address.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from starlette.datastructures import Headers

from alnnode.http.http_connection_limits import within

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Network, IPv6Network

    from starlette.types import ASGIApp, Receive, Scope, Send

MAX_HOPS = 20


class ForwardedAddress:
    """ASGI middleware that reads ``X-Forwarded-For`` of trusted proxies; it ignores the header of all other clients."""

    def __init__(self, app: ASGIApp, proxies: Sequence[IPv4Network | IPv6Network]) -> None:
        self._app, self._proxies = app, tuple(proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Replace the address of the proxy by that of the client, and pass the request on."""
        if scope["type"] in {"http", "websocket"} and scope.get("client") and within(scope["client"][0], self._proxies):
            values = ",".join(Headers(scope=scope).getlist("x-forwarded-for"))
            client = self._client(values)
            if client is not None:
                scope["client"] = client, 0
        await self._app(scope, receive, send)

    def _client(self, forwarded: str) -> str | None:
        """Return the last address that is not a trusted proxy: the client may have forged those before it."""
        for hop in reversed(forwarded.split(",")[-MAX_HOPS:]):
            address = _address(hop.strip())
            if address is None:
                return None
            if not within(address, self._proxies):
                return address
        return None


def _address(text: str) -> str | None:
    """Read an address, with or without a port (``192.0.2.1:4711``, ``[2001:db8::1]:4711``)."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ip_address(text))
    except ValueError:
        return None
