"""Sections ``[listener]``, ``[commitment]``, ``[[routes]]`` and ``[completion]``: from the association to a complete series."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from alnnode.settings.section import AETitle, Host, Name, Network, Pattern, Port, Seconds, Section
from alnnode.settings.tls import ClientTls, ListenerTls


class ListenerUser(Section):
    """A user name that senders give when they associate, and the digest of its passcode (PS3.7 D.3.3.7)."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    sha256: Annotated[
        str, Field(pattern=r"^[0-9a-f]{64}$", description="the sha256 of the passcode: 64 characters of 0-9 and a-f")
    ]


class Listener(Section):
    """The C-STORE SCP."""

    host: str = "127.0.0.1"
    port: Port = 11112
    addresses: tuple[Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
    called_ae_titles: tuple[AETitle, ...] = ()  # empty: the node's own; "*": any
    calling_ae_titles: tuple[AETitle, ...] = ("*",)
    users: tuple[ListenerUser, ...] = ()  # empty: senders need no user name
    tls: ListenerTls | None = None  # None: no TLS
    processes: Annotated[int, Field(ge=1, le=64)] = 2
    max_associations: Annotated[int, Field(ge=2, le=1000)] = 50  # of each process
    max_object_mb: Annotated[int, Field(ge=1, le=4096)] = 2048
    timeout: Seconds = 60

    @property
    def max_peer_connections(self) -> int:
        """Return the connections that one address may have with each process: half, so that no address can occupy them all."""
        return self.max_associations // 2


class Requester(Section):
    """A sender that may ask this node for storage commitment, and where the answer goes when its association has ended."""

    ae_title: AETitle
    host: Host | None = None
    port: Port | None = None
    timeout: Seconds = 30
    tls: ClientTls | None = None

    @model_validator(mode="after")
    def _host_and_port(self) -> Self:
        if (self.host is None) != (self.port is None):
            raise ValueError(
                "host and port belong together; give both or, for a requester that keeps its association open, none"
            )
        return self


class Commitment(Section):
    """Storage commitment that this node gives to senders (PS3.4 Annex J)."""

    requesters: tuple[Requester, ...] = ()  # empty: every request is refused


class Route(Section):
    """Which series are analysed. All conditions must hold; an empty list or text is no condition."""

    name: Name
    modalities: tuple[str, ...] = ("CT",)
    calling_ae_titles: tuple[str, ...] = ()
    body_parts: tuple[str, ...] = ()
    description: Pattern = ""  # is searched in Series and Study Description, without regard to case
    exclude_description: Pattern = ""
    kernel: Pattern = ""  # is searched in Convolution Kernel
    slice_thickness: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(gt=0)]] = (0, 100)  # least and greatest, mm
    priority: Literal["high", "medium", "low"] = "medium"  # of the jobs of the series; no condition

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Self:
        least, greatest = self.slice_thickness
        if least > greatest:
            raise ValueError("slice_thickness has its least value above its greatest; swap or correct them")
        return self


class Completion(Section):
    """When a series is complete (DESIGN section 4)."""

    announced_count: bool = True
    association_grace: Seconds = 5
    quiet: Seconds = 60
