"""Bearer tokens (RFC 6750) for DICOMweb servers: from a file, or by OAuth 2 client credentials (RFC 6749 section 4.4)."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import httpx

from alnnode.clients.faults import network_words
from alnnode.errors import DeliveryError, DeliveryRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from alnnode.settings import OAuth2

MARGIN = 30.0  # seconds before its expiry after which a token is no longer used
LIFETIME = 300.0  # seconds, of a token whose response has no expires_in


class TokenFile(httpx.Auth):
    """Sends the token in a file, which is read for each request: a renewed token needs no restart."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the Authorization header."""
        request.headers["Authorization"] = f"Bearer {_secret(self._file)}"
        yield request


class ClientCredentials(httpx.Auth):
    """Sends a token of the authorization server, and fetches a new one shortly before it expires, or after the peer refused it."""

    def __init__(self, settings: OAuth2, client: Callable[[], httpx.Client]) -> None:
        self._settings, self._client = settings, client
        self._token, self._until = "", 0.0
        self._lock = threading.Lock()

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the Authorization header. A streamed body cannot be sent twice: after a refusal, the next delivery attempt has a new token."""
        request.headers["Authorization"] = f"Bearer {self._current()}"
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED:
            with self._lock:
                self._token = ""

    def _current(self) -> str:
        with self._lock:
            if not self._token or time.monotonic() >= self._until:
                self._fetch()
            return self._token

    def _fetch(self) -> None:
        form = {"grant_type": "client_credentials", **({"scope": self._settings.scope} if self._settings.scope else {})}
        secret = _secret(self._settings.client_secret_file)
        try:
            with self._client() as client:
                response = client.post(self._settings.token_url, data=form, auth=(self._settings.client_id, secret))
        except httpx.HTTPError as error:
            url = httpx.URL(self._settings.token_url)
            words = network_words(error, url.host, url.port or (443 if url.scheme == "https" else 80))
            raise DeliveryError(f"the authorization server gives no token: {words}") from error
        if response.status_code in {400, 401, 403}:
            raise DeliveryRefused(
                f"the authorization server refuses this client (HTTP {response.status_code}); check client_id and the client secret"
            )
        try:
            document = response.json()
            token, lifetime = str(document["access_token"]), float(document.get("expires_in", LIFETIME))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DeliveryError(
                f"the response of the authorization server has no token (HTTP {response.status_code})"
            ) from error
        self._token, self._until = token, time.monotonic() + max(0.0, lifetime - MARGIN)


def _secret(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DeliveryError("cannot read the file of its token or secret; check the path and its permissions") from error
