"""Serve the application with uvicorn until SIGTERM or SIGINT."""

from __future__ import annotations

import logging
import socket
from functools import partial
from typing import TYPE_CHECKING

import structlog
import uvicorn

from alnnode.errors import ServiceError
from alnnode.receive.library_logging import silence_libraries
from alnnode.web.app import create
from alnnode.web.connection_limits import Door, Limits
from alnnode.web.http_connection import Connection
from alnnode.web.services import Services

if TYPE_CHECKING:
    from collections.abc import Callable

    from alnnode.settings import Settings

STOP_LIMIT = 4  # seconds for requests under way

log = structlog.get_logger()


def run(settings: Settings, ready: Callable[[int], None]) -> None:
    """Serve; ``ready`` is called with the port when connections are accepted.

    Raises:
        ServiceError: the address cannot be listened on, or the certificate cannot be used.
        SettingsError: the secret of a token cannot be read.
    """
    silence_libraries()
    listening = listen(settings)
    opened = Services.open(settings)
    port = listening.getsockname()[1]
    try:
        server = Server(configure(settings, opened), lambda: ready(port))
        log.info("web_listening", port=port)
        server.run(sockets=[listening])
    finally:
        opened.close()
        listening.close()
    log.info("web_stopped")


def listen(settings: Settings) -> socket.socket:
    """Return a socket on the address of the settings; it listens when the server has started."""
    web = settings.web
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(web.host, web.port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise ServiceError(f"cannot listen on {web.host}, port {web.port}: {error.strerror}; change [web] port") from error
    return listening


def configure(settings: Settings, opened: Services) -> uvicorn.Config:
    """Return how uvicorn is to serve."""
    web = settings.web
    config = uvicorn.Config(
        create(opened),
        log_config=None,
        access_log=False,  # paths hold UIDs
        server_header=False,
        ws="websockets-sansio",
        ws_max_size=1 << 16,  # a subscriber has nothing to say
        loop="asyncio",
        timeout_graceful_shutdown=STOP_LIMIT,
        proxy_headers=False,
        ssl_certfile=web.tls.certificate if web.tls else None,
        ssl_keyfile=web.tls.private_key if web.tls else None,
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    try:
        config.load()
    except OSError as error:
        raise ServiceError(
            "the files of [web] tls cannot be used; check that certificate and private_key are PEM and readable"
        ) from error
    # The handshake is made by the connection itself, which is counted and bounded before.
    door = Door(
        Limits(
            web.max_connections,
            web.max_peer_connections,
            settings.internal.web_header_timeout,
            settings.internal.web_body_timeout,
            web.trusted_proxies,
        )
    )
    config.http_protocol_class = partial(Connection, door, config.ssl)  # type: ignore[assignment]  # uvicorn only calls it
    config.ssl = None
    return config


class Server(uvicorn.Server):
    """Says when it is ready."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        await super().startup(sockets)
        if self.started:
            self._ready()
