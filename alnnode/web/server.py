"""Serve the application with uvicorn until SIGTERM or SIGINT."""

from __future__ import annotations

import logging
import socket
from functools import partial
from typing import TYPE_CHECKING

import structlog
import uvicorn

from alnnode.errors import ServiceError
from alnnode.http.http_connection import HttpConnection
from alnnode.http.http_connection_limits import HttpConnectionLimiter, HttpConnectionLimits
from alnnode.receive.library_logging import silence_libraries
from alnnode.web.app import create
from alnnode.web.services import WebServices

if TYPE_CHECKING:
    from collections.abc import Callable

    from alnnode.settings import Settings

STOP_LIMIT = 4  # seconds for requests in progress when the service stops

log = structlog.get_logger()


def run(settings: Settings, ready: Callable[[int], None]) -> None:
    """Serve until SIGTERM or SIGINT; call ``ready`` with the port when the service accepts connections.

    Raises:
        ServiceError: the service cannot listen on the address, or the certificate cannot be used.
        SettingsError: the secret of a token cannot be read.
    """
    silence_libraries()
    listening = listen(settings)
    services = WebServices.open(settings)
    port = listening.getsockname()[1]
    try:
        server = Server(configure(settings, services), lambda: ready(port))
        log.info("web_listening", port=port)
        server.run(sockets=[listening])
    finally:
        services.close()
        listening.close()
    log.info("web_stopped")


def listen(settings: Settings) -> socket.socket:
    """Return a socket bound to the address of the settings; the server starts to listen on it.

    Raises:
        ServiceError: the address is not available.
    """
    web = settings.web
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(web.host, web.port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise ServiceError(f"cannot listen on {web.host}, port {web.port}: {error.strerror}; change [web] port") from error
    return listening


def configure(settings: Settings, services: WebServices) -> uvicorn.Config:
    """Return the configuration of uvicorn.

    Raises:
        ServiceError: the certificate or its key cannot be used.
    """
    web = settings.web
    config = uvicorn.Config(
        create(services),
        log_config=None,
        access_log=False,  # paths contain UIDs
        server_header=False,
        ws="websockets-sansio",
        ws_max_size=1 << 16,  # bytes; messages of subscribers have no meaning
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
    # HttpConnection performs the TLS handshake itself, so that the limiter counts the connection and limits the time before.
    limiter = HttpConnectionLimiter(
        HttpConnectionLimits(
            requests=web.max_connections,
            peer_requests=web.max_peer_connections,
            head=settings.internal.web_header_timeout,
            body=settings.internal.web_body_timeout,
            proxies=web.trusted_proxies,
        )
    )
    config.http_protocol_class = partial(HttpConnection, limiter, config.ssl)  # type: ignore[assignment]  # uvicorn only calls it
    config.ssl = None
    return config


class Server(uvicorn.Server):
    """Calls ``ready`` when it accepts connections."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the server, then call ``ready``."""
        await super().startup(sockets)
        if self.started:
            self._ready()
