"""What several commands share: exit codes, the ``--config`` option, loading of the settings, and output that shows text as it is.

Exit codes: 0 done; 1 something failed or is missing; 2 the command line was wrong (from Typer); 3 the settings cannot be used; 4 a series
could not be analysed (its reason is printed, and its report is written).
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from alnnode.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.text import Text
    from sqlalchemy.engine import Engine

    from alnnode.settings import Settings

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
    from rich.console import Console  # noqa: PLC0415 - `alnnode --help` and errors of the command line need no Rich

    Console(stderr=True, soft_wrap=True).print(message, style="red", markup=False, highlight=False)
    sys.exit(code)


def config_path(config: Path | None) -> Path | None:
    """Return the settings file to read; None when there is none."""
    return config or (DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None)


def load_settings(config: Path | None) -> Settings:
    """Load the settings and configure the log."""
    from alnnode import logs  # noqa: PLC0415 - `alnnode --help` must be fast
    from alnnode.settings import load  # noqa: PLC0415

    settings = load(config_path(config))
    logs.configure(settings.logging)
    return settings


@contextmanager
def results_folder(folder: Path, option: str) -> Iterator[None]:
    """Create a folder for results, or stop: no result may be lost because it cannot be written. A new folder that stays empty is removed."""
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError as error:
        stop(f"Cannot create the folder {folder} ({error.strerror}): choose another {option}.", EXIT_FAILED)
    if not writable:
        stop(f"This user may not write into {folder}: choose another {option}.", EXIT_FAILED)
    try:
        yield
    finally:
        if is_new:
            with suppress(OSError):
                folder.rmdir()


def open_database(settings: Settings, config: Path | None) -> Engine:
    """Return the database of a node that was started at least once with these settings.

    Raises:
        ServiceError: there is no such database, it cannot be reached, or it has another schema.
    """
    from alnnode.db import engine, schema  # noqa: PLC0415

    if schema.has_no_database(settings.database_url):
        source = config_path(config) or "the defaults, because there is no config.toml here"
        raise ServiceError(
            f"no node has run with these settings ({source}): there is no database in {settings.node.data_dir.resolve()}. "
            "Name the configuration of the node with --config, or start the node with `alnnode serve`."
        )
    schema.schema_state(settings.database_url)
    return engine.create(settings.database_url)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """Print a table. The cells are plain text, so that Rich does not read "[…]" in them as markup."""
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")  # a narrow terminal must not cut paths
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    Console(soft_wrap=True).print(table)
