"""Commands that inspect the installation: check, advisories."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - Typer reads the annotation at run time
from typing import TYPE_CHECKING, Annotated

import typer

from alnnode.cli.shared import EXIT_FAILED, Config, config_path, load_settings, print_table, stop

if TYPE_CHECKING:
    from collections.abc import Iterable

    from alnnode.cli.check import Result


def check(
    config: Config = None,
    send: Annotated[
        str | None,
        typer.Option(metavar="DESTINATION", help="Send a test study, marked as no patient, to a destination of the settings."),
    ] = None,
) -> None:
    """Check what the node needs, and say what to do.

    Checked are settings, disk, ports, database, broker, model, device, certificates, and every destination and DICOM archive.
    """
    from alnnode.cli import check as checks  # noqa: PLC0415

    settings = load_settings(config)
    names = [one.name for one in settings.destinations]
    if send is not None and send not in names:
        raise typer.BadParameter(f"the settings have no destination {send!r}, only: {', '.join(names) or 'none'}")
    results = list(checks.run(settings, config_path(config)))
    if send is not None:
        results.append(checks.send(settings, send))
    print_results(results)
    if not all(one.passed for one in results):
        raise typer.Exit(EXIT_FAILED)


def print_results(results: Iterable[Result]) -> None:
    """Print checks as a table."""
    from rich.text import Text  # noqa: PLC0415

    marks = {True: Text("✓", "green"), False: Text("✗", "red")}
    print_table(("", "what", "found", "what to do"), ([marks[one.passed], one.what, one.found, one.advice] for one in results))


def advisories(
    files: Annotated[
        list[Path],
        typer.Argument(help="OSV advisories: JSON files, folders of them, or all.zip of the PyPI ecosystem from osv.dev."),
    ],
) -> None:
    """Check the installed packages against local OSV files. No network is used."""
    from alnnode.cli import advisories as local  # noqa: PLC0415

    packages = local.installed()
    count, found = local.check(local.read(files), packages)
    if not count:
        names = ", ".join(map(str, files))
        stop(f"There is no advisory in {names}: give JSON files, folders of them, or all.zip of osv.dev.", EXIT_FAILED)
    for one in found:
        remedy = f"fixed in {one.fixed}" if one.fixed else "no fixed version is named"
        typer.echo(f"{one.package} {one.version}: {one.advisory}: {one.summary} ({remedy})")
    typer.echo(f"{len(packages)} packages, {count} advisories, {len(found)} findings")
    if found:
        raise typer.Exit(EXIT_FAILED)
