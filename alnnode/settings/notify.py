"""Section ``[notify]``: who is told of a failing destination, failed jobs, a full disk, a missing worker or a drift."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from alnnode.settings.section import Host, Port, Seconds, Section
from alnnode.settings.tls import ClientTls

MailAddress = Annotated[str, Field(pattern=r"^[^@\s,<>]+@[^@\s,<>]+$", description="a mail address")]


class Webhook(Section):
    """A URL that the node sends each message to by POST, signed with a secret that both know."""

    url: Annotated[
        str,
        Field(pattern=r"^https://|^http://(localhost|127\.0\.0\.1)[:/]", description="the address of the webhook, https://…"),
    ]
    secret_file: Path  # holds the secret that both sides know
    timeout: Seconds = 10
    tls: ClientTls | None = None  # None: the certificate authorities of the system

    @model_validator(mode="after")
    def _tls_needs_https(self) -> Self:
        if self.tls and (not self.url.startswith("https://") or self.tls.server_name):
            raise ValueError("tls needs a url that begins with https://, which names the server: leave server_name out")
        return self


class Mail(Section):
    """A mail server that the node submits each message to."""

    host: Host
    port: Port = 587
    # "starttls": TLS after STARTTLS (RFC 3207); "tls": TLS from the first byte (RFC 8314); "none": no TLS.
    security: Literal["starttls", "tls", "none"] = "starttls"
    sender: MailAddress
    recipients: Annotated[tuple[MailAddress, ...], Field(min_length=1, description="a mail address")]
    user: str = ""  # empty: no login
    password_file: Path | None = None
    timeout: Seconds = 20
    tls: ClientTls | None = None  # None: the certificate authorities of the system

    @model_validator(mode="after")
    def _login_is_protected(self) -> Self:
        if bool(self.user) != (self.password_file is not None):
            raise ValueError("user and password_file belong together; give both or none")
        if self.security == "none" and (self.user or self.tls):
            raise ValueError('security = "none" sends a password unencrypted, and uses no tls; choose "starttls" or "tls"')
        if self.tls and self.tls.server_name:
            raise ValueError("host names the server: leave tls.server_name out")
        return self


class Notify(Section):
    """Notifications. Without webhook and mail, the node sends none."""

    webhook: Webhook | None = None
    mail: Mail | None = None
    after: Seconds = 300  # that a destination fails, or a worker is missing, before the node tells of it
    gather: Seconds = 60  # that events are gathered for one message

    @property
    def channels(self) -> tuple[str, ...]:
        """Return the names of the ways on which messages are sent."""
        return tuple(name for name in ("webhook", "mail") if getattr(self, name) is not None)
