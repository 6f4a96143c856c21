"""The node's settings: one TOML file, read once, frozen.

Precedence, highest first: environment ``ALNNODE__SECTION__KEY``, the file, the defaults below. An unknown key, a value
of the wrong kind or an impossible combination is a `SettingsError` that names the key, says why and what to do.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import tomllib
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as SourceError

from alnnode.errors import SettingsError
from alnnode.records import CaptureForm, Locate, MapFrames, ObjectRole, ReportOptions, SRClass

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails
    from pydantic_settings import PydanticBaseSettingsSource

ENV_PREFIX = "ALNNODE__"


def _ae_title(value: str) -> str:
    """PS3.5 6.2, VR AE: 1 to 16 characters, no backslash or control character, not only spaces."""
    title = value.strip()
    if not 1 <= len(title) <= 16 or not re.fullmatch(r"[ -\[\]-~]+", title):
        raise ValueError("an AE title has 1 to 16 printable ASCII characters without backslash; shorten or respell it")
    return title


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"not a regular expression ({error}); escape special characters with a backslash") from error
    return value


AETitle = Annotated[str, AfterValidator(_ae_title)]
Pattern = Annotated[str, AfterValidator(_pattern)]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0)]
ResultKind = Literal["sr", "capture", "seg", "pmap", "ko", "pr", "tree"]


class Section(BaseModel):
    """A part of the file: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Node(Section):
    """Who the node is and where it keeps its data."""

    ae_title: AETitle = "ALNNODE"
    data_dir: Path = Path("alnnode-data")


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


class ListenerUser(Section):
    """A user name that senders give when they associate, and the digest of its passcode."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Listener(Section):
    """The C-STORE SCP."""

    host: str = "127.0.0.1"
    port: Port = 11112
    processes: Annotated[int, Field(ge=1, le=64)] = 2
    max_associations: Annotated[int, Field(ge=1, le=1000)] = 50  # per process
    max_peer_connections: Annotated[int, Field(ge=1, le=2000)] = 100  # of one address at once, per process
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
    objects: tuple[ResultKind, ...] = ("sr", "capture", "seg", "pmap", "ko", "pr", "tree")
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


class Worklist(Section):
    """Which workitems of the worklist this node performs."""

    perform: bool = True
    # Scheduled Workitem Codes, "scheme:value": PS3.16 CID 9231 Computer Aided Detection and Diagnosis, and one of our own.
    codes: tuple[Annotated[str, Field(pattern=r"^[^:\\]{1,16}:[^\\]{1,16}$")], ...] = (
        "DCM:110004",
        "DCM:110003",
        "99ALNNODE:ANALYSE",
    )
    interval: Seconds = 0.5
    fetch_attempts: Annotated[int, Field(ge=1, le=100)] = 3


class Route(Section):
    """Which series are analysed: all given conditions must hold; an empty list asks nothing."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")]
    modalities: tuple[str, ...] = ("CT",)
    calling_ae_titles: tuple[str, ...] = ()
    body_parts: tuple[str, ...] = ()
    description: Pattern = ""  # regular expression searched in Series and Study Description, case ignored
    exclude_description: Pattern = ""
    kernel: Pattern = ""  # regular expression searched in Convolution Kernel
    min_slice_thickness: Annotated[float, Field(ge=0)] = 0
    max_slice_thickness: Annotated[float, Field(gt=0)] = 100

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Self:
        if self.min_slice_thickness > self.max_slice_thickness:
            raise ValueError("min_slice_thickness is above max_slice_thickness; swap or correct them")
        return self


class Completion(Section):
    """When a series is complete (DESIGN section 4)."""

    announced_count: bool = True
    association_grace: Seconds = 5
    quiet: Seconds = 60
    sweep_interval: Seconds = 1


