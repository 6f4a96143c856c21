"""A log file for each job, which the status page shows: every event that names the job, from every process of the node.

The files lie in the data directory, which all hosts share. Events hold no patient data, so the files hold none.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from structlog.typing import EventDict

FOLDER = "job-logs"  # in data_dir
MAX_BYTES = 64 << 10  # of one file; a job that is retried for years must not fill the disk
_JOB_ID = re.compile(r"^[0-9a-f]{32}$")


class JobLogs:
    """Safe to share between threads and processes."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir.resolve() / FOLDER

    def write(self, _logger: Any, _method: str, event: EventDict) -> EventDict:
        """Append an event to the log of its job: a processor of structlog, which returns the event as it is."""
        job = event.get("job")
        if isinstance(job, str) and _JOB_ID.fullmatch(job):
            line = json.dumps(
                {key: value for key, value in event.items() if not key.startswith("_") and key != "job"}, default=str
            )
            with suppress(OSError):  # the log on standard error has the event too
                self._append(self._path(job), line.encode() + b"\n")
        return event

    def read(self, job: str) -> tuple[dict[str, Any], ...]:
        """Return the events of a job, the oldest first."""
        if not _JOB_ID.fullmatch(job):
            return ()
        found = []
        with suppress(OSError):
            for line in self._path(job).read_bytes().splitlines():
                with suppress(ValueError):  # the last line may be incomplete after a power failure
                    found.append(dict(json.loads(line)))
        return tuple(found)

    def delete_before(self, moment: float) -> int:
        """Delete the files without an event since this time (seconds since the epoch); return how many."""
        deleted = 0
        for path in self._folder.glob("*/*.jsonl"):
            with suppress(OSError):
                if path.stat().st_mtime < moment:
                    path.unlink()
                    deleted += 1
        return deleted

    def _path(self, job: str) -> Path:
        return self._folder / job[:2] / f"{job}.jsonl"

    @staticmethod
    def _append(path: Path, line: bytes) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(handle).st_size + len(line) <= MAX_BYTES:
                os.write(handle, line)
        finally:
            os.close(handle)
