"""Sections ``[database]`` and ``[broker]``."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import field_validator

from alnnode.settings.section import Section

MOST_PORT = 65535
ESCAPE = "write characters such as @, #, / and % of a password as %40, %23, %2F and %25"


class Database(Section):
    """The database that holds all state. An empty url means SQLite in the data directory."""

    url: str = ""

    @field_validator("url")
    @classmethod
    def _known_dialect(cls, value: str) -> str:
        if value and not value.startswith(("sqlite:///", "postgresql+psycopg://")):
            raise ValueError('use "sqlite:///…" or "postgresql+psycopg://user@host/database"; empty means SQLite in data_dir')
        if value in {"sqlite:///", "sqlite:///:memory:"}:
            raise ValueError("name a file, which all processes of the node share; empty means SQLite in data_dir")
        return value

    @field_validator("url")
    @classmethod
    def _is_a_url(cls, value: str) -> str:
        if not value:
            return value
        from sqlalchemy import make_url  # noqa: PLC0415 - only a node with a database of its own needs SQLAlchemy for its settings
        from sqlalchemy.exc import ArgumentError  # noqa: PLC0415

        try:
            usable = 0 < (make_url(value).port or 1) <= MOST_PORT
        except (ArgumentError, ValueError):
            usable = False
        if not usable:
            raise ValueError(f'host or port is not one, as in "postgresql+psycopg://user@host:5432/database"; {ESCAPE}')
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
        if value and not _usable(value):
            raise ValueError(f'host, port or number of the database is not one, as in "redis://host:6379/0"; {ESCAPE}')
        return value


def _usable(url: str) -> bool:
    """Return whether the parts of a URL of Redis can be used: the path of a socket, or host, port and number of the database."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    if parts.scheme == "redis+socket":
        return len(parts.path) > 1
    return bool(parts.hostname) and port != 0 and (parts.path[1:].isdecimal() or not parts.path[1:])
