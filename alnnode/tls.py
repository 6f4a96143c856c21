"""DICOM TLS after the BCP 195 profiles (PS3.15 B.9 to B.12; RFC 9325): contexts for servers and clients.

Only TLS 1.2 and 1.3; of TLS 1.2 the four cipher suites that RFC 9325 section 4.2 recommends, with forward secrecy and authentication.
"""

from __future__ import annotations

import ssl
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from alnnode.errors import ServiceError, TlsRefused

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from alnnode.settings import ClientTls, ListenerTls

SUITES = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
)

log = structlog.get_logger()


def server_context(settings: ListenerTls) -> ssl.SSLContext:
    """Return the context of the listener.

    Raises:
        ServiceError: a certificate, key or CA file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    # No session is resumed: a resumed session would not check the certificate again.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    _load_own(context, settings.certificate, settings.private_key)
    if settings.mutual:
        assert settings.ca is not None  # the settings require it
        _load_ca(context, settings.ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(settings: ClientTls) -> ssl.SSLContext:
    """Return the context for one server: its certificate and its name are always checked.

    Raises:
        ServiceError: a certificate, key or CA file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _harden(context)
    _load_ca(context, settings.ca)
    if settings.certificate is not None and settings.private_key is not None:
        _load_own(context, settings.certificate, settings.private_key)
    return context


def _harden(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(":".join(SUITES))
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION


def check_pair(certificate: Path, private_key: Path) -> None:
    """Check that a certificate and a key belong together, and that the key has no password.

    Raises:
        ServiceError: they cannot be used.
    """
    _load_own(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate, private_key)


def _load_own(context: ssl.SSLContext, certificate: Path, private_key: Path) -> None:
    def no_password() -> str:
        raise ServiceError(f"{private_key} is encrypted; store the key without a password in a file with mode 0600")

    try:
        context.load_cert_chain(certificate, private_key, no_password)
    except OSError as error:  # ssl.SSLError is one
        if "PEM lib" in str(error):  # OpenSSL gives no reason
            raise ServiceError(
                f"{certificate} is no certificate, or {private_key} is no private key: are they exchanged?"
            ) from error
        raise ServiceError(f"cannot use {certificate} and {private_key} as certificate and key: {_describe(error)}") from error


def _load_ca(context: ssl.SSLContext, ca: Path) -> None:
    try:
        context.load_verify_locations(ca)
    except OSError as error:
        raise ServiceError(f"cannot use {ca} as certificate authority ({_describe(error)}): correct tls ca") from error


def _describe(error: OSError) -> str:
    """Return the reason that OpenSSL or the operating system gives."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    reason = getattr(error, "reason", None)
    return reason.lower().replace("_", " ") if isinstance(reason, str) else error.strerror or type(error).__name__


class ReloadingServerContext:
    """The context of the listener, made again when a file changes: a renewed certificate is used from the next connection on.

    When the changed files cannot be used, the last good context stays, and the log says why.
    """

    def __init__(self, settings: ListenerTls) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._seen = self._stamps()
        self._context = server_context(settings)

    def accept(self, connection: socket.socket, seconds: float) -> ssl.SSLSocket:
        """Make the handshake within ``seconds``, and return the encrypted connection.

        Raises:
            TlsRefused: the handshake failed, or the peer is not in peer_names; the connection is closed.
        """
        connection.settimeout(seconds)
        try:
            encrypted = self._current().wrap_socket(connection, server_side=True)
        except (OSError, ValueError) as error:
            connection.close()
            reason = _describe(error) if isinstance(error, OSError) else "no handshake"
            raise TlsRefused(reason) from error
        names = self._settings.peer_names
        if names and not names_of(encrypted.getpeercert() or {}) & {name.lower() for name in names}:
            encrypted.close()
            raise TlsRefused("the certificate names no peer of peer_names")
        return encrypted

    def _current(self) -> ssl.SSLContext:
        with self._lock:
            stamps = self._stamps()
            if stamps != self._seen:
                self._seen = stamps
                try:
                    self._context = server_context(self._settings)
                except ServiceError as error:
                    log.error("certificate_not_reloaded", error=str(error))  # noqa: TRY400 - the message is complete
                else:
                    log.info("certificate_reloaded")
            return self._context

    def _stamps(self) -> tuple[tuple[int, int, int] | None, ...]:
        settings = self._settings
        return tuple(_stamp(path) for path in (settings.certificate, settings.private_key, settings.ca) if path is not None)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def names_of(certificate: Mapping[str, object]) -> set[str]:
    """Return the DNS names and common names of a peer's certificate in lower case."""
    names = certificate.get("subjectAltName", ())
    subject = certificate.get("subject", ())
    assert isinstance(names, tuple)
    assert isinstance(subject, tuple)
    found = {value for kind, value in names if kind == "DNS"}
    found |= {value for part in subject for key, value in part if key == "commonName"}
    return {name.lower() for name in found}


def record_failures(context: ssl.SSLContext) -> Callable[[], str | None]:
    """Let ``context`` record why a handshake failed, for libraries that drop the reason; return a function that returns the last one."""
    reasons: list[str] = []

    class Socket(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            try:
                super().do_handshake(block)
            except OSError as error:
                reasons.append(_describe(error))
                raise

    context.sslsocket_class = Socket
    return lambda: reasons[-1] if reasons else None


def expiry(certificate: Path) -> datetime:
    """Return when the first certificate of a PEM file expires.

    Raises:
        ServiceError: the file holds no certificate.
    """
    from cryptography import x509  # noqa: PLC0415 - only `alnnode check` asks

    try:
        return x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc.astimezone(UTC)
    except (OSError, ValueError) as error:
        raise ServiceError(f"no certificate in {certificate} ({type(error).__name__})") from error
