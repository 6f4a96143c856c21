"""Serve the application with uvicorn until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import logging
import threading
from functools import partial
from typing import TYPE_CHECKING

import structlog
import uvicorn

from alnnode.audit.repeated_events import RepeatedEvents
from alnnode.errors import ServiceError
from alnnode.http.http_connection import HttpConnection
from alnnode.http.http_connection_limits import HttpConnectionLimiter, HttpConnectionLimits
from alnnode.process.inherited_socket import WEB_FD, inherited, listen_on
from alnnode.process.supervised import DRAIN
from alnnode.receive.library_logging import silence_libraries
from alnnode.tls import check_pair
from alnnode.web.app import create
from alnnode.web.services import WebServices

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from alnnode.settings import Settings

FIRST_REQUEST = 1.0  # seconds that accepted connections have to send their first request when the service drains
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
    """Return the listening socket of the supervisor; without one, a socket at the address of the settings.

    Raises:
        ServiceError: the address is not available.
    """
    web = settings.web
    try:
        listening = inherited(WEB_FD) or listen_on(web.host, web.port, shared=False)
    except OSError as error:
        raise ServiceError(f"cannot listen on {web.host}, port {web.port}: {error.strerror}; change [web] port") from error
    return listening


class OnceAMinute(logging.Filter):
    """Drops equal warnings for a minute: each client can cause one with each request."""

    def __init__(self) -> None:
        super().__init__()
        self._repeated = RepeatedEvents(60.0)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is written."""
        return record.levelno > logging.WARNING or self._repeated.is_first(record.msg)


def configure(settings: Settings, services: WebServices) -> uvicorn.Config:
    """Return the configuration of uvicorn.

    Raises:
        ServiceError: the certificate or its key cannot be used.
    """
    web = settings.web
    if web.tls is not None:
        check_pair(web.tls.certificate, web.tls.private_key)  # uvicorn would ask a terminal for the password of a key
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
    logging.getLogger("uvicorn.error").addFilter(OnceAMinute())
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
            if threading.current_thread() is threading.main_thread():
                asyncio.get_running_loop().add_signal_handler(DRAIN, self._begin_draining)
            self._ready()

    def _begin_draining(self) -> None:
        """Accept no more connections, and end when the requests in progress have ended: a successor serves on the same socket."""
        log.info("web_drains", connections=len(self.server_state.connections))
        self.config.timeout_graceful_shutdown = None
        for server in self.servers:
            server.close()
        # Idle connections are closed at the end; one that was just accepted first sends its request.
        asyncio.get_running_loop().call_later(FIRST_REQUEST, self._end)

    def _end(self) -> None:
        self.should_exit = True
