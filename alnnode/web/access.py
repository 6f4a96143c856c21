"""Who may do what: tokens with roles, browser sessions, and one guard in front of every route.

The guard refuses whatever it was not told to let through. Without any token the service listens on loopback only (`settings.Web` sees
to that), and the guard lets only requests to a loopback name in: a page from elsewhere that makes its own name point to this
machine (DNS rebinding) gets nothing.
"""

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
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse

from alnnode.errors import SettingsError
from alnnode.web.oidc import Verifier

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Receive, Scope, Send

    from alnnode.settings import Web, WebToken

COOKIE = "alnnode_session"
NOBODY = "unknown"  # in the audit trail
PUBLIC = ("/health/", "/login", "/static/")
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
BURST = 10.0  # seconds' worth of requests that may come at once
FAILURES, WINDOW = 20, 60.0  # wrong secrets from one address, and seconds, before it has to wait


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. ``name`` is that of the token; ``by_cookie`` tells a browser's session from a token in the request."""

    name: str
    roles: frozenset[str]
    session: str = ""
    by_cookie: bool = False

    def may(self, role: str) -> bool:
        """Whether the roles allow this; an administrator may do everything."""
        return role in self.roles or "admin" in self.roles


class Access:
    """The tokens of the settings, and the sessions that were begun with them."""

    def __init__(self, settings: Web, request_rate: float) -> None:
        self._tokens = {_digest(token): token for token in settings.tokens}
        self._reserved = {token.name.casefold() for token in settings.tokens} | {"stow", NOBODY}
        self._seconds = settings.session_hours * 3600
        self._key = secrets.token_bytes(32)  # a restart ends the sessions
        self._ended: dict[str, float] = {}  # sessions that were left, until they would have ended by themselves
        self.throttle = Throttle()
        self.open = not settings.tokens and settings.oidc is None
        self.oidc = None if settings.oidc is None else Verifier(settings.oidc)
        self.rate = Rate(request_rate)
        self.secure = settings.tls is not None or settings.public_url.startswith("https:")

    def by_secret(self, secret: str) -> Principal | None:
        """Return whose token this is."""
        given = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
        # Digests are compared, so the time that it takes says nothing of the secret.
        token = next((token for known, token in self._tokens.items() if hmac.compare_digest(known, given)), None)
        return None if token is None else Principal(token.name, frozenset(token.roles))

    def _by_issuer(self, token: str) -> Principal | None:
        """Return whom the OpenID Connect issuer says that the bearer of this token is."""
        found = None if self.oidc is None else self.oidc.check(token)
        if found is None:
            return None
        name, roles = found
        # Routes, limits and the audit trail know senders by name: the issuer's must not pass for one of the settings.
        if name.casefold() in self._reserved:
            name = f"oidc_{name}"[:16]
        return None if name.casefold() in self._reserved else Principal(name, roles)

    def session(self, name: str) -> str:
        """Return the cookie of a new session."""
        value = f"{name}.{int(time.time() + self._seconds)}.{secrets.token_hex(8)}"
        return f"{value}.{self._sign('session', value)}"

    def end(self, session: str) -> None:
        """End a session: its cookie is good for nothing from now on, wherever a copy of it lies."""
        if self._name_of(session) is not None:
            now = time.time()
            self._ended = {one: ends for one, ends in self._ended.items() if ends > now}
            self._ended[session] = now + self._seconds

    def csrf(self, session: str) -> str:
        """Return what every form of this session must send along."""
        return self._sign("csrf", session)

    def identify(self, headers: Mapping[str, str]) -> Principal | None:
        """Return who sends these headers; None when nobody who is known."""
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.by_secret(secret.strip()) or self._by_issuer(secret.strip())
        if scheme.lower() == "basic":  # for clients that know no other way: any user name, the token as password
            return self.by_secret(_password(secret))
        session = _cookie(headers.get("cookie", ""))
        if self.open:
            return Principal("STOW", frozenset({"admin"}), session if self._name_of(session) else "")
        name = self._name_of(session)
        token = next((token for token in self._tokens.values() if token.name == name), None)
        return None if token is None else Principal(token.name, frozenset(token.roles), session, by_cookie=True)

    def _name_of(self, session: str) -> str | None:
        value, _, signature = session.rpartition(".")
        if not hmac.compare_digest(self._sign("session", value), signature):
            return None
        name, ends, _ = value.split(".")
        return name if int(ends) > time.time() and session not in self._ended else None

    def _sign(self, purpose: str, value: str) -> str:
        return hmac.new(self._key, f"{purpose}:{value}".encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()


def _digest(token: WebToken) -> str:
    if token.sha256:
        return token.sha256
    try:
        secret = token.file.read_text(encoding="utf-8") if token.file is not None else os.environ.get(token.env, "")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"web.tokens {token.name}: its file cannot be read; check the path and its permissions") from error
    if len(secret.strip()) < 16:
        raise SettingsError(f'web.tokens {token.name}: no secret of 16 or more characters there; "alnnode token" makes one')
    return hashlib.sha256(secret.strip().encode()).hexdigest()


