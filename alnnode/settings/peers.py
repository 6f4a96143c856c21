"""Sections on those that the node talks to: senders, destinations, archives."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from alnnode.settings.section import AETitle, Port, ResultKind, Seconds, Section


class ListenerTls(Section):
    """DICOM TLS of the listener's port."""

    certificate: Path  # PEM, with the chain
    private_key: Path
    ca: Path | None = None  # signs the certificates of senders
    mutual: bool = True
    peer_names: tuple[str, ...] = ()  # empty: every certificate of the CA

    @model_validator(mode="after")
    def _mutual_needs_a_ca(self) -> Self:
        if self.mutual and self.ca is None:
            raise ValueError("mutual TLS needs ca, the file that signs your senders' certificates; or set mutual = false")
        if self.peer_names and not self.mutual:
            raise ValueError("peer_names needs mutual = true: without it no sender shows a certificate")
        return self


class ListenerUser(Section):
    """A user name that senders give when they associate, and the digest of its passcode."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Listener(Section):
    """The C-STORE SCP."""

    host: str = "127.0.0.1"
    port: Port = 11112
    processes: Annotated[int, Field(ge=1, le=64)] = 2
    max_associations: Annotated[int, Field(ge=2, le=1000)] = 50  # per process
    max_peer_connections: Annotated[int, Field(ge=1, le=999)] = 25  # of one address at once, per process
    max_peer_rate: Annotated[float, Field(gt=0, le=10000)] = 50  # connections of one address in a second, per process
    max_pdu: Annotated[int, Field(ge=4096, le=1 << 26)] = 131072
    max_object_mb: Annotated[int, Field(ge=1, le=4096)] = 2048
    called_ae_titles: tuple[AETitle, ...] = ()  # empty: the node's own; "*": any
    calling_ae_titles: tuple[AETitle, ...] = ("*",)
    users: tuple[ListenerUser, ...] = ()  # empty: nobody has to say who it is
    addresses: tuple[IPv4Network | IPv6Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
    acse_timeout: Seconds = 30
    dimse_timeout: Seconds = 60
    network_timeout: Seconds = 60
    tls: ListenerTls | None = None  # None: no TLS

    @model_validator(mode="after")
    def _one_address_leaves_places(self) -> Self:
        if self.max_peer_connections >= self.max_associations:
            raise ValueError(
                "max_peer_connections must be below max_associations, or one address could take every place; "
                "lower it, or raise max_associations"
            )
        return self


class DestinationTls(Section):
    """TLS towards one destination, whose certificate is always checked."""

    ca: Path
    certificate: Path | None = None  # the node's own, when the destination asks for one
    private_key: Path | None = None
    server_name: str | None = None  # in the destination's certificate; None: its host

    @model_validator(mode="after")
    def _certificate_and_key(self) -> Self:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key belong together; give both or none")
        return self


class OAuth2(Section):
    """Client credentials for a STOW-RS destination."""

    token_url: Annotated[str, Field(pattern=r"^https://|^http://(localhost|127\.0\.0\.1)[:/]")]
    client_id: Annotated[str, Field(min_length=1)]
    client_secret_file: Path
    scope: str = ""


class Destination(Section):
    """One place that results go to."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")]
    kind: Literal["cstore", "stow"] = "cstore"
    ae_title: AETitle | None = None
    host: str | None = None
    port: Port | None = None
    url: str | None = None  # the DICOMweb service root, for kind = "stow"
    objects: tuple[ResultKind, ...] = ("sr", "capture", "seg", "pmap", "ko", "pr", "tree", "text", "pdf", "reject")
    timeout: Seconds = 30
    retry_first: Seconds = 5
    retry_ceiling: Seconds = 900
    retry_attempts: Annotated[int, Field(ge=1, le=100000)] = 1000
    commitment: Literal["off", "wait"] = "off"  # "wait": delivered when the destination has committed it (PS3.4 Annex J)
    commitment_timeout: Seconds = 3600  # until it is asked again
    commitment_attempts: Annotated[int, Field(ge=1, le=100000)] = 72  # questions without an answer, before the delivery fails
    tls: DestinationTls | None = None  # None: C-STORE without TLS; STOW-RS with the system's authorities
    token_file: Path | None = None  # for "stow": holds a bearer token
    oauth2: OAuth2 | None = None  # for "stow": where bearer tokens come from

    @model_validator(mode="after")
    def _address_is_complete(self) -> Self:
        if self.kind == "cstore" and not (self.ae_title and self.host and self.port):
            raise ValueError('a destination of kind "cstore" needs ae_title, host and port')
        if self.kind == "stow" and not (self.url or "").startswith(("http://", "https://")):
            raise ValueError('a destination of kind "stow" needs url = "http(s)://…", the DICOMweb service root')
        if self.kind == "stow" and self.tls and not (self.url or "").startswith("https://"):
            raise ValueError("tls needs a url that begins with https://")
        if self.kind == "stow" and self.tls and self.tls.server_name:
            raise ValueError('server_name is for kind = "cstore"; for "stow" the url names the server')
        if self.kind == "stow" and self.commitment != "off":
            raise ValueError('commitment is for kind = "cstore"; DICOMweb knows no storage commitment')
        if self.kind == "cstore" and (self.token_file or self.oauth2):
            raise ValueError('token_file and oauth2 are for kind = "stow"; C-STORE knows TLS only')
        if self.token_file and self.oauth2:
            raise ValueError("give token_file or oauth2, not both")
        if self.retry_ceiling < self.retry_first:
            raise ValueError("retry_ceiling is below retry_first; raise it to at least the first delay")
        return self


