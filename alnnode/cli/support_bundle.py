"""What a support bundle holds: versions, settings without secrets, counts, last errors, and the output of `alnnode check`.

It holds no patient data and no secret. Free texts that come from received objects are left out: descriptions, and the reasons of SKIPPED
jobs, which quote header values. UIDs are left out too.
"""

from __future__ import annotations

import json
import platform
import re
import sys
import zipfile
from dataclasses import asdict
from importlib.metadata import distributions
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from alnnode import __version__
from alnnode.cli import check
from alnnode.db import engine as engines
from alnnode.db.notify_tables import ConditionRow, MessageRow
from alnnode.db.tables import CommitmentRequest, Delivery, Instance, Job
from alnnode.process import heartbeat
from alnnode.records import JobState

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Executable
    from sqlalchemy.engine import Connection

    from alnnode.settings import Settings

MOST = 100  # errors of each kind
LEFT_OUT = "(left out)"
# Keys with these words hold secrets or their digests; keys that end in "_file" only say where they are.
_SECRET = re.compile(r"sha256|secret|password|passcode|token$", re.IGNORECASE)
_URL = re.compile(r"^([a-z][a-z0-9+.-]*://)(?:.*@)?([^/?#]*).*$", re.IGNORECASE | re.DOTALL)
_USER = re.compile(r"([a-z][a-z0-9+.-]*://)\S*@", re.IGNORECASE)
_UID = re.compile(r"\b[0-2](?:\.[0-9]+){4,}\b")
# Free texts that an administrator may have taken from a patient's study.
_FREE_TEXTS = frozenset({"description", "exclude_description", "kernel"})


def write(settings: Settings, config: Path | None, file: Path) -> list[str]:
    """Write the bundle, a ZIP file; return the names of the files in it.

    Raises:
        OSError: the file cannot be written.
    """
    contents: dict[str, Callable[[], object]] = {
        "versions.json": _versions,
        "settings.json": lambda: without_secrets(settings.model_dump(mode="json")),
        "check.json": lambda: [asdict(result) for result in check.run(settings, config)],
        "database.json": lambda: _database(settings),
        "workers.json": lambda: {name: round(age, 1) for name, age in heartbeat.ages(settings.node.data_dir).items()},
    }
    with zipfile.ZipFile(file, "x", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in contents.items():
            try:
                found = content()
            except (SQLAlchemyError, OSError) as error:
                found = {"error": type(error).__name__}  # its text may hold a password or parameters
            bundle.writestr(name, json.dumps(_clean(found), indent=1, default=str) + "\n")
    return list(contents)


def without_secrets(value: Any, key: str = "") -> Any:
    """Return settings without secrets: of URLs, scheme, host and port stay; values of secret keys and free texts are left out."""
    if isinstance(value, dict):
        return {name: without_secrets(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [without_secrets(item, key) for item in value]
    if not isinstance(value, str) or not value:
        return value
    if key in _FREE_TEXTS or (_SECRET.search(key) and not key.endswith("_file")):
        return LEFT_OUT
    return _URL.sub(r"\1\2", value) if "://" in value else value


def _clean(value: Any) -> Any:
    """Return a value whose texts hold no UID, and no user name and password of a URL."""
    if isinstance(value, dict):
        return {name: _clean(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return _UID.sub("(UID)", _USER.sub(r"\1", value)) if isinstance(value, str) else value


def _versions() -> dict[str, object]:
    packages = {str(found.metadata["Name"]): found.version for found in distributions()}
    return {
        "alnnode": __version__,
        "python": sys.version,
        "system": platform.platform(),
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }


def _database(settings: Settings) -> dict[str, object]:
    database = engines.create(settings.database_url)
    job = (Job.job_id, Job.finished_at, Job.attempts, Job.reason)
    failed_jobs = select(*job).where(Job.state == JobState.FAILED).order_by(Job.finished_at.desc())
    delivery = (Delivery.job_id, Delivery.destination, Delivery.state, Delivery.attempts, Delivery.last_error)
    failed_deliveries = select(*delivery).where(Delivery.last_error.is_not(None)).order_by(Delivery.next_attempt_at.desc())
    try:
        with database.connect() as connection:
            return {
                "jobs": _counts(connection, Job.state),
                "deliveries": _counts(connection, Delivery.destination, Delivery.state),
                "commitment_requests": _counts(connection, CommitmentRequest.state),
                "notifications": _counts(connection, MessageRow.channel, MessageRow.state),
                "conditions": _rows(connection, select(ConditionRow.name, ConditionRow.since)),
                "instances": connection.execute(select(func.count()).select_from(Instance)).scalar_one(),
                "failed_jobs": _rows(connection, failed_jobs.limit(MOST)),
                "failed_deliveries": _rows(connection, failed_deliveries.limit(MOST)),
            }
    finally:
        database.dispose()


def _counts(connection: Connection, *columns: Any) -> dict[str, int]:
    """Return the numbers of rows by the values of columns, as "pacs SENT"."""
    rows = connection.execute(select(*columns, func.count()).group_by(*columns).order_by(*columns))
    return {" ".join(map(str, row[:-1])): row[-1] for row in rows}


def _rows(connection: Connection, query: Executable) -> list[dict[str, object]]:
    return [dict(row) for row in connection.execute(query).mappings()]