def _password(value: str) -> str:
    try:
        return b64decode(value, validate=True).decode("utf-8").partition(":")[2]
    except (Base64Error, UnicodeDecodeError):
        return ""


def _cookie(header: str) -> str:
    try:
        morsel = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    value = "" if morsel is None else morsel.value
    return value if value.isascii() else ""


class Throttle:
    """Counts wrong secrets by address; knows nothing of right ones."""

    def __init__(self) -> None:
        self._wrong: dict[str, list[float]] = {}

    def wrong(self, address: str) -> None:
        """Count one."""
        if len(self._wrong) > 10_000:
            self._wrong.clear()
        self._wrong.setdefault(address, []).append(time.monotonic())

    def blocked(self, address: str) -> bool:
        """Whether this address has to wait."""
        recent = [at for at in self._wrong.get(address, ()) if at > time.monotonic() - WINDOW]
        if address in self._wrong:
            self._wrong[address] = recent[-FAILURES:]
        return len(recent) >= FAILURES


class Rate:
    """A bucket of tokens for each client: so many requests in a second, and ten seconds' worth at once."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._left: dict[str, tuple[float, float]] = {}  # tokens, and when they were counted

    def allows(self, client: str) -> bool:
        """Take a token; whether there was one."""
        now, burst = time.monotonic(), max(1.0, self._rate * BURST)
        if len(self._left) > 10_000:
            self._left.clear()
        tokens, counted = self._left.get(client, (burst, now))
        tokens = min(burst, tokens + (now - counted) * self._rate)
        self._left[client] = (tokens - 1 if tokens >= 1 else tokens), now
        return tokens >= 1


class Guard:
    """ASGI middleware in front of everything: puts a `Principal` into the scope, or answers 401."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access, self._throttle = app, access, access.throttle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let through, or answer."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        address = (scope.get("client") or ("",))[0]
        answer = self._wrong_name(headers)
        if answer is None:
            # An issuer's keys may have to be fetched.
            identify = self._access.identify
            principal = await run_in_threadpool(identify, headers) if self._access.oidc else identify(headers)
            answer = self._too_fast(principal, address)
            scope.setdefault("state", {}).update(principal=principal, too_fast=answer is not None)
            answer = answer or self._unknown(scope, headers, address, principal)
        if answer is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await answer(scope, receive, send)

    def _wrong_name(self, headers: Headers) -> ASGIApp | None:
        """Refuse whatever the request holds."""
        if self._access.open and _host_name(headers.get("host", "")) not in LOOPBACK_NAMES:
            return PlainTextResponse("this name is not served; set [[web.tokens]] or [web.oidc] to be reached by another", 421)
        return None

    def _too_fast(self, principal: Principal | None, address: str) -> ASGIApp | None:
        """Refuse a client, by its token or else its address, that asks more often than it may."""
        client = address if principal is None or self._access.open else f"token {principal.name}"
        if self._access.rate.allows(client):
            return None
        return PlainTextResponse("more requests in a second than this node takes of one client", 429, {"Retry-After": "1"})

    def _unknown(self, scope: Scope, headers: Headers, address: str, principal: Principal | None) -> ASGIApp | None:
        """Refuse who is not known. A right token passes, however many wrong ones came from its address: others share it."""
        if principal is not None or scope["path"].startswith(PUBLIC):
            return None
        if self._throttle.blocked(address):
            return PlainTextResponse("too many wrong tokens; wait a minute", 429, {"Retry-After": "60"})
        if "authorization" in headers:
            self._throttle.wrong(address)
        elif scope["type"] == "http" and scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            return RedirectResponse(f"/login?next={quote(scope['path'], safe='/')}", 303)
        return PlainTextResponse("a token is needed", 401, {"WWW-Authenticate": 'Bearer realm="alnnode"'})


def _host_name(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()
