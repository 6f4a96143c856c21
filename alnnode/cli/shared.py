"""What several commands share: exit codes, the ``--config`` option, loading of the settings, and output that shows text as it is.

Exit codes: 0 done; 1 something failed or is missing; 2 the command line was wrong (from Typer); 3 the settings cannot be used; 4 a series
could not be analysed (its reason is printed, and its report is written).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from alnnode import logs
from alnnode.settings import Settings, load

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy.engine import Engine

    from alnnode.analyse.jobs import Jobs

EXIT_FAILED, EXIT_SETTINGS, EXIT_NOT_ANALYSABLE = 1, 3, 4
DEFAULT_CONFIG = Path("config.toml")

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        envvar="ALNNODE_CONFIG",
        help="Settings file. Without it: ./config.toml if it exists, otherwise the defaults.",
    ),
]


def stop(message: str, code: int) -> NoReturn:
    """Print the message on standard error and leave with the exit code."""
    Console(stderr=True, soft_wrap=True).print(message, style="red", markup=False, highlight=False)
    sys.exit(code)


def config_path(config: Path | None) -> Path | None:
    """Return the settings file to read; None when there is none."""
    return config or (DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None)


def load_settings(config: Path | None) -> Settings:
    """Load the settings and configure the log."""
    settings = load(config_path(config))
    logs.configure(settings.logging)
    return settings


def open_jobs(settings: Settings) -> Jobs:
    """Return the job tables of the database in the settings."""
    from alnnode.analyse.jobs import Jobs  # noqa: PLC0415

    return Jobs(open_database(settings))


def open_database(settings: Settings) -> Engine:
    """Return the database of the settings."""
    from alnnode.db import engine  # noqa: PLC0415

    return engine.create(settings.database_url)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """Print a table. A text cell may hold "[…]", which must not be read as Rich markup."""
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    Console(soft_wrap=True).print(table)
