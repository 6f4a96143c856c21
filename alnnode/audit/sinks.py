"""Send audit messages to a syslog server over TLS (RFC 5425) or UDP (RFC 5426), or write them to a file (PS3.15 sections A.6 and A.7)."""

from __future__ import annotations

import errno
import os
import select
import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from alnnode.errors import ServiceError
from alnnode.tls import client_context

if TYPE_CHECKING:
    import ssl

    from alnnode.settings import AuditFile, AuditTls, AuditUdp

SECONDS = 10.0  # to connect, and again to hand each message to the network
FACILITY = 10  # security and authorization
NOTICE, WARNING = 5, 4
LARGEST_DATAGRAM = 65_507 - 8  # bytes; below the limit of UDP over IPv4


class Sink(Protocol):
    """Sends audit messages one by one."""

    def send(self, message: bytes) -> None:
        """Send the XML of one message.

        Raises:
            OSError, ServiceError: the message cannot be sent now.
        """

    def reach(self) -> str:
        """Check whether messages can be sent, without sending one; return a short text about the target.

        Raises:
            OSError, ServiceError: messages cannot be sent now.
        """

    def close(self) -> None:
        """Close connections and files."""


def open_sink(audit: AuditFile | AuditTls | AuditUdp, app_name: str) -> Sink:
    """Return the sink that the settings choose; it does not connect yet. ``app_name`` is the APP-NAME of RFC 5424."""
    if audit.kind == "file":
        return FileSink(audit)
    return TlsSyslog(audit, app_name) if audit.kind == "tls" else UdpSyslog(audit, app_name)


def syslog(message: bytes, app_name: str) -> bytes:
    """Return a message in the syslog format (RFC 5424 section 6), with the header fields of PS3.15 section A.6."""
    severity = NOTICE if b'EventOutcomeIndicator="0"' in message else WARNING
    moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    host = socket.gethostname()[:255] or "-"
    name = "".join(letter for letter in app_name if "!" <= letter <= "~")[:48] or "-"
    head = f"<{FACILITY * 8 + severity}>1 {moment} {host} {name} {os.getpid()} DICOM+RFC3881 - "
    return head.encode("ascii", "replace") + b"\xef\xbb\xbf" + message  # the byte order mark announces UTF-8


class TlsSyslog:
    """Syslog over one TLS connection that stays open; the length precedes each message (RFC 5425 section 4.3)."""

    def __init__(self, audit: AuditTls, app_name: str) -> None:
        self._audit, self._name = audit, app_name
        self._connection: ssl.SSLSocket | None = None

    def send(self, message: bytes) -> None:
        """See `Sink.send`. Syslog has no response: messages in the network are lost when the server stops."""
        framed = syslog(message, self._name)
        try:
            self._open().sendall(f"{len(framed)} ".encode("ascii") + framed)
        except OSError:
            self.close()
            raise

    def reach(self) -> str:
        """See `Sink.reach`."""
        try:
            version = self._open().version()
        finally:
            self.close()
        return f"{self._audit.host}:{self._audit.port} answers with {version}"

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> ssl.SSLSocket:
        if self._connection is not None and _was_closed(self._connection):
            self.close()
        if self._connection is None:
            settings = self._audit.tls
            plain = socket.create_connection((self._audit.host, self._audit.port), SECONDS)
            try:
                name = settings.server_name or self._audit.host
                self._connection = client_context(settings).wrap_socket(plain, server_hostname=name)
            except (OSError, ServiceError):
                plain.close()
                raise
        return self._connection


def _was_closed(connection: ssl.SSLSocket) -> bool:
    """Return whether the server closed the connection: a syslog server sends nothing else."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    if not poll.poll(0):
        return False
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError as error:
        return type(error).__name__ not in {"SSLWantReadError", "SSLWantWriteError"}
    finally:
        connection.settimeout(SECONDS)


class UdpSyslog:
    """Syslog with one datagram for each message; UDP does not report whether it arrives."""

    def __init__(self, audit: AuditUdp, app_name: str) -> None:
        self._audit, self._name = audit, app_name

    def send(self, message: bytes) -> None:
        """See `Sink.send`."""
        family, kind, protocol, _, address = self._resolved()
        with socket.socket(family, kind, protocol) as sending:
            sending.sendto(syslog(message, self._name)[:LARGEST_DATAGRAM], address)

    def reach(self) -> str:
        """See `Sink.reach`."""
        return f"{self._resolved()[4][0]}, port {self._audit.port}; UDP does not report whether a server listens"

    def _resolved(self) -> Any:
        return socket.getaddrinfo(self._audit.host, self._audit.port, type=socket.SOCK_DGRAM)[0]

    def close(self) -> None:
        """Do nothing: nothing stays open."""


class FileSink:
    """A file with one message on each line, which only its owner may read."""

    def __init__(self, audit: AuditFile) -> None:
        self._path = audit.file

    def reach(self) -> str:
        """See `Sink.reach`."""
        os.close(self._open())
        return f"{self._path} can be written"

    def send(self, message: bytes) -> None:
        """See `Sink.send`. Each message opens the file again, so that the file may be rotated."""
        with os.fdopen(self._open(), "ab", buffering=0) as file:
            before = os.fstat(file.fileno()).st_size
            if file.write(message + b"\n") <= len(
                message
            ):  # the disk is full: the sender will write the complete message again
                file.truncate(before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def close(self) -> None:
        """Do nothing: nothing stays open."""
