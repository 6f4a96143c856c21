"""All sections together."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Self

from pydantic import model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from alnnode import __version__
from alnnode.settings.analysis import Analysis, Completion, Report, Route, Worklist
from alnnode.settings.node import Audit, Broker, Database, Logging, Node, Retention
from alnnode.settings.peers import Archive, Commitment, Destination, Listener
from alnnode.settings.web import Web

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
        """sha256 (hex) over this version and the keys that change a result or are written in it: part of every result's UID."""
        chosen = self.analysis.model_dump(mode="json", exclude={"bundle", "device", "threads", "report_not_analysed"})
        chosen["node"] = [__version__, self.node.ae_title, self.node.time_zone]
        chosen["report"] = {
            **self.report.model_dump(mode="json", exclude={"prior_timeout"}),
            "kinds": sorted(self.report.kinds),
        }
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()

    @property
    def prior_seconds(self) -> float:
        """Seconds that the look for earlier reports in archives may take before an analysis begins."""
        return self.report.prior_timeout if self.report.follow_up == "archives" else 0.0

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
