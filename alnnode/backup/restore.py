"""Restore a backup into an empty data directory, and bring the spool and the database to agree."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from alnnode.backup import database_copy
from alnnode.backup.backup import FOLDERS, copy_tree, read_manifest
from alnnode.db import engine as engines
from alnnode.db.tables import Delivery, DeliveryState, Instance, Job
from alnnode.errors import ServiceError
from alnnode.records import JobState
from alnnode.spool.spool import Spool

if TYPE_CHECKING:
    from pathlib import Path

    from alnnode.backup.backup import Manifest
    from alnnode.settings import Settings

UNFINISHED = (JobState.RECEIVING, JobState.READY, JobState.RUNNING)
MIB = 2**20
SUFFIXES = ("", "-wal", "-shm")  # files of an SQLite database


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored, and what is not as it was.

    Attributes:
        manifest: of the backup.
        jobs: number of jobs.
        unfinished: jobs that are analysed now.
        to_deliver: deliveries that are made now; a destination may get results twice, with the same UIDs and bytes.
        journalled: objects without a row, which the node records at its start.
        missing: objects of the database whose files the backup does not have.
        set_aside: where the data are that were there before.
    """

    manifest: Manifest
    jobs: int
    unfinished: int
    to_deliver: int
    journalled: int
    missing: int
    set_aside: Path | None


def restore(settings: Settings, folder: Path, *, replace: bool) -> Restored:
    """Restore a backup. No process of the node may run.

    Args:
        settings: of the node; they say where data_dir and database are.
        folder: of the backup.
        replace: set aside the data that are there, instead of refusing.

    Raises:
        ServiceError: the folder is no backup, is damaged or of another kind, or there are data already. Nothing was changed.
        OSError: the disk does not accept the files.
    """
    manifest = read_manifest(folder)
    url, data_dir = settings.database_url, settings.node.data_dir.resolve()
    kind = database_copy.SQLITE_FILE if database_copy.is_sqlite(url) else database_copy.DUMP_FILE
    if manifest.database != kind:
        raise ServiceError(f"the backup holds {manifest.database}, and [database] url needs {kind}: correct [database] url")
    if settings.spool.bucket:
        raise ServiceError(
            "the received objects are in the bucket [spool] bucket: restore the database with the tools of PostgreSQL"
        )
    present = _present(settings)
    if present and not replace:
        raise ServiceError(
            f"{present[0]} exists: restore into an empty data_dir, or use --replace, which sets the present data aside"
        )
    database_copy.check(url, folder)
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if shutil.disk_usage(data_dir).free < manifest.size:
        raise ServiceError(
            f"{data_dir} needs {manifest.size // MIB + 1} MiB of free space for the files of the backup: free space"
        )
    set_aside = _set_aside(data_dir, present) if present else None
    for name in FOLDERS:
        copy_tree(folder / name, data_dir / name)
    database_copy.restore(url, folder)
    restored = _agree(settings, manifest, set_aside)
    _give_to_owner(data_dir)
    return restored


def _present(settings: Settings) -> list[Path]:
    """Return the data that a restore would mix with those of the backup."""
    data_dir = settings.node.data_dir.resolve()
    found = [data_dir / name for name in FOLDERS if any(path.is_file() for path in (data_dir / name).rglob("*"))]
    if database_copy.is_sqlite(settings.database_url):
        file = database_copy.sqlite_path(settings.database_url)
        found += [path for path in (file.with_name(file.name + suffix) for suffix in SUFFIXES) if path.exists()]
    return found


def _set_aside(data_dir: Path, present: list[Path]) -> Path:
    aside = data_dir / f"replaced-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    aside.mkdir(mode=0o700)
    for path in present:
        path.rename(aside / path.name)
    return aside


def _agree(settings: Settings, manifest: Manifest, set_aside: Path | None) -> Restored:
    """Put objects without a row into the journal, and count what is missing or begins anew."""
    spool, database = Spool(settings.node.data_dir / "spool"), engines.create(settings.database_url)
    try:
        with database.connect() as connection:
            recorded = set(connection.execute(select(Instance.path)).scalars())
            by_state = select(Job.state, func.count()).group_by(Job.state)
            counts = {row[0]: row[1] for row in connection.execute(by_state)}
            waiting = Delivery.state.in_((DeliveryState.PENDING, DeliveryState.COMMITTING))
            to_deliver = connection.execute(select(func.count()).where(waiting)).scalar_one()
    except SQLAlchemyError as error:
        raise ServiceError(f"the restored database cannot be read ({type(error).__name__}): use another backup") from error
    finally:
        database.dispose()
    journalled = 0
    for path in sorted((spool.root / "objects").rglob("*.dcm")):
        if f"{path.relative_to(spool.root)}" not in recorded:  # it was recorded after the database was copied
            path.rename(spool.root / "pending" / path.name)
            journalled += 1
    missing = sum(not spool.is_published(relative) for relative in recorded)
    unfinished = sum(counts.get(state, 0) for state in UNFINISHED)
    return Restored(manifest, sum(counts.values()), unfinished, to_deliver, journalled, missing, set_aside)


def _give_to_owner(data_dir: Path) -> None:
    """Give all files to the owner of data_dir, when root restores them for the user of the node."""
    owner = data_dir.stat()
    if os.geteuid() or not owner.st_uid:
        return
    for parent, folders, names in os.walk(data_dir):
        for name in (*folders, *names):
            os.chown(os.path.join(parent, name), owner.st_uid, owner.st_gid, follow_symlinks=False)  # noqa: PTH118
