"""The command that retrieves earlier studies: backfill."""

from __future__ import annotations

import signal
from datetime import UTC, datetime
from typing import Annotated

import typer

from alnnode.cli.shared import EXIT_FAILED, Config, load_settings, open_database, stop

DAY = "%Y-%m-%d"


def backfill(
    archive: Annotated[str, typer.Argument(help="Name of the archive in [[archives]].")],
    first: Annotated[datetime, typer.Option("--from", formats=[DAY], help="First day of the studies.")],
    last: Annotated[
        datetime | None, typer.Option("--to", formats=[DAY], help="Last day of the studies. Default: today.")
    ] = None,
    rate: Annotated[float, typer.Option(min=0.1, help="Most series in an hour.")] = 60,
    waiting: Annotated[int, typer.Option(min=1, help="Wait while so many jobs wait in the node.", metavar="JOBS")] = 20,
    search_only: Annotated[bool, typer.Option("--search-only", help="Search and count, but retrieve nothing.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Retrieve series that failed before.")] = False,
    config: Config = None,
) -> None:
    """Retrieve earlier studies from an archive.

    The node analyses them at the lowest priority. Stop the command at any time; the same command continues, and requests nothing twice.
    """
    from alnnode.backfill.backfill import Backfill, Plan  # noqa: PLC0415

    settings = load_settings(config)
    found = next((one for one in settings.archives if one.name == archive), None)
    if found is None:
        names = ", ".join(one.name for one in settings.archives) or "none"
        stop(f"There is no archive {archive!r} in [[archives]]; the configured archives are: {names}.", EXIT_FAILED)
    begin, end = first.date(), (last or datetime.now(UTC).astimezone()).date()
    if begin > end:
        stop(f"--from {begin} is after --to {end}: exchange them.", EXIT_FAILED)
    run = Backfill(settings, open_database(settings, config), Plan(found, begin, end, rate, waiting), typer.echo)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: run.stop.set())
    if retry_failed:
        run.rows.retry_failed(begin, end, datetime.now(UTC))
    run.run(search_only=search_only)
    counts = run.rows.counts(begin, end)
    total, failed = sum(counts.values()), counts.get("FAILED", 0)
    typer.echo(f"{begin} to {end}: {total} series, {counts.get('RETRIEVED', 0)} retrieved, {failed} failed")
    if run.stop.is_set():
        typer.echo("Stopped. The same command continues.")
    if failed:
        typer.echo("--retry-failed retrieves the failed series again.")
        raise typer.Exit(EXIT_FAILED)
