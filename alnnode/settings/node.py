"""Sections on the node itself and what it keeps: data, messages, logs, the audit trail."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from alnnode.settings.peers import DestinationTls
from alnnode.settings.section import AETitle, Port, Section


class Node(Section):
    """Who the node is and where it keeps its data."""

    ae_title: AETitle = "ALNNODE"
    data_dir: Path = Path("alnnode-data")
    time_zone: str = ""  # IANA name; empty: the machine's, which is not written

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            return value and ZoneInfo(value).key
        except (ValueError, OSError, ZoneInfoNotFoundError) as error:
            raise ValueError('no time zone of the IANA database; use a name like "Europe/Athens"') from error

    @property
    def zone(self) -> ZoneInfo | None:
        """The same, for the room that writes dates and times."""
        return ZoneInfo(self.time_zone) if self.time_zone else None


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


class Logging(Section):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"


class Retention(Section):
    """How long bytes are kept, and when receiving stops before the disk is full."""

    delivered_days: Annotated[float, Field(ge=0)] = 7
    failed_days: Annotated[float, Field(ge=0)] = 30
    follow_up_days: Annotated[float, Field(ge=0)] = 1100
    keep_rows_days: Annotated[float, Field(ge=0)] = 1100  # after the deletion of the files; 0: for ever
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
