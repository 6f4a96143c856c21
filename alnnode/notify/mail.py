"""Submit messages to a mail server (RFC 6409), with STARTTLS and login where the settings say so."""

from __future__ import annotations

import smtplib
import socket
import ssl
from typing import TYPE_CHECKING

from alnnode.errors import ServiceError
from alnnode.notify.text import mail
from alnnode.tls import client_context

if TYPE_CHECKING:
    from alnnode.notify.outbox import Message
    from alnnode.settings import Mail


class MailChannel:
    """Sends to the recipients in the settings."""

    def __init__(self, settings: Mail, node: str) -> None:
        self._settings, self._node = settings, node

    def send(self, message: Message) -> None:
        """Send a message.

        Raises:
            ServiceError: the server did not accept it for any recipient; the text says why and what to do.
        """
        try:
            with self._connected() as server:
                refused = server.send_message(
                    mail(message, self._node, self._settings), self._settings.sender, list(self._settings.recipients)
                )
        except UnicodeError:
            raise ServiceError("mail: the server takes no user or password that is not ASCII: choose others") from None
        except (OSError, smtplib.SMTPException) as error:
            raise ServiceError(f"mail: {self._words(error)}") from None  # the texts of the server are its own
        if refused:
            raise ServiceError(f"mail: the server refuses {len(refused)} of the recipients: correct [notify] mail recipients")

    def _connected(self) -> smtplib.SMTP:
        settings = self._settings
        context = client_context(settings.tls) if settings.tls else ssl.create_default_context()
        own_name = settings.sender.rpartition("@")[2]  # of EHLO; without it, smtplib asks the DNS server, which may be away
        if settings.security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                settings.host, settings.port, own_name, timeout=settings.timeout, context=context
            )
        else:
            server = smtplib.SMTP(settings.host, settings.port, own_name, timeout=settings.timeout)
        try:
            if settings.security == "starttls":
                server.starttls(context=context)
            if settings.password_file is not None:
                server.login(settings.user, self._password())
        except BaseException:
            server.close()
            raise
        return server

    def _password(self) -> str:
        assert self._settings.password_file is not None  # the caller looks
        try:
            return self._settings.password_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            words = f"mail: cannot read password_file {self._settings.password_file} ({type(error).__name__}): check its path and owner"
            raise ServiceError(words) from error

    def _words(self, error: OSError | smtplib.SMTPException) -> str:
        """Return what happened and what to do, without the text of the server."""
        where = f"{self._settings.host}:{self._settings.port}"
        cases: tuple[tuple[type[Exception], str], ...] = (
            (socket.gaierror, f"cannot resolve host {self._settings.host}: check [notify] mail host and the DNS server"),
            (ConnectionRefusedError, f"{where} refuses connections: check host and port, and that the mail server runs"),
            (TimeoutError, f"{where} does not answer within {self._settings.timeout:g} s: check host, port and firewall"),
            (
                ssl.SSLCertVerificationError,
                f"the certificate of {where} is not valid for it: check host, and tls = {{ ca = … }}",
            ),
            (ssl.SSLError, f"no TLS connection with {where}: check port and security"),
            (
                smtplib.SMTPNotSupportedError,
                f'{where} offers no STARTTLS or no login: check security ("tls" for port 465) and user',
            ),
            (smtplib.SMTPAuthenticationError, f"{where} does not accept user and password: correct user and password_file"),
            (smtplib.SMTPSenderRefused, f"{where} refuses the sender {self._settings.sender}: correct sender, or add user"),
            (smtplib.SMTPRecipientsRefused, f"{where} refuses every recipient: correct recipients, or add user"),
            (smtplib.SMTPServerDisconnected, f"{where} closed the connection: check port and security"),
            (
                smtplib.SMTPResponseException,
                f"{where} answers {getattr(error, 'smtp_code', '')}: read the log of the mail server",
            ),
        )
        for kind, words in cases:
            if isinstance(error, kind):
                return words
        return f"no connection with {where} ({type(error).__name__}): check host, port and network"
