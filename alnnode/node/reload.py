"""The reload of the configuration: SIGHUP to a supervisor, and the file by which ``alnnode reload`` finds the supervisors of this host.

A configuration with an error, or one that a process does not start with, changes nothing: the node goes on with the old one, and log and
command say why.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from alnnode.errors import BundleError, ServiceError, SettingsError
from alnnode.settings import load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from alnnode.settings import Settings

FOLDER = "supervisors"  # in data_dir: one locked file for each running supervisor
FORGOTTEN = 86400.0  # seconds
ANSWER_LIMIT = 120.0  # seconds for a supervisor to replace its processes

# What a running node cannot change, as administrators know it.
_FIXED = (
    ("[node] data_dir", lambda settings: settings.node.data_dir.resolve()),
    ("[database] url", lambda settings: settings.database_url),
    ("[spool]", lambda settings: settings.spool),
    ("[broker] url", lambda settings: settings.broker_url),
    ("[listener] host and port", lambda settings: (settings.listener.host, settings.listener.port)),
    ("[web] enabled, host and port", lambda settings: (settings.web.enabled, settings.web.host, settings.web.port)),
)


def changed_settings(present: Settings, config: Path | None, *, analyses: bool) -> Settings:
    """Read the configuration once more.

    Args:
        present: the settings of the running node.
        config: the settings file; None if the node has none.
        analyses: whether the supervisor has an analysing worker, which needs the model bundle.

    Raises:
        SettingsError: it has an error, or changes what only a restart can change.
    """
    settings = load(config)
    fixed = [name for name, value in _FIXED if value(settings) != value(present)]
    if fixed:
        raise SettingsError(f"{', '.join(fixed)}: a reload cannot change this; restart the node")
    if analyses:
        from alnnode.model import bundle  # noqa: PLC0415 - a supervisor starts without pydicom, whose import takes half a second

        try:
            bundle.load(bundle.resolve(settings.analysis.bundle))
        except BundleError as error:
            raise SettingsError(f"[analysis] bundle: {error}") from error
    return settings


@dataclass(frozen=True, slots=True)
class SupervisorState:
    """What a supervisor tells other processes of its host.

    Attributes:
        pid: of its process.
        command: of ``alnnode``: serve, listen, web or work.
        read_at: when it read the configuration that it uses (ISO 8601).
        reloads: how often it was asked to read it again.
        error: why it kept the old configuration the last time; empty if it uses the new one.
    """

    pid: int
    command: str
    read_at: str
    reloads: int = 0
    error: str = ""


class SupervisorFile:
    """The file of a running supervisor; its lock shows that the process runs."""

    def __init__(self, path: Path, command: str) -> None:
        self._path = path
        self._state = SupervisorState(os.getpid(), command, _now())
        self._write()

    def reloaded(self, error: str = "") -> None:
        """Write the outcome of a reload."""
        state = self._state
        read_at = state.read_at if error else _now()
        self._state = SupervisorState(state.pid, state.command, read_at, state.reloads + 1, error)
        with suppress(OSError):  # a full disk stops no reload; the log has the outcome too
            self._write()

    def _write(self) -> None:
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(self._state)), encoding="utf-8")
        temporary.replace(self._path)


@contextmanager
def announced(data_dir: Path, command: str) -> Iterator[SupervisorFile]:
    """Announce this supervisor to ``alnnode reload`` inside the ``with`` block."""
    folder = data_dir.resolve() / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _delete_old(folder)
    name = f"{socket.gethostname()}-{os.getpid()}"
    lock = folder / f"{name}.lock"
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield SupervisorFile(folder / f"{name}.json", command)
        finally:
            for path in (folder / f"{name}.json", lock):
                path.unlink(missing_ok=True)


def running(data_dir: Path) -> dict[Path, SupervisorState]:
    """Return the supervisors of this data directory that run on this host, by their files."""
    found = {}
    for path in sorted((data_dir.resolve() / FOLDER).glob(f"{socket.gethostname()}-*.json")):
        with suppress(OSError, ValueError, TypeError):
            if _is_locked(path.with_suffix(".lock")):
                found[path] = SupervisorState(**json.loads(path.read_text(encoding="utf-8")))
    return found


def reload_all(data_dir: Path) -> dict[str, str]:
    """Ask every supervisor of this host to reload; return the error of each by its command and process id, empty if there was none.

    Raises:
        ServiceError: no supervisor runs, or one does not answer.
    """
    asked = running(data_dir)
    if not asked:
        raise ServiceError(
            f"no node runs on this host with the data directory {data_dir.resolve()}; a start reads the configuration"
        )
    for state in asked.values():
        try:
            os.kill(state.pid, signal.SIGHUP)
        except PermissionError as error:
            raise ServiceError("the node runs as another user: run this command as that user") from error
    deadline, outcome = time.monotonic() + ANSWER_LIMIT, dict[str, str]()
    while len(outcome) < len(asked):
        present = running(data_dir)
        for path, before in asked.items():
            name, after = f"{before.command} (process {before.pid})", present.get(path)
            if after is None:
                outcome[name] = "it ended meanwhile; see its log"
            elif after.reloads > before.reloads:
                outcome[name] = after.error
        if time.monotonic() > deadline:
            raise ServiceError(f"the node does not answer within {ANSWER_LIMIT:.0f} s; see its log")
        time.sleep(0.1)
    return outcome


def _delete_old(folder: Path) -> None:
    """Delete the files that supervisors of this host left when they were killed, a day ago or earlier."""
    for lock in folder.glob(f"{socket.gethostname()}-*.lock"):
        with suppress(OSError):
            if time.time() - lock.stat().st_mtime > FORGOTTEN and not _is_locked(lock):
                lock.with_suffix(".json").unlink(missing_ok=True)
                lock.unlink()


def _is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
