"""Make a backup in a new folder: database first, then the files, so that each row has its file; the manifest last."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from alnnode import __version__
from alnnode.backup import database_copy
from alnnode.db import schema
from alnnode.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alnnode.settings import Settings

MANIFEST, FORMAT = "manifest.json", 1
FOLDERS = ("spool", "audit")  # of data_dir; heartbeats and the queue of Redis are not needed
LEFT_OUT = "incoming"  # files of the spool that are being written
LAST_BACKUP = "last-backup"  # a file of data_dir, whose time is that of the last backup


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup holds; the last file that is written, so that a backup without it is not complete.

    Attributes:
        format: of the backup.
        version: of alnnode.
        schema: of the database.
        database: name of the file with the database.
        made_at: time of the copy of the database, ISO 8601.
        files: number of files of the spool and of the audit trail.
        size: of these files, in bytes.
    """

    format: int
    version: str
    schema: str
    database: str
    made_at: str
    files: int
    size: int


def make(settings: Settings, folder: Path, config: Path | None) -> Manifest:
    """Back up database, spool, waiting audit messages and the settings file into a new or empty folder. The node may run.

    Raises:
        ServiceError: the folder is not empty or inside data_dir, or the database cannot be copied.
        OSError: the disk does not accept the files.
    """
    data_dir = settings.node.data_dir.resolve()
    folder = folder.resolve()
    if folder.is_relative_to(data_dir):
        raise ServiceError(f"{folder} is inside data_dir: choose a folder on another disk")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        state = "not empty" if folder.is_dir() else "no folder"
        raise ServiceError(f"{folder} is {state}: choose a new folder for each backup")
    if settings.spool.bucket:
        raise ServiceError(
            "the received objects are in the bucket [spool] bucket, which this command does not copy: back up the bucket with the tools of its "
            "server, and the database with those of PostgreSQL"
        )
    state = schema.schema_state(settings.database_url)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    made_at = datetime.now(UTC)
    file = database_copy.back_up(settings.database_url, folder)
    file.chmod(0o600)
    files = size = 0
    for name in FOLDERS:
        count, length = copy_tree(data_dir / name, folder / name)
        files, size = files + count, size + length
    if config is not None:
        shutil.copyfile(config, folder / "config.toml")
        (folder / "config.toml").chmod(0o600)
    manifest = Manifest(FORMAT, __version__, state.removeprefix("schema "), file.name, made_at.isoformat(), files, size)
    os.sync()
    (folder / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1) + "\n", encoding="utf-8")
    (data_dir / LAST_BACKUP).touch()
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a backup.

    Raises:
        ServiceError: the folder is no complete backup of this format.
    """
    try:
        found = Manifest(**json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ServiceError(
            f"{folder} is no complete backup (no readable {MANIFEST}): use a folder that `alnnode backup` wrote"
        ) from error
    if found.format != FORMAT:
        raise ServiceError(
            f"{folder} has format {found.format}; this version restores format {FORMAT}: use alnnode {found.version}"
        )
    return found


def copy_tree(source: Path, target: Path) -> tuple[int, int]:
    """Copy a folder with mode 0700 and its files with mode 0600; return the number of files and bytes.

    A file that the node deletes or renames meanwhile is left out.
    """
    files = size = 0
    for path in _files(source):
        copy = target / path.relative_to(source)
        _make_folders(copy.parent)
        with suppress(FileNotFoundError):
            shutil.copy2(path, copy)
            copy.chmod(0o600)
            files, size = files + 1, size + copy.stat().st_size
    return files, size


def _make_folders(folder: Path) -> None:
    """Make a folder and its missing parents, each with mode 0700, which `Path.mkdir` gives to the last one only."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700)


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not (name == LEFT_OUT and Path(parent) == folder))
        for name in sorted(names):
            yield Path(parent) / name
