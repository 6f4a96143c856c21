"""Sections ``[database]`` and ``[broker]``."""

from __future__ import annotations

from pydantic import field_validator

from alnnode.settings.section import Section


class Database(Section):
    """The database that holds all state. An empty url means SQLite in the data directory."""

    url: str = ""

    @field_validator("url")
    @classmethod
    def _known_dialect(cls, value: str) -> str:
        if value and not value.startswith(("sqlite:///", "postgresql+psycopg://")):
            raise ValueError('use "sqlite:///…" or "postgresql+psycopg://user@host/database"; empty means SQLite in data_dir')
        return value


class Broker(Section):
    """The broker of the Celery task queue. An empty url means a private Redis in the data directory."""

    url: str = ""

    @field_validator("url")
    @classmethod
    def _is_redis(cls, value: str) -> str:
        if value.startswith("sentinel://"):  # in tests Celery's workers stopped receiving tasks after a failover
            raise ValueError("Redis Sentinel is not supported; give Redis and its replica one address that moves between them")
        if value and not value.startswith(("redis://", "rediss://", "redis+socket://")):
            raise ValueError(
                'use "redis://…", "rediss://…" or "redis+socket://…": the node reads the Redis queues to find lost tasks'
            )
        return value
