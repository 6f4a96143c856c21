"""Section ``[audit]``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, Tag

from alnnode.settings.kinds import by_kind
from alnnode.settings.section import Port, Section
from alnnode.settings.tls import ClientTls

if TYPE_CHECKING:
    from collections.abc import Mapping


class _Audit(Section):
    """The audit trail (PS3.15 Annex A.5): who did what to which study."""

    identity: bool = False  # whether messages name the patient
    site: str = ""  # AuditEnterpriseSiteID


class AuditOff(_Audit):
    """No audit trail."""

    kind: Literal["off"] = "off"


class AuditTls(_Audit):
    """A syslog server over TLS (RFC 5425)."""

    kind: Literal["tls"] = "tls"
    host: Annotated[str, Field(min_length=1, description="the syslog server")]
    port: Port = 6514
    tls: Annotated[ClientTls, Field(description="{ ca = … }, the authority that signed the server's certificate")]


class AuditUdp(_Audit):
    """A syslog server over UDP (RFC 5426)."""

    kind: Literal["udp"] = "udp"
    host: Annotated[str, Field(min_length=1, description="the syslog server")]
    port: Port = 6514


class AuditFile(_Audit):
    """A file with one XML message on each line."""

    kind: Literal["file"] = "file"
    file: Annotated[Path, Field(description="the file that messages are appended to")]


AUDITS: Mapping[str, type[Section]] = {"off": AuditOff, "tls": AuditTls, "udp": AuditUdp, "file": AuditFile}
Audit = Annotated[
    Annotated[AuditOff, Tag("off")]
    | Annotated[AuditTls, Tag("tls")]
    | Annotated[AuditUdp, Tag("udp")]
    | Annotated[AuditFile, Tag("file")],
    by_kind(AUDITS, "off"),
]
