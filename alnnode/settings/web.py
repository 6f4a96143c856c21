"""Sections on the HTTP service."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from alnnode.settings.section import Port, Seconds, Section


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class WebToken(Section):
    """Who may use the HTTP service: a secret, given by its digest or by where it is kept, and what it allows."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,16}$")]  # also the AE title under which its images arrive
    roles: Annotated[tuple[Literal["send", "read", "admin"], ...], Field(min_length=1)] = ("read",)
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    file: Path | None = None
    env: str = ""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(map(bool, (self.sha256, self.file, self.env))) != 1:
            raise ValueError('give exactly one of sha256, file and env; "alnnode token" makes a token with its sha256')
        return self


class Oidc(Section):
    """An OpenID Connect issuer whose access tokens are taken beside [[web.tokens]]."""

    issuer: Annotated[str, Field(min_length=1)]
    audience: Annotated[str, Field(min_length=1)]
    jwks: Annotated[str, Field(pattern=r"^(https://.+|http://(localhost|127\.0\.0\.1)[:/].*|[^:]+)$")]  # a URL, or a file
    roles_claim: Annotated[str, Field(min_length=1)] = "roles"
    roles: dict[str, Literal["send", "read", "admin"]] = Field(
        default_factory=dict
    )  # by value of the claim; empty: the values are the roles


class Web(Section):
    """The HTTP service: DICOMweb, status page, health, metrics."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Port = 8124
    tokens: tuple[WebToken, ...] = ()
    oidc: Oidc | None = None
    public_url: Annotated[str, Field(pattern=r"^(https?://[^?#]+[^/?#])?$")] = ""  # as clients see it, behind a proxy
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()  # whose X-Forwarded-For tells the client
    cors_origins: tuple[str, ...] = ()
    certificate: Path | None = None  # PEM chain and key: HTTPS
    key: Path | None = None
    max_request_mb: Annotated[int, Field(ge=1, le=1 << 20)] = 16384
    max_connections: Annotated[int, Field(ge=2, le=10000)] = 100  # requests under way
    max_peer_connections: Annotated[int, Field(ge=1, le=10000)] = 50  # of one address
    header_timeout: Seconds = 10
    body_timeout: Seconds = 30
    max_rate: Annotated[float, Field(gt=0, le=100000)] = 500  # requests of one client in a second
    session_hours: Annotated[float, Field(gt=0, le=168)] = 12

    @model_validator(mode="after")
    def _is_closed(self) -> Self:
        if not self.tokens and self.oidc is None and not _loopback(self.host):
            raise ValueError(
                'host reaches beyond this machine, so [[web.tokens]] or [web.oidc] are needed; "alnnode token" makes one'
            )
        if self.max_peer_connections >= self.max_connections:
            raise ValueError(
                "max_peer_connections must be below max_connections, or one address could take every place; "
                "lower it, or raise max_connections"
            )
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together; give both or neither")
        names = [token.name for token in self.tokens]
        if len(set(names)) != len(names):
            raise ValueError("two tokens share a name; rename one")
        return self
