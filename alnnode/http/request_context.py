"""What a route needs to know of its request: the client, the URL of the service, and the origin of the page that sent it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from alnnode.http.paths import DICOMWEB

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from alnnode.http.access import AccessControl, Principal
    from alnnode.settings import Web


@dataclass(frozen=True)
class HttpServices:
    """The settings of the HTTP service and its access control; the application holds them as ``state.http``."""

    settings: Web
    access: AccessControl


def http_services(connection: HTTPConnection) -> HttpServices:
    """Return the settings and the access control of the application that answers this request."""
    return cast("HttpServices", connection.app.state.http)


def principal(connection: HTTPConnection) -> Principal:
    """Return the client of a request; the guard has refused unknown clients before."""
    return cast("Principal", connection.state.principal)


def service_url(connection: HTTPConnection) -> str:
    """Return the URL of the DICOMweb service, without a slash at the end.

    It is ``public_url`` of the settings, or else the address at which the request arrived. The Host header of the client is not used: its value
    would be written into responses that other clients store.
    """
    configured = http_services(connection).settings.public_url
    return f"{configured or _server_url(connection)}{DICOMWEB}"


def _server_url(connection: HTTPConnection) -> str:
    host, port = connection.scope.get("server") or ("127.0.0.1", None)
    if connection.headers.get("host", "").partition(":")[0] == "localhost" and host in {"127.0.0.1", "::1"}:
        host = "localhost"  # the same address, but for a browser another origin
    scheme = {"ws": "http", "wss": "https"}.get(connection.scope["scheme"], connection.scope["scheme"])
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{host}" if port in {None, 80 if scheme == "http" else 443} else f"{scheme}://{host}:{port}"


def is_cross_site(connection: HTTPConnection) -> bool:
    """Return whether a page of another site sends this request.

    Without tokens, the browser of a user at this machine would be enough for cross-site request forgery.
    """
    origin = connection.headers.get("origin")
    if origin is None or origin in http_services(connection).settings.cors_origins:
        return False
    return origin.partition("://")[2].lower() != connection.headers.get("host", "").lower()
