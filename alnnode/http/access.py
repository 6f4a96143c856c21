"""Identify clients: bearer tokens of the settings or of an OpenID Connect issuer, and browser sessions."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from base64 import b64decode
from binascii import Error as Base64Error
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING

from alnnode.errors import SettingsError
from alnnode.http.rate_limits import RequestRateLimit, WrongTokenLimit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from alnnode.http.oidc import OidcVerifier
    from alnnode.settings import Oidc, Web, WebToken

SESSION_COOKIE = "alnnode_session"
UNKNOWN_USER = "unknown"  # the name of an unknown client in the audit trail
MIN_SECRET = 16  # characters


@dataclass(frozen=True, slots=True)
class Principal:
    """The client of a request.

    Attributes:
        name: the name of its token.
        roles: send, read and admin, as far as the token has them.
        session: the cookie of its browser session; empty if it has none.
        by_cookie: whether the cookie of a session, and no token in the request, identified the client.
    """

    name: str
    roles: frozenset[str]
    session: str = ""
    by_cookie: bool = False

    def has_role(self, role: str) -> bool:
        """Return whether the client may use routes of this role; an administrator may use all routes."""
        return role in self.roles or "admin" in self.roles


class AccessControl:
    """The tokens of the settings, the browser sessions, and the limits by client."""

    def __init__(self, settings: Web, request_rate: float) -> None:
        self._tokens = {_digest(token): token for token in settings.tokens}
        self._reserved = {token.name.casefold() for token in settings.tokens} | {"stow", UNKNOWN_USER}
        self._session_seconds = settings.session_hours * 3600
        self._key = secrets.token_bytes(32)  # a new key at each start: a restart ends all sessions
        self._ended: dict[str, float] = {}  # sessions that were logged out, each with the latest time at which it could expire
        self.wrong_tokens = WrongTokenLimit()
        self.open = not settings.tokens and settings.oidc is None
        self.oidc = None if settings.oidc is None else _verifier(settings.oidc)
        self.request_rate = RequestRateLimit(request_rate)
        self.secure = settings.tls is not None or settings.public_url.startswith("https:")

    def by_secret(self, secret: str) -> Principal | None:
        """Return the owner of a token of the settings; None if no token has this secret."""
        given = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
        # Digests are compared in constant time, so the duration reveals nothing about the secret.
        token = next((token for known, token in self._tokens.items() if hmac.compare_digest(known, given)), None)
        return None if token is None else Principal(token.name, frozenset(token.roles))

    def _by_issuer(self, token: str) -> Principal | None:
        """Return the owner of a token of the OpenID Connect issuer; None if the token is not valid."""
        verified = None if self.oidc is None else self.oidc.verify(token)
        if verified is None:
            return None
        name, roles = verified
        # Routes, limits and the audit trail identify senders by name: a name of the issuer must not equal one of the settings.
        if name.casefold() in self._reserved:
            name = f"oidc_{name}"[:16]
        return None if name.casefold() in self._reserved else Principal(name, roles)

    def begin_session(self, name: str) -> str:
        """Return the cookie of a new session."""
        value = f"{name}.{int(time.time() + self._session_seconds)}.{secrets.token_hex(8)}"
        return f"{value}.{self._sign('session', value)}"

    def end_session(self, session: str) -> None:
        """End a session: from now on its cookie is refused, including every copy of it."""
        if self._name_of(session) is not None:
            now = time.time()
            self._ended = {cookie: expires for cookie, expires in self._ended.items() if expires > now}
            self._ended[session] = now + self._session_seconds

    def csrf_token(self, session: str) -> str:
        """Return the token that every form of this session must contain (protection against cross-site request forgery)."""
        return self._sign("csrf", session)

    def identify(self, headers: Mapping[str, str]) -> Principal | None:
        """Return the client that sends these headers; None if it is unknown."""
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.by_secret(secret.strip()) or self._by_issuer(secret.strip())
        if scheme.lower() == "basic":  # for clients that support only Basic: any user name, and the token as the password
            return self.by_secret(_password(secret))
        session = _session_cookie(headers.get("cookie", ""))
        if self.open:
            return Principal("STOW", frozenset({"admin"}), session if self._name_of(session) else "")
        name = self._name_of(session)
        token = next((token for token in self._tokens.values() if token.name == name), None)
        return None if token is None else Principal(token.name, frozenset(token.roles), session, by_cookie=True)

    def _name_of(self, session: str) -> str | None:
        """Return the token name of a session; None if the cookie is forged, expired or logged out."""
        value, _, signature = session.rpartition(".")
        if not hmac.compare_digest(self._sign("session", value), signature):
            return None
        name, expires, _ = value.split(".")
        return name if int(expires) > time.time() and session not in self._ended else None

    def _sign(self, purpose: str, value: str) -> str:
        return hmac.new(self._key, f"{purpose}:{value}".encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()


def _digest(token: WebToken) -> str:
    """Return the SHA-256 of a token.

    Raises:
        SettingsError: the secret cannot be read, or is too short.
    """
    if token.sha256:
        return token.sha256
    try:
        secret = token.file.read_text(encoding="utf-8") if token.file is not None else os.environ.get(token.env, "")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"web.tokens {token.name}: its file cannot be read; check the path and its permissions") from error
    if len(secret.strip()) < MIN_SECRET:
        raise SettingsError(
            f"web.tokens {token.name}: the secret is missing or has fewer than {MIN_SECRET} characters; "
            'create one with "alnnode token"'
        )
    return hashlib.sha256(secret.strip().encode()).hexdigest()


def _verifier(settings: Oidc) -> OidcVerifier:
    from alnnode.http.oidc import OidcVerifier  # noqa: PLC0415 - a service without [web.oidc] starts without its libraries

    return OidcVerifier(settings)


def _password(value: str) -> str:
    try:
        return b64decode(value, validate=True).decode("utf-8").partition(":")[2]
    except (Base64Error, UnicodeDecodeError):
        return ""


def _session_cookie(header: str) -> str:
    try:
        morsel = SimpleCookie(header).get(SESSION_COOKIE)
    except CookieError:
        return ""
    value = "" if morsel is None else morsel.value
    return value if value.isascii() else ""
