"""The ``alnnode`` command: its subcommands, and the exit codes of errors (`alnnode.cli.shared`).

Each subcommand imports what it needs when it runs: a listener must start in a second, and must never load torch.
"""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from alnnode import __version__
from alnnode.cli import (
    analyse_commands,
    backfill_commands,
    backup_commands,
    control_commands,
    init_commands,
    inspect_commands,
    job_commands,
    notify_commands,
    run_commands,
    support_commands,
)
from alnnode.cli.shared import EXIT_FAILED, EXIT_NOT_ANALYSABLE, EXIT_SETTINGS, stop
from alnnode.errors import AlnnodeError, NotAnalysable, SettingsError

COMMANDS = (
    init_commands.init,
    run_commands.serve,
    run_commands.listen,
    run_commands.sweep,
    run_commands.work,
    run_commands.web,
    inspect_commands.check,
    job_commands.jobs,
    job_commands.retry,
    *(control_commands.reload, control_commands.pause, control_commands.resume),
    notify_commands.notify,
    backfill_commands.backfill,
    backup_commands.backup,
    backup_commands.restore,
    support_commands.support_bundle,
    run_commands.token,
    run_commands.migrate,
    inspect_commands.advisories,
    analyse_commands.analyse,
    analyse_commands.phantom,
    analyse_commands.demo,
)  # in the order of the help

app = typer.Typer(
    help="An AI node beside a PACS that finds and classifies axillary lymph nodes on CT. Research use only.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # otherwise Rich removes text in brackets, such as [[web.tokens]], from the help
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in COMMANDS:
    app.command()(command)


def main() -> None:
    """Run the command; turn an error of the node into one line and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal in ISO 8859 has no check mark
    try:
        app()
    except SettingsError as error:
        stop(str(error), EXIT_SETTINGS)
    except NotAnalysable as error:
        stop(str(error), EXIT_NOT_ANALYSABLE)
    except AlnnodeError as error:
        stop(str(error), EXIT_FAILED)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Print the version, or run a command."""
    if version:
        typer.echo(f"alnnode {__version__}")
        raise typer.Exit
