"""Section ``[[destinations]]``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self, get_args

from pydantic import Field, Tag, model_validator

from alnnode.settings.kinds import by_kind
from alnnode.settings.section import AETitle, Host, Name, Port, Seconds, Section
from alnnode.settings.tls import ClientTls

if TYPE_CHECKING:
    from collections.abc import Mapping

ResultKind = Literal["sr", "capture", "seg", "pmap", "ko", "pr", "tree", "text", "pdf", "rtstruct", "reject"]


class OAuth2(Section):
    """OAuth 2 client credentials (RFC 6749 section 4.4) for a STOW-RS destination."""

    token_url: Annotated[str, Field(pattern=r"^https://|^http://(localhost|127\.0\.0\.1)[:/]", description="an https:// URL")]
    client_id: Annotated[str, Field(min_length=1)]
    client_secret_file: Path
    scope: str = ""


class _Destination(Section):
    """A peer that results are delivered to."""

    name: Name
    objects: tuple[ResultKind, ...] = get_args(ResultKind)
    timeout: Seconds = 30
    retry_attempts: Annotated[int, Field(ge=1, le=100000)] = 1000
    tls: ClientTls | None = None  # None: C-STORE without TLS; STOW-RS with the certificate authorities of the system


class DestinationCStore(_Destination):
    """A Storage SCP."""

    kind: Literal["cstore"] = "cstore"
    ae_title: AETitle
    host: Host
    port: Port
    # "wait": the results are delivered when the destination has committed them (Storage Commitment, PS3.4 Annex J).
    commitment: Literal["off", "wait"] = "off"


class DestinationStow(_Destination):
    """A DICOMweb origin server that takes STOW-RS."""

    kind: Literal["stow"] = "stow"
    url: Annotated[
        str,
        Field(pattern=r"^https?://[^/?#\s]\S*$", description="the root of the DICOMweb service, http(s)://…, without spaces"),
    ]
    token_file: Path | None = None  # holds a bearer token
    oauth2: OAuth2 | None = None  # where bearer tokens come from

    @model_validator(mode="after")
    def _access_is_clear(self) -> Self:
        if self.tls and not self.url.startswith("https://"):
            raise ValueError("tls needs a url that begins with https://")
        if self.tls and self.tls.server_name:
            raise ValueError('tls.server_name is for kind = "cstore"; for "stow" the url names the server')
        if self.token_file and self.oauth2:
            raise ValueError("give token_file or oauth2, not both")
        return self


DESTINATIONS: Mapping[str, type[Section]] = {"cstore": DestinationCStore, "stow": DestinationStow}
Destination = Annotated[
    Annotated[DestinationCStore, Tag("cstore")] | Annotated[DestinationStow, Tag("stow")], by_kind(DESTINATIONS, "cstore")
]