class Requester(Section):
    """Who may ask this node for storage commitment, and where the answer goes when the association of the request is over."""

    ae_title: AETitle
    host: str | None = None
    port: Port | None = None
    timeout: Seconds = 30
    tls: DestinationTls | None = None

    @model_validator(mode="after")
    def _host_and_port(self) -> Self:
        if (self.host is None) != (self.port is None):
            raise ValueError(
                "host and port belong together; give both or, for a requester that keeps its association open, none"
            )
        return self


class Commitment(Section):
    """Storage commitment that this node gives (PS3.4 Annex J)."""

    requesters: tuple[Requester, ...] = ()  # empty: nobody may ask


class Archive(Section):
    """An archive that the node asks for what it needs: the input of workitems, earlier reports."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,16}$")]  # over DICOMweb, images arrive under it as under an AE title
    kind: Literal["dicomweb", "dicom"] = "dicomweb"  # "dicom": C-FIND, and C-MOVE to [node] ae_title
    url: Annotated[str, Field(pattern=r"^https?://[^?#]+[^/?#]$")] | None = None  # the DICOMweb service root
    ae_title: AETitle | None = None
    host: str | None = None
    port: Port | None = None
    timeout: Seconds = 60
    tls: DestinationTls | None = None  # None: DICOM without TLS; DICOMweb with the system's authorities
    token_file: Path | None = None  # for "dicomweb": holds a bearer token

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Self:
        if self.kind == "dicom":
            if not (self.ae_title and self.host and self.port):
                raise ValueError('an archive of kind "dicom" needs ae_title, host and port')
            if self.url or self.token_file:
                raise ValueError('url and token_file are for kind = "dicomweb"')
            return self
        if not self.url:
            raise ValueError('an archive of kind "dicomweb" needs url = "http(s)://…", the DICOMweb service root')
        if self.ae_title or self.host or self.port:
            raise ValueError('ae_title, host and port are for kind = "dicom"')
        if self.tls and (not self.url.startswith("https://") or self.tls.server_name):
            raise ValueError("tls needs a url that begins with https://, which names the server: leave server_name out")
        return self
