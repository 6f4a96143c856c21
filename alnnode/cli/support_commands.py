"""The command for reports of faults: support-bundle."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from alnnode.cli.shared import EXIT_FAILED, Config, config_path, load_settings, stop


def support_bundle(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="ZIP file to write. Default: alnnode-support-TIME.zip here.")
    ] = None,
    config: Config = None,
) -> None:
    """Write a ZIP file for a report of a fault.

    It holds versions, settings without secrets, counts, last errors and the output of check; no patient data.
    """
    from alnnode.cli.support_bundle import write  # noqa: PLC0415

    settings = load_settings(config)
    file = out or Path(f"alnnode-support-{datetime.now(UTC):%Y%m%dT%H%M%S}.zip")
    try:
        names = write(settings, config_path(config), file)
    except FileExistsError:
        stop(f"{file} exists: choose another --out.", EXIT_FAILED)
    except OSError as error:
        stop(f"Cannot write {file} ({error.strerror}): choose another --out.", EXIT_FAILED)
    typer.echo(f"{file}: {', '.join(names)}")
    typer.echo("Look at the files before you send them. Add the log: journalctl -u alnnode --since -2h.")
