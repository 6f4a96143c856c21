"""What a fault of the network, of TLS, of an HTTP server or of a file means, in words, with what to do.

Each text has the form "fault: advice". It ends in logs, in the job list and on the status page, beside the name of the destination or archive. It never holds the text of a
library's error, which may quote a URL or a path.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from http import HTTPStatus
from typing import Final

_NO_ROUTE: Final = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN}
_CLOSED: Final = {errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED}
PROBE_SECONDS: Final = 3.0
NO_DICOM: Final = "check that its port is that of a DICOM service, and that TLS is on at both or at neither"


def network_words(error: BaseException, host: str, port: int) -> str:
    """Return what an error of a connection to a host means, and what to do. The cause of the error may be the one that counts."""
    known = (_words(one, host, f"{host}:{port}") for one in _causes(error))
    unknown = f"no connection with {host}:{port} ({type(error).__name__}): check its host and port in the settings"
    return next((words for words in known if words), unknown)


def _words(error: BaseException, host: str, where: str) -> str | None:
    words = None
    match error:
        case socket.gaierror():
            words = f"cannot resolve host {host}: check the host in the settings, and the DNS server"
        case ssl.SSLCertVerificationError():
            reason = error.verify_message.rstrip(".")
            words = f"no TLS connection with {where} ({reason}): check tls ca, the name in the certificate of the peer, and its date"
        case ssl.SSLError():
            reason = (error.reason or "the handshake failed").lower().replace("_", " ")
            words = (
                f"no TLS connection with {where} ({reason}): check that the peer uses TLS and accepts this node's certificate"
            )
        case ConnectionRefusedError():
            words = f"nothing listens on {where}: check that the peer runs, and its host and port in the settings"
        case TimeoutError():
            words = f"no answer from {where}: check its address, and the firewalls between this node and it"
        case OSError(errno=number) if number in _NO_ROUTE:
            words = f"no route to {host}: check its address, and the network of this machine"
        case OSError(errno=number) if number in _CLOSED:
            words = f"{where} closed the connection: check that it is the right service, and read its log"
    return words


def _causes(error: BaseException | None) -> list[BaseException]:
    """Return the error and its causes, the first cause first."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.insert(0, error)
        error = error.__cause__ or error.__context__
    return found


def resolve_words(host: str, port: int) -> str | None:
    """Return the words for a host that cannot be resolved; None when it can."""
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return network_words(error, host, port)
    return None


def probe_words(host: str, port: int, timeout: float) -> str | None:
    """Connect once more to learn why no connection was possible; return the words, None when a connection is possible now."""
    try:
        socket.create_connection((host, port), min(timeout, PROBE_SECONDS)).close()
    except OSError as error:
        return network_words(error, host, port)
    return None


_HTTP: Final = {
    HTTPStatus.UNAUTHORIZED: ("the server does not accept the token", "check token_file or oauth2"),
    HTTPStatus.FORBIDDEN: ("the server does not allow this node to store", "ask its administrator for the right"),
    HTTPStatus.NOT_FOUND: ("the server has no DICOMweb service there", "check the url"),
    HTTPStatus.METHOD_NOT_ALLOWED: ("the server takes no objects there", "check the url"),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: ("too large for the server or a proxy", "raise the limit there"),
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: ("the server takes no DICOM objects there", "check the url"),
    HTTPStatus.TOO_MANY_REQUESTS: ("the server limits requests", "wait; the node tries again later"),
    HTTPStatus.BAD_GATEWAY: ("the proxy does not reach the server", "check that the server runs"),
    HTTPStatus.SERVICE_UNAVAILABLE: ("the server is not ready", "check that it runs"),
    HTTPStatus.GATEWAY_TIMEOUT: ("the proxy had no answer from the server in time", "check that the server runs"),
    HTTPStatus.INSUFFICIENT_STORAGE: ("the server has no space left", "free space there"),
}
_SERVER_FAULT: Final = ("the server failed", "read its log")
_REQUEST_FAULT: Final = ("the server refuses the request", "check the url and the access rights")


def http_words(status: int) -> str:
    """Return an HTTP status with its meaning, and what to do."""
    other = _SERVER_FAULT if status >= HTTPStatus.INTERNAL_SERVER_ERROR else _REQUEST_FAULT
    meaning, advice = _HTTP.get(status, other)  # type: ignore[call-overload]  # an IntEnum is found by its number
    return f"HTTP {status} ({meaning}): {advice}"


def file_words(error: OSError) -> str:
    """Return what an error of an outbox file means, and what to do."""
    reason = os.strerror(error.errno) if error.errno else type(error).__name__
    advice = (
        "restore the spool, or retry the job, which analyses the series again"
        if error.errno == errno.ENOENT
        else "check the disk of data_dir, its mount and its permissions"
    )
    return f"an outbox file cannot be read ({reason}): {advice}"
