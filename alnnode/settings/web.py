"""Sections ``[web]``, ``[[web.tokens]]`` and ``[web.oidc]``."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from alnnode.settings.section import Network, Port, Section, SenderName
from alnnode.settings.tls import ServerTls

DIGEST = "the sha256 that `alnnode token` prints: 64 characters of 0-9 and a-f"
PUBLIC = "http(s)://…, without / at its end"
JWKS = "an https:// URL, or the path of a file"


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class WebToken(Section):
    """A user of the HTTP service: the secret, given by its digest or by the place that holds it, and the roles."""

    name: SenderName  # images that the user sends are received under it as under an AE title
    roles: Annotated[tuple[Literal["send", "read", "admin"], ...], Field(min_length=1)] = ("read",)
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$", description=DIGEST)] = ""
    file: Path | None = None
    env: str = ""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(map(bool, (self.sha256, self.file, self.env))) != 1:
            raise ValueError('give exactly one of sha256, file and env; "alnnode token" makes a token with its sha256')
        return self


class Oidc(Section):
    """An OpenID Connect issuer whose access tokens are accepted in addition to [[web.tokens]]."""

    issuer: Annotated[str, Field(min_length=1)]
    audience: Annotated[str, Field(min_length=1)]
    jwks: Annotated[str, Field(pattern=r"^(https://.+|http://(localhost|127\.0\.0\.1)[:/].*|[^:]+)$", description=JWKS)]
    roles_claim: Annotated[str, Field(min_length=1)] = "roles"
    # The role for each value of the claim; empty: the values are the roles.
    roles: dict[str, Literal["send", "read", "admin"]] = Field(default_factory=dict)


class Web(Section):
    """The HTTP service: DICOMweb, status page, health, metrics."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Port = 8124
    tls: ServerTls | None = None  # None: HTTP
    tokens: tuple[WebToken, ...] = ()
    oidc: Oidc | None = None
    public_url: Annotated[str, Field(pattern=r"^(https?://[^?#]+[^/?#])?$", description=PUBLIC)] = (
        ""  # as clients see it, behind a proxy
    )
    trusted_proxies: tuple[Network, ...] = ()  # whose X-Forwarded-For header names the client
    cors_origins: tuple[str, ...] = ()
    max_connections: Annotated[int, Field(ge=2, le=10000)] = 100  # requests at the same time
    session_hours: Annotated[float, Field(gt=0, le=168)] = 12

    @property
    def max_peer_connections(self) -> int:
        """Return the requests that one address may have at the same time: half, so that no address can occupy them all."""
        return self.max_connections // 2

    @model_validator(mode="after")
    def _access_is_limited(self) -> Self:
        if not self.tokens and self.oidc is None and not _loopback(self.host):
            raise ValueError(
                'host reaches beyond this machine, so [[web.tokens]] or [web.oidc] are needed; "alnnode token" makes one'
            )
        names = [token.name for token in self.tokens]
        if len(set(names)) != len(names):
            raise ValueError("two tokens share a name; rename one")
        return self
