"""Commands that keep the data of a node: backup, restore."""

from __future__ import annotations

import fcntl
import socket
from contextlib import contextmanager
from pathlib import Path  # noqa: TC003 - Typer reads the annotation at run time
from typing import TYPE_CHECKING, Annotated

import typer

from alnnode.cli.shared import EXIT_FAILED, Config, config_path, load_settings, stop
from alnnode.counted import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alnnode.settings import Settings

MIB = 2**20


def backup(
    folder: Annotated[Path, typer.Argument(help="New folder for the backup, on another disk. It holds patient data.")],
    config: Config = None,
) -> None:
    """Back up database, spool and settings. The node may run.

    The backup holds patient data. Secrets and certificates that the settings name by file are not in it.
    """
    from alnnode.backup.backup import make  # noqa: PLC0415

    settings = load_settings(config)
    try:
        manifest = make(settings, folder, config_path(config))
    except OSError as error:
        stop(f"The backup is not complete ({error.strerror}: {error.filename}): free space, and use a new folder.", EXIT_FAILED)
    typer.echo(f"{folder}: database of {manifest.made_at}, {counted(manifest.files, 'file')}, {manifest.size / MIB:.0f} MiB")
    typer.echo("Not in it: the files that the settings name (certificates, tokens, model bundle), and the queue of Redis.")


def restore(
    folder: Annotated[Path, typer.Argument(help="Folder that `alnnode backup` wrote.", exists=True, file_okay=False)],
    replace: Annotated[bool, typer.Option("--replace", help="Set present data aside in data_dir, and restore.")] = False,
    config: Config = None,
) -> None:
    """Restore a backup. No process of the node may run.

    It prints what is lost, and what the node does again at its start.
    """
    from alnnode.backup.restore import restore as restore_backup  # noqa: PLC0415

    settings = load_settings(config)
    with _no_node(settings):
        try:
            found = restore_backup(settings, folder, replace=replace)
        except OSError as error:
            stop(
                f"The restore is not complete ({error.strerror}: {error.filename}): correct it, then use --replace.",
                EXIT_FAILED,
            )
    lines = [
        f"Restored: {counted(found.jobs, 'job')} as of {found.manifest.made_at}, {counted(found.manifest.files, 'file')}.",
        f"Lost: all that the node received, analysed or delivered after {found.manifest.made_at}. Ask the senders to send it again.",
        f"Lost: the files of {counted(found.missing, 'object')} that the node deleted during the backup."
        if found.missing
        else "",
        f"The node records at its start {counted(found.journalled, 'object that was', 'objects that were')} received during the backup."
        if found.journalled
        else "",
        f"The node analyses {counted(found.unfinished, 'job')} again." if found.unfinished else "",
        f"The node makes {counted(found.to_deliver, 'delivery', 'deliveries')}; results that were sent before have the same UIDs and bytes."
        if found.to_deliver
        else "",
        f"The data that were here before are in {found.set_aside}: they hold patient data; delete them when the node runs."
        if found.set_aside
        else "",
        "Next: restore the files that the settings name, run `alnnode migrate` and `alnnode check`, and start the node.",
    ]
    for line in filter(None, lines):
        typer.echo(line)


@contextmanager
def _no_node(settings: Settings) -> Iterator[None]:
    """Hold the lock of the data directory; stop when a process of the node runs."""
    from alnnode.node.data_dir import open_lock  # noqa: PLC0415
    from alnnode.process import heartbeat  # noqa: PLC0415

    data_dir = settings.node.data_dir.resolve()
    with open_lock(data_dir) as file:
        alive = [name for name, age in heartbeat.ages(data_dir).items() if age < heartbeat.LATE]
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            stop(f"`alnnode serve` uses {data_dir}: stop it first. Nothing was restored.", EXIT_FAILED)
        if alive:
            stop(
                f"The worker {alive[0]} runs, or ended less than {heartbeat.LATE:.0f} s ago: stop it first. Nothing was restored.",
                EXIT_FAILED,
            )
        for what, host, port in (
            ("listener", settings.listener.host, settings.listener.port),
            ("web", settings.web.host, settings.web.port),
        ):
            if _answers(host, port):
                stop(
                    f"Something answers on port {port} ([{what}]): stop the node on all hosts first. Nothing was restored.",
                    EXIT_FAILED,
                )
        yield


def _answers(host: str, port: int) -> bool:
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - the address of the settings, not a bind
    try:
        with socket.create_connection((address, port), 2):
            return True
    except OSError:
        return False
