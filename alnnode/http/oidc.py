"""Verify bearer tokens of an OpenID Connect issuer: JWTs (RFC 7519, RFC 9068) with the keys of the issuer (JWKS, RFC 7517), and read their roles."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import structlog
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from alnnode.errors import SettingsError

if TYPE_CHECKING:
    from joserfc.jwk import GuestProtocol, Key

    from alnnode.settings import Oidc

ALGORITHMS = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
)  # asymmetric only, without "none"
LEEWAY = 30  # seconds by which clocks may differ
REFRESH = 60.0  # seconds between two requests for keys: tokens with unknown key ids must not cause a request each
FETCH_TIMEOUT = 5.0  # seconds
MAX_TOKEN = 16 << 10  # characters
ROLES = frozenset({"send", "read", "admin"})
NAMES = ("azp", "client_id", "sub")  # claims: the first that is present names the sender
_FOREIGN = re.compile(r"[^A-Za-z0-9_-]")

log = structlog.get_logger()


class OidcVerifier:
    """Verifies tokens of one issuer. Safe to share between threads."""

    def __init__(self, settings: Oidc) -> None:
        self._settings = settings
        self._claims = jwt.JWTClaimsRegistry(
            leeway=LEEWAY,
            iss={"essential": True, "value": settings.issuer},
            aud={"essential": True, "value": settings.audience},
            exp={"essential": True},
        )
        self._keys: dict[str, Key] = {}
        self._fetched_at = float("-inf")
        self._lock = threading.Lock()
        if not settings.jwks.startswith(("http:", "https:")) and not Path(settings.jwks).is_file():
            raise SettingsError("web.oidc jwks: no such file; give the file or the URL of the issuer's key set")

    def verify(self, token: str) -> tuple[str, frozenset[str]] | None:
        """Return the name and the roles of a token; None if the token is not valid.

        This may wait for the keys of the issuer, so it must not run in an event loop.
        """
        if token.count(".") != 2 or len(token) > MAX_TOKEN:
            return None
        try:
            claims = jwt.decode(token, self._key, algorithms=ALGORITHMS).claims
            self._claims.validate(claims)
        except (JoseError, ValueError, TypeError) as error:
            log.warning("token_refused", reason=type(error).__name__)
            return None
        name = next((str(claims[key]) for key in NAMES if claims.get(key)), "")
        return _FOREIGN.sub("_", name)[:16] or "OIDC", self._roles(claims)

    def _roles(self, claims: dict[str, Any]) -> frozenset[str]:
        """Read the roles claim. Its name may be a path (``realm_access.roles``); a string is split into words, as in ``scope``."""
        found: Any = claims
        for step in self._settings.roles_claim.split("."):
            found = found.get(step) if isinstance(found, dict) else None
        words = found.split() if isinstance(found, str) else found if isinstance(found, list) else []
        named = [self._settings.roles.get(str(word), str(word) if not self._settings.roles else "") for word in words]
        return ROLES & set(named)

    def _key(self, token: GuestProtocol) -> Key:
        """Return the key that the header of the token names."""
        kid = str(token.headers().get("kid"))
        known = self._keys.get(kid)
        if known is not None:  # without the lock: a token of a known key must not wait for the request for another key
            return known
        with self._lock:
            if kid not in self._keys and time.monotonic() - self._fetched_at > REFRESH:
                self._fetch_keys()
            if kid in self._keys:
                return self._keys[kid]
        raise InvalidKeyIdError

    def _fetch_keys(self) -> None:
        self._fetched_at = time.monotonic()
        jwks = self._settings.jwks
        try:
            if jwks.startswith(("http:", "https:")):
                answer = httpx.get(jwks, timeout=FETCH_TIMEOUT)
                content = answer.raise_for_status().text
            else:
                content = Path(jwks).read_text(encoding="utf-8")
            keys = KeySet.import_key_set(json.loads(content)).keys
        except (httpx.HTTPError, OSError, ValueError, KeyError, TypeError, JoseError) as error:
            log.warning("keys_not_read", error=type(error).__name__)
            return
        self._keys = {str(key.kid): key for key in keys if key.kid}
