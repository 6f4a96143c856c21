"""Commands that control a running node: reload, pause, resume."""

from __future__ import annotations

import time
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from alnnode.cli.shared import EXIT_FAILED, Config, load_settings, open_database, stop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy.engine import Engine

    from alnnode.settings import Settings

POLL = 0.5  # seconds between two looks at the running jobs


class What(StrEnum):
    """What can be paused."""

    ANALYSIS = "analysis"
    DESTINATION = "destination"


Paused = Annotated[What, typer.Argument(help="The analysis, or one destination.")]
Name = Annotated[str, typer.Argument(help="Name of the destination.", show_default=False)]


def reload(config: Config = None) -> None:
    """Let the running node read its configuration once more.

    No association is dropped. If the configuration has an error, the node keeps the old one.
    """
    from alnnode.node.reload import reload_all  # noqa: PLC0415

    outcome = reload_all(load_settings(config).node.data_dir)
    for name, error in outcome.items():
        typer.echo(f"{name}: keeps the old configuration. {error}" if error else f"{name}: uses the new configuration")
    if any(outcome.values()):
        raise typer.Exit(EXIT_FAILED)


def pause(
    what: Paused,
    name: Name = "",
    config: Config = None,
    drain: Annotated[bool, typer.Option("--drain", help="Wait until no analysis runs.")] = False,
) -> None:
    """Pause the analysis or a destination until `alnnode resume`.

    What runs goes on to its end. The node still receives; jobs and results wait.
    """
    settings = load_settings(config)
    target = _target(settings, what, name)
    with _acting(settings, config, f"pause of the {target}") as (database, who):
        from alnnode.db.pauses import Pauses  # noqa: PLC0415

        Pauses(database).pause(target, who)
        if drain:
            _drain(database)
    typer.echo(f"The {target} is paused" + (", and no analysis runs." if drain else "."))


def resume(what: Paused, name: Name = "", config: Config = None) -> None:
    """End a pause."""
    settings = load_settings(config)
    target = _target(settings, what, name, known=False)
    with _acting(settings, config, f"resumption of the {target}") as (database, _):
        from alnnode.db.pauses import Pauses  # noqa: PLC0415

        was_paused = Pauses(database).resume(target)
    typer.echo(f"The {target} goes on within a few seconds." if was_paused else f"The {target} was not paused.")


def _target(settings: Settings, what: What, name: str, *, known: bool = True) -> str:
    from alnnode.db.pauses import ANALYSIS, destination_target  # noqa: PLC0415

    if what is What.ANALYSIS:
        if name:
            stop("`analysis` takes no name.", EXIT_FAILED)
        return ANALYSIS
    names = [one.name for one in settings.destinations]
    if not name or (known and name not in names):
        choice = f"choose {', '.join(names)}" if names else "there are no [[destinations]]"
        stop(f"The configuration has no destination '{name}': {choice}.", EXIT_FAILED)
    return destination_target(name)


def _drain(database: Engine) -> None:
    """Wait until no worker runs a job. The job of a worker that was killed counts until its lease ends."""
    from alnnode.analyse.jobs import Jobs  # noqa: PLC0415

    jobs, told = Jobs(database), -1
    while running := jobs.running():
        if running != told:
            typer.echo(f"{running} running", err=True)
            told = running
        time.sleep(POLL)


@contextmanager
def _acting(settings: Settings, config: Path | None, action: str) -> Iterator[tuple[Engine, str]]:
    """Yield the database and the name of this user; write the action into the audit trail when it has succeeded."""
    import getpass  # noqa: PLC0415

    from alnnode.audit.trail import Trail  # noqa: PLC0415

    database, who = open_database(settings, config), getpass.getuser()
    try:
        trail = Trail(settings)
    except OSError as error:
        stop(
            f"Cannot write the audit trail in {settings.node.data_dir} ({error.strerror}): run this command as the user of the node.",
            EXIT_FAILED,
        )
    try:
        yield database, who
        trail.put(trail.events.acted(who, "", action))
    finally:
        trail.close()
        database.dispose()