class Analysis(Section):
    """What the worker does with a series."""

    bundle: str = "demo"  # "demo", or the folder of a bundle
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, Field(ge=0, le=256)] = 0  # 0: one per core
    window_center: float = 40
    window_width: Annotated[float, Field(ge=1)] = 400  # PS3.3 C.11.2.1.2
    min_short_axis_mm: Annotated[float, Field(ge=2, le=30)] = 4
    max_slice_spacing_mm: Annotated[float, Field(gt=0, le=10)] = 5
    max_nodes: Annotated[int, Field(ge=1, le=200)] = 40
    locate: Locate = Locate.BOTH  # "auto": the algorithm; "marks": the reader
    detector_threshold: Annotated[float, Field(ge=0, le=1)] | None = None  # None: the bundle's own
    operating_point: Annotated[float, Field(gt=0, lt=1)] | None = None  # None: the bundle's own
    report_not_analysed: bool = True


class Report(Section):
    """Which result objects are made, and in which form. The report and the captures always are."""

    sr_class: SRClass = SRClass.COMPREHENSIVE
    captures: CaptureForm = CaptureForm.SINGLE
    kinds: tuple[Literal["seg", "pmap", "ko", "pr", "tree"], ...] = ()
    map_frames: MapFrames = MapFrames.NODES
    follow_up: Literal["off", "own", "archives"] = "own"

    @property
    def options(self) -> ReportOptions:
        """The same for the room that writes the objects."""
        return ReportOptions(self.sr_class, self.captures, frozenset(ObjectRole(kind) for kind in self.kinds), self.map_frames)


class Database(Section):
    """The truth. Empty url: SQLite in the data directory."""

    url: str = ""
    pool_size: Annotated[int, Field(ge=1, le=100)] = 5

    @field_validator("url")
    @classmethod
    def _known_dialect(cls, value: str) -> str:
        if value and not value.startswith(("sqlite:///", "postgresql+psycopg://")):
            raise ValueError('use "sqlite:///…" or "postgresql+psycopg://user@host/database"; empty means SQLite in data_dir')
        return value


class Broker(Section):
    """The Celery broker. Empty url: a private Redis in the data directory."""

    url: str = ""
    time_limit: Annotated[float, Field(ge=30)] = 900  # hard limit of one analysis, s; the soft limit is 0.9 of it
    max_attempts: Annotated[int, Field(ge=1, le=20)] = 3  # analyses of one job that may not come to an end

    @field_validator("url")
    @classmethod
    def _is_redis(cls, value: str) -> str:
        if value.startswith("sentinel://"):  # Celery's workers were seen to take nothing more after a failover
            raise ValueError("Sentinels cannot be asked; let the Redis and its replica share one address that moves")
        if value and not value.startswith(("redis://", "rediss://", "redis+socket://")):
            raise ValueError(
                'use "redis://…", "rediss://…" or "redis+socket://…": the sweep looks at its queues to see what was lost'
            )
        return value


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
    roles: dict[str, Literal["send", "read", "admin"]] = {}  # by value of the claim; empty: the values are the roles


