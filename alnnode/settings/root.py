"""All sections together."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Self

from pydantic import model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from alnnode import __version__
from alnnode.settings.analyse import Analysis
from alnnode.settings.archives import Archive, ArchiveDicom
from alnnode.settings.audit import Audit, AuditOff
from alnnode.settings.database import Broker, Database
from alnnode.settings.deliver import Destination  # noqa: TC001 - pydantic reads the annotation at run time
from alnnode.settings.internal import Internal
from alnnode.settings.node import Logging, Node
from alnnode.settings.notify import Notify
from alnnode.settings.receive import Commitment, Completion, Listener, Route
from alnnode.settings.report import Report
from alnnode.settings.retention import Retention
from alnnode.settings.spool import SpoolPlace
from alnnode.settings.web import Web
from alnnode.settings.worklist import Worklist

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic_settings import PydanticBaseSettingsSource


ENV_PREFIX = "ALNNODE__"


class Settings(BaseSettings):
    """All sections. Use `load`, not the constructor."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=ENV_PREFIX, env_nested_delimiter="__", env_ignore_empty=False
    )

    node: Node = Node()
    spool: SpoolPlace = SpoolPlace()
    listener: Listener = Listener()
    commitment: Commitment = Commitment()
    routes: tuple[Route, ...] = (Route(name="ct"),)
    completion: Completion = Completion()
    analysis: Analysis = Analysis()
    report: Report = Report()
    destinations: tuple[Destination, ...] = ()
    archives: tuple[Archive, ...] = ()
    worklist: Worklist = Worklist()
    retention: Retention = Retention()
    web: Web = Web()
    database: Database = Database()
    broker: Broker = Broker()
    audit: Audit = AuditOff()
    notify: Notify = Notify()
    logging: Logging = Logging()
    internal: Internal = Internal()

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
            duplicate = {name for name in names if names.count(name) > 1}
            if duplicate:
                raise ValueError(f"two {kind} share the name {min(duplicate)!r}; rename one")
        return self

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        if self.web.enabled and self.listener.port == self.web.port:
            raise ValueError(f"listener.port and web.port are both {self.web.port}; change one")
        return self

    @model_validator(mode="after")
    def _archives_are_usable(self) -> Self:
        if self.report.follow_up == "archives" and not self.archives:
            raise ValueError('report.follow_up = "archives" needs [[archives]]; add one, or choose "own"')
        titles = [archive.ae_title for archive in self.archives if isinstance(archive, ArchiveDicom)]
        if len(set(titles)) != len(titles):
            raise ValueError("two archives share an ae_title, by which a workitem names its archive; remove one of them")
        if titles and self.called_ae_titles and self.node.ae_title not in self.called_ae_titles:
            raise ValueError(
                'archives of kind "dicom" send to [node] ae_title, which the listener does not accept; '
                "add it to listener.called_ae_titles"
            )
        return self

    @model_validator(mode="after")
    def _earlier_reports_are_shared(self) -> Self:
        if self.spool.bucket and self.report.follow_up == "own":
            raise ValueError(
                'report.follow_up = "own" looks into data_dir, which hosts with a spool.bucket do not share; choose "archives" or "off"'
            )
        return self

    @property
    def result_digest(self) -> str:
        """Return the sha256 (hex) of this version and of the keys that change a result or are written into it.

        It is part of every result's UID. The names of the keys in it therefore stay when a key of the file is renamed.
        """
        chosen = {
            **self.analysis.in_results,
            "node": [__version__, self.node.ae_title, self.node.time_zone],
            "report": self.report.in_results,
        }
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()

    @property
    def prior_seconds(self) -> float:
        """Return the seconds that the search for earlier reports in archives may take before an analysis begins."""
        return self.report.prior_timeout if self.report.follow_up == "archives" else 0.0

    @property
    def database_url(self) -> str:
        """Return the SQLAlchemy URL of the database."""
        return self.database.url or f"sqlite:///{self.node.data_dir.resolve() / 'alnnode.db'}"

    @property
    def redis_socket(self) -> Path:
        """Return the Unix socket of the private Redis."""
        return self.node.data_dir.resolve() / "redis" / "redis.sock"

    @property
    def broker_url(self) -> str:
        """Return the URL of the Celery broker."""
        return self.broker.url or f"redis+socket://{self.redis_socket}"

    @property
    def called_ae_titles(self) -> tuple[str, ...]:
        """Return the AE titles that the listener answers to; empty means any."""
        titles = self.listener.called_ae_titles or (self.node.ae_title,)
        return () if "*" in titles else titles

    @property
    def calling_ae_titles(self) -> tuple[str, ...]:
        """Return the AE titles that may send; empty means any."""
        return () if "*" in self.listener.calling_ae_titles else self.listener.calling_ae_titles