class Web(Section):
    """The HTTP service: DICOMweb, status page, health, metrics."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Port = 8124
    tokens: tuple[WebToken, ...] = ()
    oidc: Oidc | None = None
    public_url: Annotated[str, Field(pattern=r"^(https?://[^?#]+[^/?#])?$")] = ""  # as clients see it, behind a proxy
    cors_origins: tuple[str, ...] = ()
    certificate: Path | None = None  # PEM chain and key: HTTPS
    key: Path | None = None
    max_request_mb: Annotated[int, Field(ge=1, le=1 << 20)] = 16384
    max_connections: Annotated[int, Field(ge=1, le=10000)] = 100
    max_rate: Annotated[float, Field(gt=0, le=100000)] = 500  # requests of one client in a second
    session_hours: Annotated[float, Field(gt=0, le=168)] = 12

    @model_validator(mode="after")
    def _is_closed(self) -> Self:
        if not self.tokens and self.oidc is None and not _loopback(self.host):
            raise ValueError(
                'host reaches beyond this machine, so [[web.tokens]] or [web.oidc] are needed; "alnnode token" makes one'
            )
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together; give both or neither")
        names = [token.name for token in self.tokens]
        if len(set(names)) != len(names):
            raise ValueError("two tokens share a name; rename one")
        return self


class Logging(Section):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"


class Retention(Section):
    """How long bytes are kept, and when receiving stops before the disk is full."""

    delivered_days: Annotated[float, Field(ge=0)] = 7
    failed_days: Annotated[float, Field(ge=0)] = 30
    follow_up_days: Annotated[float, Field(ge=0)] = 1100
    min_free_mb: Annotated[int, Field(ge=0)] = 1024
    clean_below_mb: Annotated[int, Field(ge=0)] = 2048
    clean_to_mb: Annotated[int, Field(ge=0)] = 4096

    @model_validator(mode="after")
    def _marks_are_ordered(self) -> Self:
        if self.clean_to_mb < self.clean_below_mb:
            raise ValueError("clean_to_mb is below clean_below_mb; raise it, so that cleaning ends above where it begins")
        return self


class Audit(Section):
    """The audit trail (PS3.15 Annex A.5): who did what to which study."""

    to: Literal["off", "tls", "udp", "file"] = "off"  # syslog (RFC 5425, RFC 5426), or a file of one XML message on each line
    host: str = ""
    port: Port = 6514
    ca: Path | None = None  # of the server; for "tls"
    certificate: Path | None = None  # the node's own, when the server asks for one
    private_key: Path | None = None
    server_name: str | None = None  # in the server's certificate; None: host
    file: Path | None = None
    identity: bool = False  # whether messages name the patient
    site: str = ""  # AuditEnterpriseSiteID
    max_waiting: Annotated[int, Field(ge=100, le=1_000_000)] = 100_000  # messages

    @model_validator(mode="after")
    def _has_where_to(self) -> Self:
        if self.to == "file" and self.file is None:
            raise ValueError('to = "file" needs file, the path to append to')
        if self.to in {"tls", "udp"} and not self.host:
            raise ValueError(f'to = "{self.to}" needs host, the syslog server')
        if self.to == "tls" and self.ca is None:
            raise ValueError('to = "tls" needs ca, the authority that signed the server\'s certificate')
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key belong together; give both or none")
        return self

    @property
    def tls(self) -> DestinationTls:
        """The same as towards a destination."""
        assert self.ca is not None  # asked for only where to = "tls"
        return DestinationTls(
            ca=self.ca, certificate=self.certificate, private_key=self.private_key, server_name=self.server_name
        )


class Settings(BaseSettings):
    """All sections. Use `load`, not the constructor."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=ENV_PREFIX, env_nested_delimiter="__", env_ignore_empty=False
    )

    node: Node = Node()
    listener: Listener = Listener()
    destinations: tuple[Destination, ...] = ()
    commitment: Commitment = Commitment()
    routes: tuple[Route, ...] = (Route(name="ct"),)
    completion: Completion = Completion()
    analysis: Analysis = Analysis()
    report: Report = Report()
    database: Database = Database()
    broker: Broker = Broker()
    web: Web = Web()
    logging: Logging = Logging()
    audit: Audit = Audit()
    retention: Retention = Retention()
    archives: tuple[Archive, ...] = ()
    worklist: Worklist = Worklist()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic-settings passes it by name
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings passes it by name
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings passes it by name
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file."""
        return env_settings, init_settings

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        for kind, names in (
            ("destinations", [d.name for d in self.destinations]),
            ("requesters", [r.ae_title for r in self.commitment.requesters]),
            ("routes", [r.name for r in self.routes]),
            ("archives", [a.name for a in self.archives]),
        ):
            double = {name for name in names if names.count(name) > 1}
            if double:
                raise ValueError(f"two {kind} share the name {min(double)!r}; rename one")
        return self

    @model_validator(mode="after")
    def _archives_are_there(self) -> Self:
        if self.report.follow_up == "archives" and not self.archives:
            raise ValueError('report.follow_up = "archives" needs [[archives]]; add one, or choose "own"')
        titles = [archive.ae_title for archive in self.archives if archive.ae_title]
        if len(set(titles)) != len(titles):
            raise ValueError("two archives share an ae_title; a workitem names its archive by it: keep one of them")
        if titles and self.called_ae_titles and self.node.ae_title not in self.called_ae_titles:
            raise ValueError('archives of kind "dicom" send to [node] ae_title: name it in listener.called_ae_titles too')
        return self

    @property
    def result_digest(self) -> str:
        """sha256 (hex) over the keys that change a result: part of every result's UID."""
        chosen = self.analysis.model_dump(mode="json", exclude={"bundle", "device", "threads", "report_not_analysed"})
        chosen["report"] = {**self.report.model_dump(mode="json"), "kinds": sorted(self.report.kinds)}
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL."""
        return self.database.url or f"sqlite:///{self.node.data_dir.resolve() / 'alnnode.db'}"

    @property
    def redis_socket(self) -> Path:
        """Unix socket of the private Redis."""
        return self.node.data_dir.resolve() / "redis" / "redis.sock"

    @property
    def broker_url(self) -> str:
        """Celery broker URL."""
        return self.broker.url or f"redis+socket://{self.redis_socket}"

    @property
    def called_ae_titles(self) -> tuple[str, ...]:
        """AE titles that the listener answers to; empty means any."""
        titles = self.listener.called_ae_titles or (self.node.ae_title,)
        return () if "*" in titles else titles

    @property
    def calling_ae_titles(self) -> tuple[str, ...]:
        """AE titles that may send; empty means any."""
        return () if "*" in self.listener.calling_ae_titles else self.listener.calling_ae_titles


def _explain(error: ErrorDetails) -> str:
    key = _key(error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{key}: no such key; {_remedy(error['loc'])} (config.example.toml lists every key)"
    if error["type"] == "missing":
        return f"{key}: must be given; add it (config.example.toml shows how)"
    message = error["msg"].removeprefix("Value error, ")
    # A URL may hold a password, and these messages end in logs.
    secret = error["type"] == "value_error" or error["loc"][-1:] == ("url",)
    return f"{key}: {message}" if secret else f"{key}: {message}; the file or environment says {error['input']!r}"


def _key(location: tuple[int | str, ...]) -> str:
    """Spell a place in the file: ``destinations[1].port`` is the port of the first [[destinations]]."""
    parts = [f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).removeprefix(".") or "file"


def _remedy(location: tuple[int | str, ...]) -> str:
    """Name the key that was probably meant."""
    fields = Settings.model_fields
    if len(location) > 1:
        kind = {"destinations": Destination, "routes": Route, "archives": Archive}.get(str(location[0])) or fields[
            str(location[0])
        ].annotation
        fields = getattr(kind, "model_fields", {})
    close = difflib.get_close_matches(str(location[-1]), fields, n=1)
    return f'do you mean "{close[0]}"?' if close else "remove it or correct the spelling"


def load(path: Path | None = None) -> Settings:
    """Read the settings.

    Args:
        path: the TOML file; None uses defaults and environment only.

    Raises:
        SettingsError: the file is missing or not TOML, a key is unknown, or a value is impossible.
    """
    content: dict[str, object] = {}
    where = "the environment"
    if path is not None:
        where = str(path)
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise SettingsError(f"{path}: no such file; copy config.example.toml there and edit it") from error
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{path}: cannot be read ({error}); check its permissions and that it is UTF-8 text") from error
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"{path}: not valid TOML: {error}") from error
    unknown = [
        name
        for name in os.environ
        if name.startswith(ENV_PREFIX) and name[len(ENV_PREFIX) :].split("__")[0].lower() not in Settings.model_fields
    ]
    if unknown:
        raise SettingsError(f"{min(unknown)}: no such section; sections are {', '.join(Settings.model_fields)}")
    try:
        return Settings(**content)  # type: ignore[arg-type]  # validated by pydantic
    except ValidationError as error:
        lines = [f"  {_explain(detail)}" for detail in error.errors(include_url=False)]
        raise SettingsError("\n".join([f"{where} cannot be used:", *lines])) from error
    except SourceError as error:
        raise SettingsError(
            f"an {ENV_PREFIX}… variable cannot be read: {error}; lists and tables are written as JSON"
        ) from error
